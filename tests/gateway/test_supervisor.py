"""A gateway's life as a person lives it: up, up again, status, logs, a crash, down, and sudden death."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.process import free_port
from gateway.supervisor import master_key, running
from tests.conftest import only_builtin
from toolkit.cli.main import run
from toolkit.core.paths import config_dir, data_dir, state_dir

pytestmark = pytest.mark.slow


@pytest.fixture
def settings() -> Path:
    """A settings file in the user's config folder that looks for the built-in model only."""
    flags = only_builtin()
    discover = {
        name.removeprefix("discover__"): value for name, value in flags.items() if name.startswith("discover__")
    }
    path = config_dir() / "gateway.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"gateway": {"port": free_port()}, "discover": discover}), encoding="utf-8")
    return path


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_up_twice_status_logs_a_crash_and_down(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gateway", "up"]) == 0
    first = capsys.readouterr()
    assert "toolkit-tiny" in first.out
    assert "llamacpp" in first.out
    found = running()
    assert found is not None
    try:
        assert run(["gateway", "up", "--quiet"]) == 0
        assert capsys.readouterr().out.strip() == found.url

        assert run(["gateway", "status", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["url"] == found.url
        assert {process["name"] for process in document["processes"]} >= {"supervisor", "proxy"}
        assert all(process["resident_bytes"] > 0 for process in document["processes"])

        assert oct((data_dir() / "master.key").stat().st_mode & 0o777) == "0o600"
        headers = {"authorization": f"Bearer {master_key()}"}
        assert httpx.get(f"{found.url}/v1/models", headers=headers, trust_env=False, timeout=30).status_code == 200
        everything = "".join(path.read_text("utf-8", "replace") for path in state_dir().rglob("*") if path.is_file())
        assert master_key() not in everything

        assert run(["gateway", "logs", "gateway"]) == 0
        assert "starting the proxy" in capsys.readouterr().out
        assert run(["gateway", "logs", "nothing"]) == 1
        assert "there is no log named nothing" in capsys.readouterr().err

        os.kill(found.pids["proxy"], signal.SIGKILL)

        def came_back() -> bool:
            again = running()
            return again is not None and again.pids["proxy"] != found.pids["proxy"]

        assert wait_for(came_back)
        pids = list(running().pids.values())  # type: ignore[union-attr]
    finally:
        assert run(["gateway", "down"]) == 0
    assert alive(pids) == []
    assert running() is None
    assert run(["gateway", "down"]) == 0
    capsys.readouterr()
    assert run(["gateway", "status"]) == 1
    assert "hint: toolkit gateway up" in capsys.readouterr().err


def test_a_killed_gateway_leaves_no_process_within_ten_seconds(settings: Path) -> None:
    assert run(["gateway", "up", "--quiet"]) == 0
    found = running()
    assert found is not None
    pids = list(found.pids.values())
    os.kill(found.pid, signal.SIGKILL)
    assert wait_for(lambda: not alive(pids), 10)
    assert running() is None


def test_ctrl_c_in_the_foreground_stops_everything(settings: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "toolkit.cli.main", "gateway", "up", "--foreground"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert wait_for(lambda: running() is not None)
    pids = list(running().pids.values())  # type: ignore[union-attr]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert alive(pids) == []


def test_a_taken_port_is_refused_with_a_free_one(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(["gateway", "up", "--port", str(taken.getsockname()[1])]) == 1
    error = capsys.readouterr().err
    assert "is in use" in error
    assert "hint: toolkit gateway up --port" in error
    assert running() is None


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"not a model", "GGUF"), (b"", "GGUF"), (b"GGUF\x03\x00\x00\x00", "GGUF"), (None, "no file")],
)
def test_a_file_that_is_no_whole_gguf_is_refused_before_anything_starts(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, says: str
) -> None:
    model = tmp_path / "broken.gguf"
    if content is not None:
        model.write_bytes(content)
    document = json.loads(settings.read_text(encoding="utf-8"))
    document["models"] = [{"name": "broken", "gguf": str(model)}]
    settings.write_text(json.dumps(document), encoding="utf-8")
    assert run(["gateway", "up"]) in (1, 2)
    error = capsys.readouterr().err
    assert says in error
    assert "hint: " in error
    assert running() is None


def test_config_prints_what_would_be_used_and_no_secret(
    settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(settings.read_text(encoding="utf-8"))
    document["models"] = [{"name": "team", "litellm": "openai/gpt-4o", "api_key": "env:TEAM_KEY"}]
    settings.write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setenv("TEAM_KEY", "sk-very-secret")
    assert run(["gateway", "config", "--json"]) == 0
    printed = capsys.readouterr().out
    names = [entry["model_name"] for entry in json.loads(printed)["model_list"]]
    assert "team" in names
    assert "toolkit-tiny" in names
    assert "os.environ/TEAM_KEY" in printed
    assert "sk-very-secret" not in printed
