"""MCP Inspector's command line, the reference for what clients make of a server, drives each of ours."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_servers.catalogue import SERVERS
from tests.mcp_servers.calls import ARGUMENTS, CALLS, OFFLINE

pytestmark = pytest.mark.slow

INSPECTOR = Path(__file__).parents[1] / "gateway" / "clients" / "node_modules" / ".bin" / "mcp-inspector"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not (INSPECTOR.exists() and shutil.which("node")):
        assert not os.environ.get("TOOLKIT_REQUIRE_CLIENTS"), f"{INSPECTOR} is missing: make clients"
        pytest.skip("MCP Inspector is not installed: make clients")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "t.csv").write_text("a\n1\n2\n")
    return inside


def inspect(name: str, folder: Path, *asked: str) -> dict[str, Any]:
    """What the Inspector prints for a server that it starts itself."""
    server = [sys.executable, "-P", "-m", "mcp_servers", name, *ARGUMENTS.get(name, [])]
    how = ["--cli", "--format", "json", "--quiet", "--connect-timeout", "60000", "--cwd", str(folder)]
    done = subprocess.run(
        [str(INSPECTOR), *how, *asked, "--", *server], capture_output=True, text=True, timeout=120, cwd=folder
    )
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout)["result"])


@pytest.mark.parametrize("name", SERVERS)
def test_the_inspector_lists_and_calls_the_tools_of_each_server(name: str, folder: Path) -> None:
    tool, arguments = CALLS[name]
    offered = {found["name"]: found for found in inspect(name, folder, "--method", "tools/list", "--strict")["tools"]}
    assert offered[tool]["inputSchema"]["type"] == "object"
    assert offered[tool]["outputSchema"]
    assert "readOnlyHint" in offered[tool]["annotations"]
    call = ("--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
    answer = inspect(name, folder, *call)
    if name in OFFLINE:
        assert answer["isError"]
        assert OFFLINE[name] in answer["content"][0]["text"]
    else:
        assert not answer.get("isError")
        assert answer["structuredContent"] == json.loads(answer["content"][0]["text"])
