"""The servers as clients meet them: over stdio and HTTP, with garbage, too much, too many, and killed."""

import asyncio
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from mcp.client.client import Client

from mcp_servers import files, isolation, python
from mcp_servers.__main__ import main
from mcp_servers.catalogue import SERVERS
from mcp_servers.isolation import Limits
from mcp_servers.server import WhereOnly
from tests.mcp_servers.calls import ARGUMENTS, CALLS, OFFLINE
from tests.mcp_servers.conftest import stdio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "t.csv").write_text("a\n1\n2\n")
    return inside


async def check(client: Client, name: str) -> None:
    tool, arguments = CALLS[name]
    answer = await client.call_tool(tool, arguments)
    if name in OFFLINE:
        assert answer.is_error
        assert OFFLINE[name] in str(answer.content)
    else:
        assert not answer.is_error, answer.content
        assert answer.structured_content


@contextmanager
def serving(name: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server over streamable HTTP on a free port: its process and its URL."""
    command = [sys.executable, "-P", "-m", "mcp_servers", name, "--http", "0", *ARGUMENTS.get(name, [])]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            assert " at http://127.0.0.1:" in line, line
            yield process, line.split(" at ")[1].strip()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            finally:
                process.kill()
            assert process.stdout is not None
            assert process.stdout.read() == ""


@contextmanager
def http(name: str, folder: Path) -> Iterator[str]:
    with serving(name, folder) as (_, url):
        yield url


async def test_over_http_clients_are_served_and_other_hosts_origins_and_large_bodies_refused(folder: Path) -> None:
    with http("files", folder) as url:
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        accept = {"Accept": "application/json, text/event-stream"}
        async with httpx.AsyncClient() as client:
            rebound = await client.post(url, json=body, headers=accept | {"Host": "evil.example"})
            foreign = await client.post(url, json=body, headers=accept | {"Origin": "https://evil.example"})
            large = await client.post(
                url, content=b"x" * (5 << 20), headers=accept | {"Content-Type": "application/json"}
            )
            garbage = await client.post(url, content=b"\xff{{{", headers=accept | {"Content-Type": "application/json"})
        assert (rebound.status_code, foreign.status_code, large.status_code) == (421, 403, 413)
        assert garbage.status_code == 400
        async with Client(url) as one, Client(url) as other:
            await asyncio.gather(check(one, "files"), check(other, "files"))
        port = url.split(":")[2].split("/")[0]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-P", "-m", "mcp_servers", "files", "--http", port],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=30,
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert done.stdout == ""


async def test_python_over_http_ends_its_sessions_when_it_is_stopped(folder: Path) -> None:
    with serving("python", folder) as (server, url):
        async with Client(url) as one, Client(url) as other:
            await asyncio.gather(check(one, "python"), check(other, "python"))
        family = psutil.Process(server.pid).children(recursive=True)
    assert family
    assert gone(family)


class Raw:
    """A server driven line by line, as no official client would."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mcp_servers", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
        )
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        self.ask("initialize", hello)
        self.write(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode())

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: dict[str, Any], number: int = 1) -> dict[str, Any]:
        self.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())
        return self.answer(number)

    def call(self, tool: str, arguments: dict[str, Any], number: int) -> dict[str, Any]:
        return self.ask("tools/call", {"name": tool, "arguments": arguments}, number)

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to request `number`; every line on the way must be protocol."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("id") == number:
                return dict(message)
        raise AssertionError("the server ended")

    def close(self) -> tuple[bytes, bytes]:
        """End of the client; what else the server said on stdout and stderr."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None
        return self.process.communicate(timeout=10)


GARBAGE = [
    b"",
    b"not json",
    b"\xff\xfe\x00\x01",
    b"{",
    b"[]",
    b"null",
    b"42",
    b'"text"',
    b"{}",
    b'{"jsonrpc": "1.0", "id": 9, "method": "ping"}',
    b'{"jsonrpc": "2.0"}',
    b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": 9, "method": "no/such/method"}',
    b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call"}',
    b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": []}',
    b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": 5}}',
    b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "read_file", "arguments": "x"}}',
    b'{"jsonrpc": "2.0", "id": 9, "result": {}}',
    b'{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 777}}',
    b'{"jsonrpc": "2.0", "method": "notifications/no-such"}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    json.dumps({"jsonrpc": "2.0", "id": 9, "method": "x" * 1_000_000}).encode(),
    b"\x00" * 1000,
    "ü€😀\u2028".encode(),
]


def test_garbage_frames_are_survived_and_stdout_holds_nothing_but_protocol(folder: Path) -> None:
    raw = Raw(folder, "files")
    for number, frame in enumerate(GARBAGE, 100):
        raw.write(frame)
        answer = raw.call("read_file", {"path": "t.csv"}, number)
        assert answer["result"]["structuredContent"]["total_lines"] == 3, frame[:60]
    out, _ = raw.close()
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in out.splitlines())
    assert raw.process.returncode == 0


LARGE = {
    "python": ("run_python", "code"),
    "spreadsheet": ("query_spreadsheet", "sql"),
    "prices": ("crypto_price", "coin"),
    "web": ("web_search", "query"),
    "files": ("read_file", "path"),
    "images": ("create_image", "prompt"),
}


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_over_stdio_answers_its_client_and_refuses_ten_megabytes(
    name: str, folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    tool, argument = LARGE[name]
    others = {"file": "t.csv"} if name == "spreadsheet" else {}
    async with stdio(name, *ARGUMENTS.get(name, []), cwd=folder, log=log) as client:
        assert (await client.list_tools()).tools
        await check(client, name)
        answer = await client.call_tool(tool, {argument: "MARKER" * (10_000_000 // 6), **others})
        assert answer.is_error
        assert "characters" in str(answer.content)
        assert "MARKER" not in str(answer.content)
        await check(client, name)
    assert "MARKER" not in log.read_text()
    assert len(log.read_text()) < 2000


def test_no_argument_and_no_result_reaches_the_log(folder: Path) -> None:
    (folder / "t.csv").write_text("a\nSECRET-CELL\n")
    raw = Raw(folder, "spreadsheet")
    raw.call("query_spreadsheet", {"file": "t.csv", "sql": "SELECT * FROM data"}, 2)
    raw.call("query_spreadsheet", {"file": "t.csv", "sql": "SELECT SECRET-SQL"}, 3)
    raw.call("query_spreadsheet", {"file": "SECRET-FILE.csv", "sql": "x"}, 4)
    raw.call("no_such_tool", {"a": "SECRET-ARGUMENT"}, 5)
    raw.write(b'{"SECRET-GARBAGE": 1}')
    raw.ask("ping", {}, 6)
    _, errors = raw.close()
    assert b"SECRET" not in errors


async def test_fifty_queries_and_fifty_changes_at_once_are_all_answered_rightly(folder: Path) -> None:
    async with stdio("spreadsheet", cwd=folder) as client:
        answers = await asyncio.gather(
            *(
                client.call_tool("query_spreadsheet", {"file": "t.csv", "sql": f"SELECT sum(a) + {n} FROM data"})
                for n in range(50)
            )
        )
        await asyncio.gather(
            *(client.call_tool("append_rows", {"file": "t.csv", "rows": [{"a": n}]}) for n in range(50))
        )
    assert [(answer.structured_content or {})["rows"] for answer in answers] == [[[3 + n]] for n in range(50)]
    rows = (folder / "t.csv").read_text().split()
    assert sorted(rows[3:], key=int) == [str(n) for n in range(50)]


async def test_fifty_edits_at_once_are_all_kept(folder: Path) -> None:
    (folder / "n.txt").write_text("".join(f"line {n} old\n" for n in range(50)))
    async with Client(files.make([folder])) as client:
        answers = await asyncio.gather(
            *(
                client.call_tool(
                    "edit_file", {"path": "n.txt", "old_text": f"line {n} old", "new_text": f"line {n} new"}
                )
                for n in range(50)
            )
        )
    assert not any(answer.is_error for answer in answers)
    assert (folder / "n.txt").read_text() == "".join(f"line {n} new\n" for n in range(50))


async def test_fifty_pieces_of_code_at_once_share_a_session_in_turn() -> None:
    async with Client(python.make(isolation.best() or "none", Limits())) as client:
        await client.call_tool("run_python", {"code": "total = 0"})
        await asyncio.gather(*(client.call_tool("run_python", {"code": "total += 1"}) for _ in range(50)))
        answer = await client.call_tool("run_python", {"code": "total"})
    assert (answer.structured_content or {})["result"] == "50"


def gone(processes: list[psutil.Process], within: float = 8) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@pytest.mark.parametrize("end", ["the client goes", "SIGTERM", "SIGKILL"])
def test_a_server_that_runs_code_ends_with_all_it_started(end: str, folder: Path) -> None:
    raw = Raw(folder, "python")
    code = "import time\nwhile True:\n    time.sleep(0.1)"
    request = {"name": "run_python", "arguments": {"code": code}}
    raw.write(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": request}).encode())
    server = psutil.Process(raw.process.pid)
    deadline = time.monotonic() + 10
    while len(family := server.children(recursive=True)) < 1 and time.monotonic() < deadline:
        os.sched_yield()
    assert family
    if end == "the client goes":
        raw.close()
    else:
        raw.process.send_signal(signal.Signals[end])
        raw.process.communicate(timeout=10)
    assert gone(family)


def test_a_server_ends_within_its_limit_when_the_client_goes_during_a_long_query(folder: Path) -> None:
    raw = Raw(folder, "spreadsheet")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    request = {"name": "query_spreadsheet", "arguments": {"file": "t.csv", "sql": endless}}
    raw.write(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": request}).encode())
    raw.write(json.dumps({"jsonrpc": "2.0", "id": 3, "method": "ping"}).encode())
    raw.answer(3)
    began = time.monotonic()
    raw.close()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "usage:"),
        (["nothing"], 2, "there is no MCP server named nothing; servers: python"),
        (["files", "--root", "/nowhere"], 2, "there is no folder /nowhere"),
        (["files", "--http", "99999"], 2, "99999 is not a port"),
        (["python", "--isolation", "hope"], 2, "invalid choice"),
        (["web", "--search", "brave"], 2, "BRAVE_API_KEY, which is not set"),
    ],
)
def test_a_wrong_start_is_one_sentence_on_stderr(
    arguments: list[str], code: int, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("mcp_servers.server.log_without_content", lambda: None)
    try:
        ended = main(arguments)
    except SystemExit as leaving:  # argparse
        ended = int(str(leaving.code))
    said = capfd.readouterr()
    assert ended == code
    assert message in said.err
    assert said.out == ""


def test_a_line_of_the_log_says_where_and_never_what() -> None:
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(WhereOnly())
    log = logging.getLogger("toolkit-test-log")
    log.propagate = False
    log.addHandler(handler)
    try:
        raise ValueError("SECRET-VALUE")
    except ValueError:
        log.exception("failed on %r", "SECRET-ARGUMENT")
    log.warning("SECRET-MESSAGE")
    log.removeHandler(handler)
    said = handler.stream.getvalue()
    assert "SECRET" not in said
    assert "ValueError" in said
    assert said.count("test_transport.py") == 3
