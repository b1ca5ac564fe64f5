"""What every test gets: a home folder of its own, far from the user's real one, and one live gateway to share."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

# A shell that runs the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy makes no test fail; nothing that a function's fixture holds is changed by an example.
settings.register_profile(
    "toolkit", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("toolkit")

OWN_SUITE = """
name: own
tools:
  - {name: get_weather, description: Weather for a city, parameters: {city: Name of the city}}
  - {name: get_time, description: Local time in a city, parameters: {city: Name of the city}}
  - {name: get_map, description: Map of a city, parameters: {city: Name of the city}}
tasks:
  get_weather: [will it rain in Oslo, is it warm in Rome, weather in Lima, snow in Bern, how windy is Cork, sun in Nice]
  get_time: [what time is it in Oslo, time in Rome, clock in Lima, how late is it in Bern, hour in Cork, time for Nice]
  get_map: [show me Oslo, a map of Rome, plan of Lima, where in Bern is the station, streets of Cork, map of Nice]
"""

PROVIDERS = ("OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL", "OPENROUTER")


def isolate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every path of the toolkit and of the clients below `folder`, and take provider keys away."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.setenv("TOOLKIT_HOME", str(folder / "toolkit"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TOOLKIT_CONFIG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for provider in PROVIDERS:
        monkeypatch.delenv(f"{provider}_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home folder; every path of the toolkit and of the clients lies below it."""
    folder = tmp_path / "home"
    folder.mkdir()
    isolate(folder, monkeypatch)
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A person's own suite of 18 tasks over three tools, as a file."""
    path = tmp_path / "own.yaml"
    path.write_text(OWN_SUITE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def llama_cpp_python() -> None:
    """For tests on llama-cpp-python, an extra that is built from source: skipped where it is not installed."""
    if find_spec("llama_cpp") is None:
        assert not os.environ.get("TOOLKIT_REQUIRE_LLAMA_CPP_PYTHON"), "it is missing: make llama-cpp-python"
        pytest.skip("llama-cpp-python is not installed: make llama-cpp-python")


@dataclass(frozen=True)
class LiveGateway:
    """A real gateway on the built-in model, shared by the tests of a session."""

    url: str
    home: Path
    notes: Path  # the folder that its files server may touch

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Let the code under test find this gateway as the user's own."""
        with pytest.MonkeyPatch.context() as patch:
            isolate(self.home, patch)
            yield

    def key(self, name: str, **limits: object) -> str:
        """A new virtual key with these limits; its secret."""
        from gateway.keys.store import open_store
        from gateway.settings import load_settings

        with self.environment():
            return open_store(load_settings().keys.url).create(name, **limits).secret  # type: ignore[arg-type]

    def client(self, key: str) -> httpx.Client:
        """An HTTP client that sends `key` as both APIs want it."""
        headers = {"authorization": f"Bearer {key}", "x-api-key": key, "anthropic-version": "2023-06-01"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """One gateway for the whole session: llama.cpp on the built-in model behind the real proxy."""
    from gateway import supervisor
    from gateway.process import free_port

    folder, notes = tmp_path_factory.mktemp("gateway-home"), tmp_path_factory.mktemp("notes")
    with pytest.MonkeyPatch.context() as patch:
        isolate(folder, patch)
        settings = only_builtin() | {
            "gateway__port": free_port(),
            "mcp": {"python": [], "files": ["--root", str(notes)]},
        }
        with supervisor.attached(None, settings, note=lambda _: None) as found:
            patch.undo()
            yield LiveGateway(url=found.url, home=folder, notes=notes)


def only_builtin() -> dict[str, object]:
    """Settings flags that look for nothing on this machine but the built-in models."""
    servers = {f"discover__{name}": False for name in ("gguf", "llamacpp", "ollama", "lmstudio", "vllm")}
    return {**servers, "discover__hosted": [], "gateway__start_timeout": "120s"}
