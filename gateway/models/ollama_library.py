"""Pull through a running Ollama, and give a model there the context that was asked for: a derived tag.

Ollama keeps its own files and resumes its own pulls; nothing of them is touched here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import ollama

from gateway.models import fit
from gateway.models.catalogue import Entry
from gateway.models.download import Watcher
from gateway.models.fit import Room
from gateway.upstreams.ollama import configured_context
from gateway.upstreams.wire import is_loopback
from toolkit.core.errors import ToolkitError
from toolkit.core.units import format_bytes


def refuse_if_too_large(name: str, entry: Entry, context: int | None, room: Room, base: str) -> None:
    """Raise ToolkitError if a catalogue entry's tag does not fit this machine; an Ollama elsewhere has its own room."""
    if entry.ollama is None or entry.ollama.size is None or not is_loopback(base):
        return
    shape, asked = entry.architecture(name), context or min(8192, entry.context)
    found = fit.verdict(fit.memory(shape, entry.ollama.size, asked), room)
    if found.fits:
        return
    most = fit.largest_context(shape, entry.ollama.size, room)
    say = f"a context of {most:,} would fit" if most else "no context of it fits"
    raise ToolkitError(
        f"{entry.ollama.tag} with a context of {asked:,} takes {format_bytes(found.short)} more than this machine has; "
        + say,
        hint=f"toolkit models pull {name} --via ollama --context {most}" if most else "toolkit models list --fits",
    )


def pull(tag: str, base: str, watcher: Watcher) -> None:
    """Pull `tag` through the Ollama at `base`. Raises ToolkitError if it is not there or refuses."""
    with _client(base) as client:
        done: dict[str, int] = {}
        for step in client.pull(tag, stream=True):
            if step.digest and step.completed:
                watcher.advance(step.completed - done.get(step.digest, 0))
                done[step.digest] = step.completed
            elif step.status and not step.digest:
                watcher.note(step.status)


def derive(tag: str, context: int, base: str) -> str:
    """Make a tag like `tag` that holds `context` tokens, and return its name. Costs no disk: the weights are shared."""
    name = derived_name(tag, context)
    with _client(base) as client:
        client.create(model=name, from_=tag, parameters={"num_ctx": context})
        shown = client.show(name)
        if configured_context({"parameters": shown.parameters}) != context:
            raise ToolkitError(
                f"Ollama made {name} without the context that was asked for", hint=f"ollama show --parameters {name}"
            )
    return name


def derived_name(tag: str, context: int) -> str:
    """`gemma4:e4b` with 65,536 -> `gemma4:e4b-64k`."""
    base, _, variant = tag.partition(":")
    short = f"{context // 1024}k" if context % 1024 == 0 else str(context)
    return f"{base}:{variant or 'latest'}-{short}"


@contextmanager
def _client(base: str) -> Iterator[ollama.Client]:
    try:
        with ollama.Client(host=base, timeout=httpx.Timeout(None, connect=5.0), trust_env=False) as client:
            yield client
    except (httpx.TransportError, ConnectionError):
        raise ToolkitError(
            f"Ollama does not answer at {base}", hint="ollama serve, or set discover.ollama in gateway.yaml"
        ) from None
    except ollama.ResponseError as error:
        raise ToolkitError(f"Ollama says: {error.error}", hint="toolkit models list") from None
