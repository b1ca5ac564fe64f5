"""A real llama.cpp server on the built-in model, shared by the tests of this folder."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from gateway.models.builtin import BALANCED
from gateway.process import Child, free_port
from gateway.settings import Settings
from gateway.upstreams.llamacpp import LlamaServerSpec, command, spec_for


@dataclass(frozen=True)
class LlamaServer:
    spec: LlamaServerSpec
    child: Child

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.spec.port}"

    def post(self, path: str, body: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=60, trust_env=False)


@pytest.fixture(scope="session")
def model_file() -> Path:
    return BALANCED


@pytest.fixture(scope="session")
def llama_server(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Iterator[LlamaServer]:
    spec = replace(spec_for(model_file, "tiny", Settings(), threads=1), port=free_port())
    child = Child("tiny", command(spec), log=tmp_path_factory.mktemp("llama") / "tiny.log")
    child.wait_until(f"http://127.0.0.1:{spec.port}/health", timeout=60)
    yield LlamaServer(spec, child)
    child.stop()
