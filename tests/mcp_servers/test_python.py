import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp.client.client import Client

from mcp_servers import isolation
from mcp_servers.catalogue import parser
from mcp_servers.isolation import Isolation, Limits
from mcp_servers.python import build, make
from tests.mcp_servers import escapes
from toolkit.core.errors import UsageError

ISOLATIONS = escapes.isolations()
FREE: list[Isolation] = [*ISOLATIONS, *(["none"] if sys.platform != "win32" else [])]  # type: ignore[list-item]


@pytest.fixture(scope="module")
def reports() -> dict[Isolation, escapes.Report]:
    """Every way out, tried once under every isolation that works here."""
    return {kind: asyncio.run(escapes.run_all(kind)) for kind in ISOLATIONS}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("attempt", escapes.attempts(), ids=lambda attempt: attempt.name)
def test_code_does_not_get_out(attempt: escapes.Attempt, reports: dict[Isolation, escapes.Report]) -> None:
    assert reports, "no isolation works here"
    for kind, report in reports.items():
        outcome = report.outcomes[attempt.name]
        assert outcome.reached == [], f"{kind}: {outcome.met}"
        assert outcome.seconds < 20, kind
        # Of the whole server: every attempt under way at that moment may hold its share, and sessions idle beside.
        assert outcome.memory < 8 * escapes.MEMORY, kind


@pytest.mark.timeout(400)
def test_after_all_ways_out_the_server_answers_and_leaves_nothing(
    reports: dict[Isolation, escapes.Report],
) -> None:
    for kind, report in reports.items():
        assert report.answers_after, kind
        assert report.left_over == [], kind


async def run(client: Client, code: str, session: str = "main") -> dict[str, Any]:
    answer = await client.call_tool("run_python", {"code": code, "session": session})
    assert not answer.is_error, answer.content
    return dict(answer.structured_content or {})


@pytest.mark.parametrize("kind", FREE)
async def test_a_session_keeps_its_variables_and_its_files_and_shares_neither(kind: Isolation) -> None:
    async with Client(make(kind, Limits(seconds=10))) as client:
        first = await run(client, "x = 20\nprint('set')\nx + 1")
        assert (first["output"], first["result"], first["error"], first["isolation"]) == ("set\n", "21", None, kind)
        assert (await run(client, "x * 2"))["result"] == "40"
        await run(client, "with open('note.txt', 'w') as file:\n    file.write('kept')")
        assert (await run(client, "open('note.txt').read()"))["result"] == "'kept'"
        assert "NameError" in (await run(client, "x", session="other"))["error"]
        assert (await run(client, "open('note.txt').read()", session="other"))["error"]
        await client.call_tool("reset_python", {})
        assert "NameError" in (await run(client, "x"))["error"]


@pytest.mark.parametrize("kind", FREE)
async def test_an_error_is_the_traceback_and_the_session_lives_on(kind: Isolation) -> None:
    async with Client(make(kind, Limits(seconds=10))) as client:
        answer = await run(client, "y = 1\ny / 0")
        assert "ZeroDivisionError" in answer["error"]
        assert "worker.py" not in answer["error"]
        assert answer["session_ended"] is None
        assert (await run(client, "y"))["result"] == "1"
        assert (await run(client, "def f(:"))["error"]


@pytest.mark.parametrize("kind", FREE)
async def test_code_that_runs_too_long_ends_its_session_and_the_next_call_starts_a_new_one(kind: Isolation) -> None:
    async with Client(make(kind, Limits(seconds=0.7))) as client:
        answer = await run(client, "z = 1\nwhile True:\n    pass")
        assert answer["session_ended"] == "it ran longer than 0.7 s; the session main and its variables are gone"
        assert "NameError" in (await run(client, "z"))["error"]


@pytest.mark.parametrize("kind", FREE)
async def test_output_is_cut_to_the_stated_size(kind: Isolation) -> None:
    async with Client(make(kind, Limits(seconds=10, output=100))) as client:
        answer = await run(client, "print('a' * 1000)")
        assert (answer["output"], answer["truncated"]) == ("a" * 100, True)


def below_us() -> dict[int, psutil.Process]:
    """Every process that this one started, at any remove, by number."""
    return {child.pid: child for child in psutil.Process().children(recursive=True)}


@pytest.mark.skipif("bubblewrap" not in ISOLATIONS, reason="bubblewrap does not work here")
async def test_nothing_of_a_session_runs_between_calls() -> None:
    others = below_us()
    async with Client(make("bubblewrap", Limits(seconds=10))) as client:
        await run(client, "import threading, time, subprocess\nsubprocess.Popen(['/bin/sleep', '60'])\nticks = []")
        tick = "def tick():\n    while True:\n        ticks.append(1); time.sleep(0.01)\n"
        await run(client, tick + "threading.Thread(target=tick, daemon=True).start()\ntime.sleep(0.1)")
        states = {(child.name(), child.status()) for pid, child in below_us().items() if pid not in others}
        assert {state for name, state in states if name == "sleep"} <= {psutil.STATUS_ZOMBIE}
        assert {state for name, state in states if name.startswith("python")} == {psutil.STATUS_STOPPED}


