"""The demo as a newcomer sees it: whole, again, interrupted, killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

DEMO = [sys.executable, "-P", "-m", "toolkit.cli.main", "demo", "--tasks", "10", "--out"]


def demo(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, str(out), *more], capture_output=True, text=True, timeout=200)


def ours(out: Path) -> list[int]:
    """Every living process that names the demo's folder: in its command line or its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            if str(out) in " ".join(process.cmdline()) or process.environ().get("TOOLKIT_HOME") == str(out / "home"):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_the_demo_ends_with_a_report_and_can_be_run_again(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = demo(out, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert Path(document["report"]).read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    result = document["result"]
    assert len(result["effects"]) == 5
    assert result["trials"] >= 50
    assert sum(result["outcomes"].values()) == result["trials"]
    spent = document["key"]["spent_tokens"]
    assert spent == result["prompt_tokens"] + result["completion_tokens"]
    assert ours(out) == []

    again = demo(out)
    assert again.returncode == 0, again.stderr
    assert "report: " in again.stdout
    for words in ("accuracy", "effect of position 5", "spend of the key", "calls", "tokens"):
        assert words in again.stdout
    assert (out / "run-2").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_demo_interrupted_leaves_no_process_and_goes_on_where_it_was(tmp_path: Path, number: int) -> None:
    out = tmp_path / "demo"
    process = subprocess.Popen([*DEMO, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    trials = out / "run-1" / "trials.jsonl"
    assert wait_for(lambda: trials.exists() and trials.stat().st_size > 0, 150)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert wait_for(lambda: not ours(out), 10), ours(out)
    before = [line for line in trials.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    done = demo(out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"] == str(out / "run-1")
    assert trials.read_bytes().startswith(b"".join(before))
