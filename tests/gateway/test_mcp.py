"""The MCP servers behind the gateway: for the virtual keys that may use them, and nothing else of LiteLLM's opened."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from gateway import supervisor
from gateway.keys.spend import By, report
from gateway.keys.store import open_store
from gateway.settings import load_settings
from tests.conftest import LiveGateway

pytestmark = pytest.mark.slow

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
ACCEPT = {"accept": "application/json, text/event-stream"}


@asynccontextmanager
async def tools(gateway: LiveGateway, key: str) -> AsyncIterator[Client]:
    """The official client at the gateway's endpoint, with a virtual key."""
    headers = {"authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{gateway.url}/mcp", http_client=http)) as client,
    ):
        yield client


async def test_a_virtual_key_lists_and_calls_the_named_servers_and_what_they_refuse_is_told(
    gateway: LiveGateway,
) -> None:
    (gateway.notes / "note.txt").write_text("a note\n", encoding="utf-8")
    async with tools(gateway, gateway.key("mcp-user")) as client:
        offered = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {name.partition("-")[0] for name in offered} == {"python", "files"}
        read = offered["files-read_file"]
        assert read.output_schema
        assert read.annotations is not None
        assert read.annotations.read_only_hint
        note = await client.call_tool("files-read_file", {"path": "note.txt"})
        outside = await client.call_tool("files-read_file", {"path": "../keys.db"})
        six = await client.call_tool("python-run_python", {"code": "6 * 7"})
    assert (note.structured_content or {})["text"] == "a note"
    assert (six.structured_content or {})["result"] == "42"
    assert outside.is_error
    assert ".." in str(outside.content)


async def test_a_call_starts_no_server_and_meets_nothing_that_another_call_left(gateway: LiveGateway) -> None:
    before = served(gateway, "python").pid
    async with tools(gateway, gateway.key("mcp-first")) as client:
        await client.call_tool("python-run_python", {"code": "left = 1; open('/scratch/left', 'w').close()"})
    async with tools(gateway, gateway.key("mcp-second")) as client:
        name = await client.call_tool("python-run_python", {"code": "left"})
        file = await client.call_tool("python-run_python", {"code": "open('/scratch/left')"})
    assert "NameError" in (name.structured_content or {})["error"]
    assert "FileNotFoundError" in (file.structured_content or {})["error"]
    assert served(gateway, "python").pid == before


async def test_a_key_lists_and_calls_only_the_servers_that_it_names(gateway: LiveGateway) -> None:
    (gateway.notes / "note.txt").write_text("a note\n", encoding="utf-8")
    async with tools(gateway, gateway.key("mcp-files", models=("toolkit-tiny", "mcp/files"))) as client:
        assert {tool.name.partition("-")[0] for tool in (await client.list_tools()).tools} == {"files"}
        assert not (await client.call_tool("files-read_file", {"path": "note.txt"})).is_error
        assert await refusal(client, "python-run_python", {"code": "1"})


async def test_calls_count_among_the_requests_of_a_minute_and_stand_in_the_books(gateway: LiveGateway) -> None:
    (gateway.notes / "note.txt").write_text("a note\n", encoding="utf-8")
    async with tools(gateway, gateway.key("mcp-rate", rpm=2)) as client:
        for _ in range(2):
            assert not (await client.call_tool("files-read_file", {"path": "note.txt"})).is_error
        assert "2 requests a minute" in await refusal(client, "files-read_file", {"path": "note.txt"})
    with gateway.environment(), open_store(load_settings().keys.url) as store:
        [line] = [line for line in report(store, by=By.KEY) if line.name == "mcp-rate"]
        models = {line.name for line in report(store, by=By.MODEL)}
    assert (line.requests, line.cost_nano, line.failed, line.lost) == (2, 0, 0, 0)
    assert "mcp/files" in models


