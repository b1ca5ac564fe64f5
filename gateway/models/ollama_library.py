"""Pull through a running Ollama, and give a model there the context that was asked for: a derived tag.

Ollama keeps its own files and resumes its own pulls; nothing of them is touched here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import ollama

from gateway.models.download import Watcher
from gateway.upstreams.ollama import configured_context
from toolkit.core.errors import ToolkitError


class Loaded(NamedTuple):
    """A model Ollama holds in memory: its tag, the context it really has, and bytes in all and on the GPU."""

    tag: str
    context: int | None
    size: int
    vram: int


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


def loaded(base: str) -> list[Loaded]:
    """What Ollama has in memory now, as it says itself (`/api/ps`)."""
    with _client(base) as client:
        return [
            Loaded(str(model.model), model.context_length, int(model.size or 0), int(model.size_vram or 0))
            for model in client.ps().models
        ]


def remove(tag: str, base: str) -> None:
    """Delete a tag at Ollama."""
    with _client(base) as client:
        client.delete(tag)


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
