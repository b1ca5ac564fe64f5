import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.trace import read_trace
from tests.agents.scripted_endpoint import Answer, Endpoint, call, completion, serving
from toolkit.cli.main import run

SCRIPT = Path(__file__).parents[1] / "agents" / "arithmetic_server.py"
SERVER = f"arithmetic={sys.executable} -P {SCRIPT}"
CALLS = completion("", calls=[call("add", '{"a": 1, "b": 2}')])


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as served:
        yield served


def agent(endpoint: Endpoint, *more: str) -> int:
    arguments = ["agent", "run", "1 + 2?", "--model", "m", "--base-url", endpoint.url, "--server", SERVER]
    return run([*arguments, "--approve", "auto", *more])


def test_a_task_is_done_with_tools_and_the_answer_alone_is_on_stdout(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    endpoint.will(CALLS, completion("It is 3."))
    assert agent(endpoint, "--trace", str(tmp_path / "t.jsonl")) == 0
    said = capsys.readouterr()
    assert said.out == "It is 3.\n"
    assert '-> add({"a": 1, "b": 2})' in said.err
    assert "<- 3" in said.err
    assert [message["role"] for message in endpoint.asked[1]["messages"]] == ["system", "user", "assistant", "tool"]
    assert endpoint.asked[1]["messages"][-1]["content"] == "3"


def test_json_is_one_document(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint.will(completion("It is 3."))
    assert agent(endpoint, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["answer"], document["ending"], document["steps"]) == ("It is 3.", "answered", 1)
    assert read_trace(Path(document["trace"]))[-1]["answer"] == "It is 3."


def test_quiet_prints_the_answer_and_nothing_else(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint.will(CALLS, completion("It is 3."))
    assert agent(endpoint, "--quiet") == 0
    assert capsys.readouterr() == ("It is 3.\n", "")


def test_a_run_that_a_limit_ends_fails_with_the_reason_and_the_way_to_its_trace(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    endpoint.will(CALLS)
    assert agent(endpoint, "--max-steps", "1", "--trace", str(tmp_path / "t.jsonl")) == 1
    said = capsys.readouterr()
    assert "error: the run ended without an answer: the limit of 1 steps was reached" in said.err
    assert f"hint: toolkit agent replay {tmp_path / 't.jsonl'}" in said.err


def test_the_budget_is_kept(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint.will(Answer(CALLS, headers={"x-litellm-response-cost": "0.02"}))
    assert agent(endpoint, "--budget", "0.01usd") == 1
    assert "$0.02 were spent, the budget is $0.01" in capsys.readouterr().err


def test_a_refusal_of_the_endpoint_is_told_with_exit_code_1(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.will(Answer({"error": {"message": "key is over budget"}}, status=400))
    assert agent(endpoint) == 1
    assert "error: m refused (400): key is over budget" in capsys.readouterr().err


def test_react_calls_tools_in_text(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint.will(completion('Action: add\nAction Input: {"a": 1, "b": 2}'), completion("Final Answer: 3"))
    assert agent(endpoint, "--protocol", "react") == 0
    assert capsys.readouterr().out == "3\n"
    assert "tools" not in endpoint.asked[0]
    assert endpoint.asked[0]["stop"] == ["\nObservation:"]


def test_the_order_and_seed_reach_the_model(endpoint: Endpoint) -> None:
    endpoint.will(completion("x"))
    assert agent(endpoint, "--order", "alphabetical", "--seed", "5") == 0
    names = [tool["function"]["name"] for tool in endpoint.asked[0]["tools"]]
    assert names == sorted(names)
    assert endpoint.asked[0]["seed"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--order", "shuffle"], "a shuffled order needs a seed"),
        (["--order", "upward"], "there is no order named upward"),
        (["--approve", "perhaps"], "--approve is ask, auto or never"),
        (["--approve", "ask"], "there is no terminal to ask on"),
        (["--protocol", "smoke"], "there is no protocol smoke"),
        (["--budget", "much"], "is not an amount of money"),
        (["--max-time", "5"], "is not a duration"),
        (["--max-steps", "0"], "greater than or equal to 1"),
        (["--key", "sk-1"], "must be a reference like env:"),
        (["--key", "env:NO_SUCH_KEY"], "NO_SUCH_KEY, which is not set"),
        (["--server", "nameless"], "is no MCP server"),
        (["--tools", "nothing"], "there is no MCP server named nothing"),
        (["--tools", "prices,prices"], "two MCP servers are named prices"),
        (["--trace", "/proc/nowhere/t.jsonl"], "no trace can be written to /proc/nowhere/t.jsonl"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert agent(endpoint, *options) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert endpoint.asked == []


def test_the_key_comes_from_the_environment(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_KEY", "sk-default")
    monkeypatch.setenv("OTHER", "sk-other")
    endpoint.will(completion("x"), completion("x"))
    assert agent(endpoint) == agent(endpoint, "--key", "env:OTHER") == 0
    assert [headers["authorization"] for headers in endpoint.headers] == ["Bearer sk-default", "Bearer sk-other"]


def test_without_a_gateway_the_way_to_one_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "run", "hi"]) == 1
    assert "hint: toolkit gateway up" in capsys.readouterr().err


def test_replay_shows_what_happened(endpoint: Endpoint, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    endpoint.will(completion("I add.\x1b[31m", calls=[call("add", '{"a": 1, "b": 2}')]), completion("It is 3."))
    agent(endpoint, "--trace", str(trace))
    capsys.readouterr()
    assert run(["agent", "replay", str(trace)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "task: 1 + 2?"
    assert shown[2:6] == ["[1] I add.[31m", '[1] -> add({"a": 1, "b": 2})', "    <- 3", "[2] It is 3."]
    assert shown[6].startswith("the model answered: 2 steps, 20 + 10 tokens, ")
    assert run(["agent", "replay", str(trace), "--quiet"]) == 0
    assert capsys.readouterr().out == "It is 3.\n"


def test_replay_of_a_run_that_was_killed_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"v": 1, "event": "start", "time": "", "task": "x", "model": "m", "tools": []}\n', "utf-8")
    assert run(["agent", "replay", str(trace)]) == 0
    assert "the run was cut short" in capsys.readouterr().out


def spawned(endpoint: Endpoint, trace: Path, *more: str, **how: Any) -> subprocess.Popen[str]:
    arguments = ["--model", "m", "--base-url", endpoint.url, "--server", SERVER, "--trace", str(trace)]
    command = [sys.executable, "-P", "-m", "toolkit.cli.main", "agent", "run", "1 + 2?", *arguments, *more]
    return subprocess.Popen(command, text=True, **how)


def test_ctrl_c_ends_the_run_with_130_and_keeps_the_trace(endpoint: Endpoint, tmp_path: Path) -> None:
    reached, answered = threading.Event(), threading.Event()
    endpoint.will(CALLS, Answer(completion("late"), wait=answered, reached=reached))
    trace = tmp_path / "t.jsonl"
    process = spawned(endpoint, trace, "--approve", "auto", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reached.wait(30)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    answered.set()
    assert process.returncode == 130
    assert f"trace kept: {trace}" in errors
    assert "Traceback" not in errors
    kinds = [event["event"] for event in read_trace(trace)]
    assert kinds[-1] == "end"
    assert "result" in kinds


@pytest.mark.parametrize(("typed", "result"), [("y\n", "3"), ("n\n", "the user did not allow this call")])
def test_a_person_on_a_terminal_is_asked(endpoint: Endpoint, tmp_path: Path, typed: str, result: str) -> None:
    endpoint.will(CALLS, completion("done"))
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as keyboard:
        process = spawned(endpoint, tmp_path / "t.jsonl", stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.close(theirs)
        keyboard.write(typed.encode())
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "done\n"), errors
    assert "allow add(" in errors
    assert endpoint.asked[1]["messages"][-1]["content"] == result


def test_ctrl_c_at_the_question_ends_the_run(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.will(CALLS)
    ours, theirs = pty.openpty()
    trace = tmp_path / "t.jsonl"
    with os.fdopen(ours, "r+b", buffering=0):
        process = spawned(endpoint, trace, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.close(theirs)
        assert process.stderr is not None
        seen = ""
        while not seen.endswith("lways for add: "):
            seen += process.stderr.read(1) or pytest.fail(f"it ended without a question: {seen}")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert read_trace(trace)[-1]["ending"] == "interrupted"