def test_a_server_serves_the_proxy_alone_and_its_token_stands_nowhere(gateway: LiveGateway) -> None:
    server = served(gateway, "files")
    token = server.environ()["TOOLKIT_MCP_TOKEN"]
    port = server.cmdline()[server.cmdline().index("--http") + 1]
    for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Bearer {gateway.key('mcp-door')}"}):
        answer = httpx.post(f"http://127.0.0.1:{port}/mcp", json=HELLO, headers=ACCEPT | given, trust_env=False)
        assert answer.status_code == 401, answer.text
    allowed = ACCEPT | {"authorization": f"Bearer {token}"}
    assert httpx.post(f"http://127.0.0.1:{port}/mcp", json=HELLO, headers=allowed, trust_env=False).status_code == 200
    assert not any(token in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    written = [path for path in gateway.home.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert written == []


async def test_a_server_that_is_killed_is_started_again_and_answers(gateway: LiveGateway) -> None:
    (gateway.notes / "note.txt").write_text("a note\n", encoding="utf-8")
    before = served(gateway, "files")
    async with tools(gateway, gateway.key("mcp-killed")) as client:
        before.kill()
        deadline = time.monotonic() + 60
        while (await client.call_tool("files-read_file", {"path": "note.txt"})).is_error:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
    assert served(gateway, "files").pid != before.pid


def served(gateway: LiveGateway, name: str) -> psutil.Process:
    """The process of a server that runs now."""
    with gateway.environment():
        found = supervisor.running()
    assert found is not None
    [server] = psutil.Process(found.pids[f"mcp-{name}"]).children()
    return server


async def refusal(client: Client, tool: str, arguments: dict[str, Any]) -> str:
    """What the client is told instead of an answer."""
    try:
        answer = await client.call_tool(tool, arguments)
    except MCPError as error:
        return str(error)
    assert answer.is_error
    return str(answer.content)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("none", "This gateway knows no such key"),
        ("unknown", "This gateway knows no such key"),
        ("blocked", "is blocked. `toolkit keys unblock mcp-blocked`"),
        ("expired", "The key mcp-expired expired"),
        ("elsewhere", "The key mcp-elsewhere may use no MCP server: its models name none, as mcp/files would."),
    ],
)
def test_a_key_that_does_not_work_gets_nothing(gateway: LiveGateway, state: str, says: str) -> None:
    secret = {"none": "", "unknown": "sk-toolkit-unknown"}.get(state)
    if secret is None:
        limits: dict[str, Any] = {"expired": {"expires": 1}, "elsewhere": {"models": ("toolkit-tiny",)}}
        secret = gateway.key(f"mcp-{state}", **limits.get(state, {}))
    if state == "blocked":
        with gateway.environment():
            open_store(load_settings().keys.url).block("mcp-blocked")
    headers = ACCEPT | ({"authorization": f"Bearer {secret}"} if secret else {})
    for body in (HELLO, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}):
        answer = httpx.post(f"{gateway.url}/mcp", json=body, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 403, answer.text
        assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/mcp/proxy"),
        ("POST", "/files/mcp"),
        ("POST", "/mcp/files"),
        ("GET", "/v1/mcp/server"),
        ("POST", "/v1/mcp/server"),
        ("GET", "/v1/mcp/tools"),
        ("GET", "/mcp-rest/tools/list"),
        ("POST", "/mcp-rest/tools/call"),
        ("POST", "/mcp-rest/test/connection"),
        ("GET", "/sse"),
    ],
)
def test_nothing_else_of_the_proxy_is_opened_by_it(gateway: LiveGateway, method: str, path: str) -> None:
    with gateway.client(gateway.key(f"mcp{method}{path}".replace("/", "-"))) as client:
        answer = client.request(method, path, json=HELLO if method == "POST" else None, headers=ACCEPT)
    assert answer.status_code in (401, 403, 404, 405), (answer.status_code, answer.text[:300])


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_a_request_to_a_model_cannot_have_the_gateway_call_the_tools(gateway: LiveGateway, path: str) -> None:
    tool: dict[str, Any] = {"type": "mcp", "server_url": "litellm_proxy/mcp", "require_approval": "never"}
    body: dict[str, Any] = {"model": "toolkit-tiny", "tools": [tool], "input": "Run python code 6 * 7"}
    if path.endswith("completions"):
        body["messages"] = [{"role": "user", "content": body.pop("input")}]
    with gateway.client(gateway.key(f"mcp{path}".replace("/", "-"), budget_tokens=100_000)) as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert "The gateway does not call MCP tools for a model" in answer.json()["error"]["message"]
