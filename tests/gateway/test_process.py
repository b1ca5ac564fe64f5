"""Children end when they should: when stopped, when the parent is killed, with all they started."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from gateway.process import Child, free_port, port_is_free, python_module, tail
from toolkit.core.errors import ToolkitError

SERVER = """
import http.server, sys
from gateway.lifeline import watch
watch()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def gone(pid: int, within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_child_is_ready_when_it_answers_and_gone_when_stopped(tmp_path: Path) -> None:
    port = free_port()
    child = Child("server", [sys.executable, "-c", SERVER, str(port)], log=tmp_path / "log")
    child.wait_until(f"http://127.0.0.1:{port}/", timeout=20)
    assert not port_is_free("127.0.0.1", port)
    child.stop()
    child.stop()
    assert not child.running()
    assert port_is_free("127.0.0.1", port)


def test_a_child_that_ends_at_once_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child("server", [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"], log=tmp_path / "log")
    with pytest.raises(ToolkitError, match="ended with code 3") as caught:
        child.wait_until("http://127.0.0.1:9/", timeout=20)
    assert "no such model" in caught.value.message
    child.stop()


def test_a_child_that_answers_something_else_than_200_is_not_ready(tmp_path: Path) -> None:
    port = free_port()
    child = Child("server", [sys.executable, "-c", SERVER, str(port)], log=tmp_path / "log")
    child.wait_until(f"http://127.0.0.1:{port}/", timeout=20)
    with pytest.raises(ToolkitError, match="server did not answer within"):
        child.wait_until(
            f"http://127.0.0.1:{port}/no-such-page", timeout=0.3
        )  # a 404, as llama.cpp's 503 while it loads
    child.stop()


def test_an_answer_of_another_program_at_its_port_is_not_taken_for_the_childs(tmp_path: Path) -> None:
    port = free_port()
    squatter = Child("squatter", [sys.executable, "-c", SERVER, str(port)], log=tmp_path / "log")
    squatter.wait_until(f"http://127.0.0.1:{port}/", timeout=20)
    child = Child("late", [sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log")
    with pytest.raises(ToolkitError, match="late did not answer within"):
        child.wait_until(f"http://127.0.0.1:{port}/", timeout=0.5)
    child.stop(grace=1)
    squatter.stop()


def test_a_child_that_never_answers_is_reported_after_the_bound(tmp_path: Path) -> None:
    child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log")
    with pytest.raises(ToolkitError, match="did not answer within"):
        child.wait_until(f"http://127.0.0.1:{free_port()}/", timeout=0.5)
    child.stop(grace=1)
    assert not child.running()


def test_a_program_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="could not be started"):
        Child("ghost", [str(tmp_path / "ghost")], log=tmp_path / "log")


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, foreign: bool) -> None:
    port = free_port()
    sleeper = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(120)"]
    argv = python_module("gateway.lifeline", "--", *sleeper) if foreign else [sys.executable, "-c", SERVER, str(port)]
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import json, sys, time
                from pathlib import Path
                from gateway.process import Child
                child = Child("child", json.loads(sys.argv[1]), log=Path(sys.argv[2]))
                print(child.pid, flush=True)
                time.sleep(120)
            """),
            json.dumps(argv),
            str(tmp_path / "log"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if foreign:
        deadline = time.monotonic() + 20
        while "up" not in tail(tmp_path / "log") and time.monotonic() < deadline:
            time.sleep(0.05)
    family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    assert len(family) == (2 if foreign else 1)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    assert all(gone(member) for member in family)
