import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit.cli.main import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    inside = tmp_path / "here"
    inside.mkdir()
    (inside / "sales.csv").write_text("name,amount\nAnn,50\nBob,150\n")
    monkeypatch.chdir(inside)
    return inside


def test_the_servers_are_listed_without_being_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mcp", "list", "--json"]) == 0
    assert [server["server"] for server in json.loads(capsys.readouterr().out)] == [
        "python", "spreadsheet", "prices", "web", "files", "images",
    ]  # fmt: skip
    assert run(["mcp", "list", "--quiet"]) == 0
    assert capsys.readouterr().out.split() == ["python", "spreadsheet", "prices", "web", "files", "images"]


@pytest.mark.usefixtures("folder")
def test_a_tool_is_called_and_its_answer_printed(capfd: Any) -> None:
    sql = json.dumps({"file": "sales.csv", "sql": "SELECT count(*) FROM data WHERE amount > 100"})
    assert run(["mcp", "call", "spreadsheet", "query_spreadsheet", sql, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "columns": ["count(*)"],
        "rows": [[1]],
        "total": 1,
        "truncated": False,
    }


def test_options_of_the_server_stand_at_the_end(folder: Path, tmp_path: Path, capfd: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "note.txt").write_text("a note\n")
    assert run(["mcp", "call", "files", "read_file", '{"path": "note.txt"}', "--json", "--root", str(other)]) == 0
    assert json.loads(capfd.readouterr().out)["text"] == "a note"


@pytest.mark.usefixtures("folder")
def test_what_a_tool_refuses_is_an_error_with_a_hint(capfd: Any) -> None:
    assert run(["mcp", "call", "spreadsheet", "read_spreadsheet", '{"file": "gone.csv"}']) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert "error: read_spreadsheet: there is no file gone.csv" in said.err
    assert "hint: toolkit mcp list --tools" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["call", "nothing", "x"], "there is no MCP server named nothing"),
        (["call", "files", "read_file", "{not json"], "the arguments are not JSON"),
        (["call", "files", "read_file", "[1]"], "the arguments must be a JSON object"),
        (["call", "files", "read_file", "{}", "--frob"], "unrecognized arguments: --frob"),
        (["run", "nothing"], "there is no MCP server named nothing"),
        (["connect", "claude-code", "files", "--frob"], "unrecognized arguments: --frob"),
        (["connect", "claude-code", "files", "web", "--root", "x"], "options like --root are for one server of ours"),
        (["connect", "claude-code", "--root", "x"], "options like --root are for one server of ours"),
        (["connect", "claude-code", "files", "--http", "0"], "leave out --http"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence_and_a_hint(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["mcp", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "hint: " in said


def test_a_server_that_cannot_start_says_why(folder: Path, capfd: Any) -> None:
    assert run(["mcp", "call", "files", "list_files", "{}", "--root", "/nowhere/at/all"]) != 0
    assert "there is no folder /nowhere/at/all" in capfd.readouterr().err


def test_run_serves_on_stdin_and_stdout(folder: Path) -> None:
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}) + "\n"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "toolkit.cli.main", "mcp", "run", "files"],
        input=ping,
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
    )
    assert json.loads(done.stdout)["id"] == 1
    assert done.returncode == 0


def test_help_of_a_server_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["mcp", "run", "files", "--help"])
    assert ended.value.code == 0
    assert "--read-only" in capsys.readouterr().out
