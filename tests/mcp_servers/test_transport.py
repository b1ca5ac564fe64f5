"""The servers as clients meet them over stdio: with garbage, too much, too many, and killed."""

import asyncio
import io
import json
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcp_servers.__main__ import main
from mcp_servers.catalogue import SERVERS
from mcp_servers.server import WhereOnly
from tests.mcp_servers.calls import CALLS, Call, check, compact, options, services
from tests.mcp_servers.conftest import Started, stdio
from tests.mcp_servers.stand_ins import Answer, Asked, StandIn


class Raw:
    """A server driven line by line, as no official client would."""

    def __init__(self, started: Started) -> None:
        self.process = subprocess.Popen(
            started.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=started.folder,
        )
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        self.ask("initialize", hello)
        self.write(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode())

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, method: str, params: dict[str, Any], number: int) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())

    def ask(self, method: str, params: dict[str, Any], number: int = 1) -> dict[str, Any]:
        self.send(method, params, number)
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


@pytest.mark.parametrize("name", SERVERS)
def test_garbage_frames_are_survived_and_stdout_holds_nothing_but_protocol(
    name: str, server: Callable[..., Started]
) -> None:
    raw = Raw(server(name))
    for number, frame in enumerate(GARBAGE, 100):
        raw.write(frame)
        assert raw.ask("ping", {}, number)["result"] == {}, frame[:60]
    tool, arguments, expected = CALLS[name]
    assert expected in compact(raw.call(tool, arguments, 99)["result"]["content"][-1]["text"])
    out, _ = raw.close()
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in out.splitlines())
    assert raw.process.returncode == 0


# A value for each argument that a tool must have, so that only the large one can be at fault.
SMALL: dict[str, Any] = {
    "code": "1", "file": "t.csv", "sql": "SELECT 1", "rows": [{"a": 1}], "where": {"a": 1}, "values": {"a": 2},
    "coin": "btc", "amount": 1, "source": "btc", "target": "usd", "query": "x", "url": "https://example.org",
    "path": "t.csv", "text": "x", "old_text": "1", "new_text": "2", "prompt": "x",
}  # fmt: skip


