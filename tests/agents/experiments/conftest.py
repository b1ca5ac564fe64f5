from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from gateway.models.builtin import BALANCED
from gateway.process import Child, free_port
from gateway.upstreams.llamacpp import LlamaServerSpec, command

Serve = Callable[[Path], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def builtin() -> Path:
    """The built-in model's file."""
    return BALANCED


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Serve a GGUF file by a real llama.cpp; gives its address."""

    @contextmanager
    def served(path: Path) -> Iterator[str]:
        port = free_port()
        spec = LlamaServerSpec(path, path.stem, context=1024, slots=2, threads=1, port=port)
        child = Child(path.stem, command(spec), log=tmp_path_factory.mktemp("llama") / "log")
        try:
            child.wait_until(f"http://127.0.0.1:{port}/health", timeout=60)
            yield f"http://127.0.0.1:{port}"
        finally:
            child.stop()

    return served


@pytest.fixture(scope="session")
def llama(serve: Serve, builtin: Path) -> Iterator[str]:
    """A llama.cpp on the built-in model."""
    with serve(builtin) as url:
        yield url
