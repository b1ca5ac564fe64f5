"""One model served by llama.cpp alone: `toolkit models serve`. The gateway has its own way (gateway.supervisor)."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from gateway.models import gguf, store
from gateway.models.catalogue import unknown
from gateway.process import Child, free_port, port_is_free
from gateway.settings import Settings
from gateway.upstreams.discovery import builtin_specs
from gateway.upstreams.llamacpp import LlamaServerSpec, command, spec_for
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.paths import state_dir


def spec(name: str, settings: Settings, *, context: int | None, slots: int, kv: Any, port: int) -> LlamaServerSpec:
    """What to start for `name`: a GGUF file, a model of the store, a built-in one, or one of gateway.yaml.

    Raises UsageError for an unknown name or more context than the model was trained with.
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
    return replace(found, context=context or found.context, slots=slots, kv=kv, port=port or free_port())


@contextmanager
def running(spec: LlamaServerSpec) -> Iterator[str]:
    """The server's URL, once it answers; it is stopped at the end of the block."""
    child = Child(spec.name, command(spec), log=state_dir() / "logs" / "serve.log")
    try:
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
    if name.endswith(".gguf"):
        path = Path(name).expanduser().absolute()
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
    raise unknown(name, [*(receipt.name for receipt in store.receipts()), *(one.name for one in built_in)])