@pytest.mark.parametrize("name", SERVERS)
async def test_the_official_client_is_answered_and_ten_megabytes_in_any_text_are_refused(
    name: str, server: Callable[..., Started], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    large = "MARKER" * (10_000_000 // 6)
    async with stdio(server(name), log) as client:
        tools = (await client.list_tools()).tools
        await check(client, CALLS[name])
        for tool in tools:
            needed = {argument: SMALL[argument] for argument in tool.input_schema.get("required", [])}
            for argument, schema in tool.input_schema["properties"].items():
                if schema.get("type") == "string":
                    began = time.monotonic()
                    answer = await client.call_tool(tool.name, needed | {argument: large})
                    assert answer.is_error, (tool.name, argument)
                    assert "characters" in str(answer.content) or "should match pattern" in str(answer.content)
                    assert "MARKER" not in str(answer.content)
                    assert time.monotonic() - began < 5, (tool.name, argument)
        await check(client, CALLS[name])
    assert "MARKER" not in log.read_text()
    assert len(log.read_text()) < 2000


def test_no_argument_and_no_result_reaches_the_log(server: Callable[..., Started]) -> None:
    started = server("spreadsheet")
    (started.folder / "t.csv").write_text("a\nSECRET-CELL\n")
    raw = Raw(started)
    raw.call("query_spreadsheet", {"file": "t.csv", "sql": "SELECT * FROM data"}, 2)
    raw.call("query_spreadsheet", {"file": "t.csv", "sql": "SELECT SECRET-SQL"}, 3)
    raw.call("query_spreadsheet", {"file": "SECRET-FILE.csv", "sql": "x"}, 4)
    raw.call("no_such_tool", {"a": "SECRET-ARGUMENT"}, 5)
    raw.write(b'{"SECRET-GARBAGE": 1}')
    raw.ask("ping", {}, 6)
    _, errors = raw.close()
    assert b"SECRET" not in errors


@pytest.mark.parametrize("name", SERVERS)
async def test_fifty_calls_at_once_are_all_answered_rightly(name: str, server: Callable[..., Started]) -> None:
    started = server(name)
    (started.folder / "n.txt").write_text("".join(f"line {n} old\n" for n in range(50)))
    async with stdio(started) as client:
        await asyncio.gather(*(check(client, numbered(name, n)) for n in range(50)))
    if name == "spreadsheet":
        rows = (started.folder / "t.csv").read_text().split()
        assert sorted(rows[3:], key=int) == [str(n) for n in range(50)]
    if name == "files":
        assert (started.folder / "n.txt").read_text() == "".join(f"line {n} new\n" for n in range(50))
    if name == "images":
        assert len(list(started.folder.glob("*.png"))) == 50


def test_fifty_pieces_of_code_at_once_share_a_session_in_turn(server: Callable[..., Started]) -> None:
    raw = Raw(server("python"))
    raw.call("run_python", {"code": "total = 0"}, 2)
    for number in range(100, 150):
        raw.send("tools/call", {"name": "run_python", "arguments": {"code": "total += 1"}}, number)
    assert raw.call("run_python", {"code": "total"}, 3)["result"]["structuredContent"]["result"] == "50"
    raw.close()


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("end", ["the client goes", "SIGTERM", "SIGKILL"])
def test_a_server_in_the_middle_of_a_call_ends_with_all_it_started(
    end: str, name: str, server: Callable[..., Started], outside: StandIn
) -> None:
    started = server(name)
    (started.folder / "long.txt").write_text("a" * 60 + "b\n")
    with never_answering(outside):
        raw = Raw(started)
        tool, arguments = SLOW[name]
        raw.send("tools/call", {"name": tool, "arguments": arguments}, 2)
        assert raw.ask("ping", {}, 3)["result"] == {}
        family = psutil.Process(raw.process.pid)
        wait_until(lambda: bool(outside.asked) if name in options("") else bool(family.children()) or name != "python")
        processes = [family, *family.children(recursive=True)]
        began = time.monotonic()
        if end == "the client goes":
            raw.close()
            assert raw.process.returncode == 0
        else:
            raw.process.send_signal(signal.Signals[end])
            raw.process.communicate(timeout=10)
        assert time.monotonic() - began < 5
    assert gone(processes)
    assert not list(started.folder.rglob("*toolkit-partial"))


SLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "python": ("run_python", {"code": "import time\nwhile True:\n    time.sleep(0.1)"}),
    "spreadsheet": (
        "query_spreadsheet",
        {
            "file": "t.csv",
            "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        },
    ),
    "files": ("search_files", {"text": "(a|aa)+$", "regex": True}),
    **{name: (CALLS[name].tool, CALLS[name].arguments) for name in ("prices", "web", "images")},
}


def numbered(name: str, n: int) -> Call:
    """A call that differs from its neighbours in what it does and in what must come back."""
    calls = {
        "python": Call("run_python", {"code": f"{n} * {n}", "session": f"s{n % 4}"}, f'"{n * n}"'),
        "spreadsheet": Call("append_rows", {"file": "t.csv", "rows": [{"a": n}]}, '"rows":1'),
        "prices": Call("crypto_convert", {"amount": n, "source": "btc", "target": "usd"}, f'"result":{n * 60_000}.0'),
        "web": Call("web_search", {"query": f"q{n}"}, f'"https://example.org/q{n}"'),
        "files": Call(
            "edit_file", {"path": "n.txt", "old_text": f"line {n} old", "new_text": f"line {n} new"}, f"+line{n}new"
        ),
        "images": Call("create_image", {"prompt": f"picture {n}", "seed": n}, f'"seed":{n},'),
    }
    return calls[name]


@contextmanager
def never_answering(outside: StandIn) -> Iterator[None]:
    """What the servers ask outside keeps them waiting."""
    over = threading.Event()

    def wait(asked: Asked) -> Answer:
        if asked.path in ("/simple/price", "/search", "/sdapi/v1/txt2img"):
            over.wait(60)
        return services(asked)

    outside.answer = wait
    try:
        yield
    finally:
        over.set()


def wait_until(holds: Callable[[], bool], within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(processes: list[psutil.Process], within: float = 8) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "usage:"),
        (["nothing"], 2, "there is no MCP server named nothing; servers: python"),
        (["files", "--root", "/nowhere"], 2, "there is no folder /nowhere"),
        (["files", "--http", "99999"], 2, "99999 is not a port"),
        (["python", "--isolation", "hope"], 2, "invalid choice"),
        (["files", "--frob"], 2, "unrecognized arguments: --frob\nhint: toolkit mcp run files --help"),
        (["web", "--search", "brave"], 2, "BRAVE_API_KEY, which is not set"),
        (["prices", "--per-minute", "0"], 2, "--per-minute must be at least 1, not 0"),
        (["prices", "--coinbase", "nowhere"], 2, "nowhere is not a URL"),
        (["images", "--seconds", "-1"], 2, "--seconds must be in (0, 3600], not -1"),
    ],
)
def test_a_wrong_start_is_one_sentence_on_stderr(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mcp_servers.server.log_without_content", lambda: None)
    ended = main(arguments)
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