@pytest.mark.skipif("bubblewrap" not in ISOLATIONS, reason="bubblewrap does not work here")
@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.run(['/bin/sh', '-c', ':(){ :|:& };:'])",
        "import subprocess\nsubprocess.run(['/bin/sh', '-c', '(while true; do sleep .01; done) & (sleep 60) &'])",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    while os.fork() == 0:\n        pass\n    os._exit(0)",
    ],
)
async def test_processes_that_go_on_after_the_answer_are_gone_with_it(code: str) -> None:
    others = below_us()
    async with Client(make("bubblewrap", Limits(seconds=5))) as client:
        await run(client, code)
        before = below_us().keys()
        await asyncio.sleep(0.2)  # time for what survived to start another
        left = [c for pid, c in below_us().items() if pid not in others and c.status() != psutil.STATUS_ZOMBIE]
        assert len(left) <= 3
        assert {child.pid for child in left} <= before
        assert (await run(client, "6 * 7"))["result"] == "42"


@pytest.mark.skipif("bubblewrap" not in ISOLATIONS, reason="bubblewrap does not work here")
async def test_installed_libraries_can_be_imported_and_child_processes_are_heard() -> None:
    async with Client(make("bubblewrap", Limits(seconds=30))) as client:
        assert (await run(client, "import numpy\nint(numpy.arange(5).sum())"))["result"] == "10"
        assert (await run(client, "import subprocess\nsubprocess.run(['/bin/echo', 'hi']).returncode"))[
            "output"
        ] == "hi\n"


async def test_the_ninth_session_takes_the_place_of_the_one_unused_for_longest() -> None:
    kind = ISOLATIONS[-1]
    async with Client(make(kind, Limits(seconds=10))) as client:
        for number in range(9):
            await run(client, f"n = {number}", session=f"s{number}")
        assert (await run(client, "n", session="s8"))["result"] == "8"
        assert "NameError" in (await run(client, "n", session="s0"))["error"]


async def test_long_code_reports_progress() -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with Client(make(ISOLATIONS[0], Limits(seconds=10))) as client:
        await client.call_tool("run_python", {"code": "import time\ntime.sleep(1.3)"}, progress_callback=note)
    assert seen == [1.0]


async def test_code_beyond_the_limit_is_refused_in_a_sentence() -> None:
    async with Client(make(ISOLATIONS[0], Limits())) as client:
        answer = await client.call_tool("run_python", {"code": "#" * 300_000})
    assert answer.is_error
    assert answer.content[0].text == "run_python: code: has 300,000 characters; 1 to 200,000 are allowed"  # type: ignore[union-attr]


def test_without_any_isolation_the_server_refuses_to_start_unless_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "bubblewrap_works", lambda: False)
    monkeypatch.setattr(isolation, "monty_works", lambda: False)
    with pytest.raises(UsageError, match="no isolation"):
        build(parser("python").parse_args([]))
    server = build(parser("python").parse_args(["--unsafe"]))
    assert "WITHOUT isolation" in (server.instructions or "")


def test_an_isolation_asked_for_by_name_is_not_silently_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "bubblewrap_works", lambda: False)
    with pytest.raises(UsageError, match="bubblewrap does not work here"):
        build(parser("python").parse_args(["--isolation", "bubblewrap"]))


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--seconds", "99999"], ["--memory", "lots"]])
def test_limits_that_cannot_be_meant_are_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        build(parser("python").parse_args(arguments))


def test_bubblewrap_that_cannot_make_namespaces_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    isolation.bubblewrap_works.cache_clear()
    try:
        assert not isolation.bubblewrap_works()
    finally:
        isolation.bubblewrap_works.cache_clear()


async def test_a_cancelled_call_ends_what_it_started() -> None:
    server = make(ISOLATIONS[0], Limits(seconds=30))
    async with Client(server) as client:
        before = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.call_tool("run_python", {"code": "import time\nwhile True:\n    time.sleep(1)"})
        assert time.monotonic() - before < 5
        assert (await run(client, "1 + 1"))["result"] == "2"


def test_an_environment_below_tmp_is_not_hidden_by_the_sandbox_s_own_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/tmp/clone/.venv")
    command = isolation._bubblewrap("bwrap", Limits())
    assert command.index("/tmp/clone/.venv") > command.index("/tmp")


def test_where_bubblewrap_can_make_namespaces_it_is_what_code_runs_under() -> None:
    program = shutil.which("bwrap")
    if program is None:
        pytest.skip("bubblewrap is not installed")
    able = subprocess.run([program, "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, timeout=30)
    if able.returncode:
        pytest.skip("this machine lets bubblewrap make no namespaces")
    assert isolation.best() == "bubblewrap"
