"""The frame of the command: what it imports, how it fails, what its exit codes are."""

import errno
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from toolkit.cli import main as command
from toolkit.cli.output import Output
from toolkit.core.errors import ToolkitError, UsageError

HEAVY = {"litellm", "mcp", "numpy", "scipy", "matplotlib", "rich", "pydantic", "httpx", "yaml", "sqlalchemy", "jinja2"}


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, json; from toolkit.cli.main import run; run(['--help']);"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    *text, loaded = done.stdout.splitlines()
    assert any("gateway" in line for line in text)
    assert not HEAVY & set(json.loads(loaded))


@pytest.mark.parametrize("noun", command.NOUNS)
def test_every_noun_has_commands_that_explain_themselves_and_import_nothing_heavy(noun: str) -> None:
    script = (
        f"import sys, json; from toolkit.cli.main import run; code = run(['{noun}', '--help']);"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    *text, last = done.stdout.splitlines()
    code, loaded = json.loads(last)
    assert code == 0
    assert f"toolkit {noun}" in text[0]
    assert not (HEAVY - {"pydantic"}) & set(loaded)  # typer itself imports pydantic to read annotations


def test_version_is_one_line_of_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("toolkit ")


@pytest.mark.parametrize(
    "arguments", [["gatewax"], ["--nope"], ["gateway", "upp"], ["gateway", "up", "--port", "many"]]
)
def test_wrong_usage_is_a_sentence_a_hint_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "\nhint: toolkit" in captured.err


def stand_in(monkeypatch: pytest.MonkeyPatch, raises: BaseException) -> None:
    module = importlib.import_module("toolkit.cli.gateway")
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise raises

    monkeypatch.setattr(module, "app", app)


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (
            ToolkitError("no model named qwen", hint="toolkit models list"),
            1,
            "error: no model named qwen\nhint: toolkit",
        ),
        (UsageError("twice"), 2, "error: twice\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/keys.db"),
            1,
            "error: /data/keys.db: there is no space left on the disk\nhint: df -h /data/keys.db",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (typer.Abort(), 130, "interrupted\n"),
    ],
    ids=["toolkit error", "usage error", "full disk", "ctrl-c", "abort"],
)
def test_errors_have_their_exit_code_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    shown: str,
) -> None:
    stand_in(monkeypatch, error)
    assert command.run(["gateway"]) == code
    assert capsys.readouterr().err.startswith(shown)


def test_an_unforeseen_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        command.run(["gateway"])


def test_json_is_one_document_and_notes_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json=True)
    out.note("working")
    out.result({"a": 1}, human="one", quiet="1")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": 1}
    assert captured.err == "working\n"


def test_quiet_prints_what_a_script_wants(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(quiet=True)
    out.note("working")
    out.result({"a": 1}, human="one", quiet=["1", "2"])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("1\n2\n", "")


def test_json_and_quiet_exclude_each_other() -> None:
    with pytest.raises(UsageError):
        Output(json=True, quiet=True)


def test_what_destroys_needs_a_yes_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(UsageError, match="no terminal"):
        Output().confirm("delete everything?", yes=False)
    Output().confirm("delete everything?", yes=True)


def test_a_full_disk_under_the_output_is_said_and_not_shown_as_a_traceback() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-P", "-m", "toolkit.cli.main", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert "there is no space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
