"""A run on a real llama.cpp that is killed at random points and gone on with."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agents.experiments.trials import TRIALS, read_trials
from toolkit.cli.main import run

KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("mode", ["call", "logprob"])
def test_killed_at_twenty_points_the_results_are_those_of_an_unbroken_run(
    suite: Path, llama: str, mode: str, tmp_path: Path
) -> None:
    where = ["--base-url", f"{llama}/v1", "--direct", llama]
    base = ["bias", "run", "-m", "m", "--suite", str(suite), *where, "--mode", mode, "--quiet"]
    assert run([*base, "--out", str(tmp_path / "whole")]) == 0
    whole = read_trials(tmp_path / "whole")
    out = tmp_path / "broken"
    path, killed = out / TRIALS, 0
    for point in sorted(random.Random(7).sample(range(1, len(whole) - 2), KILLS)):
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "toolkit.cli.main", *base, "--out", str(out)],
            env=os.environ | {"TOOLKIT_HOME": str(tmp_path / "home")},
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline:
            if path.exists() and path.read_bytes().count(b"\n") >= point:
                os.killpg(child.pid, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.001)
        child.wait(10)
    assert killed >= KILLS / 2  # trials finish together, so a run may be over before its point is seen
    assert run([*base, "--out", str(out)]) == 0
    broken = read_trials(out)
    one, other = (sorted((t.key, t.order, t.chosen, t.outcome) for t in trials) for trials in (whole, broken))
    assert one == other
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(one)
