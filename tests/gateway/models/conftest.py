"""A local hub with made GGUF files, and the environment that points huggingface_hub at it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks._made_models import KINDS, write
from tests.gateway.models.hub_standin import Hub, local_hub


@dataclass
class Listener:
    """A watcher that remembers what it was told."""

    done: float = 0
    notes: list[str] = field(default_factory=list)

    def advance(self, done: float = 1) -> None:
        self.done += done

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def watcher() -> Listener:
    return Listener()


@pytest.fixture(scope="session")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(KINDS["gemma4"], tmp_path_factory.mktemp("hub") / "m.gguf").read_bytes()


@pytest.fixture
def hub(home: Path, made_model: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {
        "model-Q4_K_M.gguf": made_model,
        "model-Q8_0.gguf": made_model + bytes(4096),
        "mmproj-F16.gguf": made_model[:-32] + bytes(32),
        "README.md": b"# model",
    }
    with local_hub(files) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HOME", str(home / "hf"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hf" / "hub"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield running
