"""One model served by llama.cpp alone: `toolkit models serve`. The gateway has its own way (gateway.supervisor)."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from gateway.models import gguf, store
from gateway.process import Child, free_port, port_is_free
from gateway.settings import Engine, Settings
from gateway.upstreams.llamacpp import LlamaServerSpec, builtin_specs, command, resolved, spec_for
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.paths import state_dir
from toolkit.core.units import format_bytes


def spec(
    name: str,
    settings: Settings,
    *,
    context: int | None,
    slots: int,
    kv: Any,
    port: int,
    engine: Engine | None = None,
) -> LlamaServerSpec:
    """What to start for `name`: a GGUF file, a model of the store, a built-in one, or one of gateway.yaml.

    Raises UsageError for an unknown name or more context than the model was trained with, ToolkitError for an engine
    that is not installed.
    """
    found = _found(name, settings)
    if context:
        most = gguf.read_file(found.gguf).context_length
        if most and context > most:
            raise UsageError(
                f"{found.name} was trained with a context of {most:,}, less than the {context:,} asked for",
                hint=f"toolkit models serve {name} --context {most}",
            )
    if port and not port_is_free("127.0.0.1", port):
        raise ToolkitError(f"port {port} is in use", hint=f"toolkit models serve {name} --port {free_port()}")
    asked = replace(found, context=context or found.context, slots=slots, kv=kv or found.kv, port=port or free_port())
    return resolved(replace(asked, engine=engine or asked.engine))


def shortage(spec: LlamaServerSpec) -> str | None:
    """What a person should know if the model takes more memory than is free now, with the context that would fit."""
    from gateway.models import fit, machine
    from gateway.models.architecture import from_header

    shape, room = from_header(gguf.read_file(spec.gguf)), machine.look().room(now=True)
    weights = sum(part.stat().st_size for part in gguf.split_of(spec.gguf))
    projector = spec.mmproj.stat().st_size if spec.mmproj else 0
    need = fit.memory(shape, weights, spec.context, slots=spec.slots, kv=spec.kv, projector=projector)
    found = fit.verdict(need, room)
    if found.fits:
        return None
    most = fit.largest_context(shape, weights, room, slots=spec.slots, kv=spec.kv, projector=projector)
    return (
        f"{spec.name} takes {format_bytes(need.total)} with this context, {format_bytes(found.short)} more than is free"
        + (f"; a context of {most:,} would fit" if most else "; no context would fit")
    )


@contextmanager
def running(spec: LlamaServerSpec, started: Callable[[], None] = lambda: None) -> Iterator[str]:
    """The server's URL, once it answers; it is stopped at the end of the block. `started` runs while it loads."""
    child = Child(spec.name, command(spec), log=state_dir() / "logs" / "serve.log")
    try:
        started()
        child.wait_until(f"http://127.0.0.1:{spec.port}/health", timeout=300)
        yield f"http://127.0.0.1:{spec.port}"
    finally:
        child.stop()


def until_stopped() -> None:
    """Return at SIGTERM; Ctrl-C raises KeyboardInterrupt as ever."""
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    while not stopping.wait(0.5):
        pass


def _found(name: str, settings: Settings) -> LlamaServerSpec:
    path = store.as_path(name)
    if path is not None:
        return spec_for(path, path.stem, settings)
    kept = store.lookup(name)
    if kept is not None:
        return spec_for(kept.path, kept.name, settings, mmproj=kept.projector)
    for model in settings.models:
        if model.name == name and model.gguf is not None:
            return spec_for(model.gguf.expanduser().absolute(), name, settings, model)
    built_in = builtin_specs(settings)
    for one in built_in:
        if one.name == name:
            return one
    from gateway.models import catalogue  # only now: it takes longer to read than the rest of this

    known = catalogue.read().models
    if name.partition(":")[0].lower() in known:
        raise catalogue.not_pulled(name)
    raise catalogue.unknown(
        name, [*known, *(receipt.name for receipt in store.receipts()), *(one.name for one in built_in)]
    )
