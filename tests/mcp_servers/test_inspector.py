"""MCP Inspector's command line, the reference for what clients make of a server, drives each of ours."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_servers.catalogue import SERVERS
from tests.mcp_servers.calls import CALLS, compact
from tests.mcp_servers.conftest import Started

pytestmark = pytest.mark.slow

INSPECTOR = Path(__file__).parents[1] / "gateway" / "clients" / "node_modules" / ".bin" / "mcp-inspector"


@pytest.fixture(autouse=True)
def installed() -> None:
    if not (INSPECTOR.exists() and shutil.which("node")):
        assert not os.environ.get("TOOLKIT_REQUIRE_CLIENTS"), f"{INSPECTOR} is missing: make clients"
        pytest.skip("MCP Inspector is not installed: make clients")


def inspect(started: Started, *asked: str) -> dict[str, Any]:
    """What the Inspector prints for a server that it starts itself."""
    how = ["--cli", "--format", "json", "--quiet", "--connect-timeout", "60000", "--cwd", str(started.folder)]
    command = [str(INSPECTOR), *how, *asked, "--", *started.command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=started.folder)
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout)["result"])


@pytest.mark.parametrize("name", SERVERS)
def test_the_inspector_lists_and_calls_the_tools_of_each_server(name: str, server: Callable[..., Started]) -> None:
    tool, arguments, expected = CALLS[name]
    listed = inspect(server(name), "--method", "tools/list", "--strict")["tools"]
    offered = {found["name"]: found for found in listed}
    assert offered[tool]["inputSchema"]["type"] == "object"
    assert offered[tool]["outputSchema"]
    assert "readOnlyHint" in offered[tool]["annotations"]
    call = ("--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
    answer = inspect(server(name), *call)
    text = answer["content"][-1]["text"]
    assert not answer.get("isError"), text
    assert answer["structuredContent"] == json.loads(text)
    assert expected in compact(text)
