"""How long a call of an MCP tool takes: through the gateway, and with a process started for it as stdio needs one."""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from gateway import supervisor
from gateway.keys.store import open_store
from gateway.process import free_port
from gateway.settings import load_settings
from tests.conftest import isolate, only_builtin

ROUNDS = 15
NOTE = {"path": "note.txt"}


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    """Median wall milliseconds of a call, after one that is not counted."""
    took = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        assert not (await call()).is_error
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took[1:])


async def through(url: str, key: str) -> float:
    """By a client that stays connected to the gateway."""
    headers = {"authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(headers=headers, timeout=120, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        return await timed(lambda: client.call_tool("files-read_file", NOTE))


async def started(folder: Path) -> float:
    """By a client that starts the server for the call."""
    command = StdioServerParameters(command=sys.executable, args=["-P", "-m", "mcp_servers", "files"], cwd=folder)

    async def call() -> Any:
        async with Client(stdio_client(command)) as client:
            return await client.call_tool("read_file", NOTE)

    return await timed(call)


def main() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        isolate(Path(home), patch)
        notes = Path(home, "notes")
        notes.mkdir()
        (notes / "note.txt").write_text("a note\n", encoding="utf-8")
        settings = only_builtin() | {"gateway__port": free_port(), "mcp": {"files": ["--root", str(notes)]}}
        with supervisor.attached(None, settings, note=lambda _: None) as found:
            with open_store(load_settings().keys.url) as store:
                secret = store.create("bench").secret
            print(f"through the gateway     {asyncio.run(through(found.url, secret)):6.0f} ms")
        print(f"with a process for it   {asyncio.run(started(notes)):6.0f} ms")
