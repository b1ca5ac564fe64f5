"""The MCP servers that the gateway offers at /mcp, as LiteLLM starts them: one process for each call.

Knows how a server is started and what of the environment it is given; nothing of what it does.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.process import python_module
from gateway.settings import McpName
from toolkit.core.errors import ToolkitError

# What servers read from the environment, beside what their options name.
_READ = (
    "TOOLKIT_HOME",
    "TAVILY_API_KEY",
    "BRAVE_API_KEY",
    "SERPAPI_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
START_SECONDS = 60.0
ENABLED = "LITELLM_ENABLE_MCP_STDIO"  # in the proxy's environment if there are servers

Servers = Mapping[McpName, Sequence[str]]


def entries(servers: Servers) -> dict[str, Any]:
    """LiteLLM's `mcp_servers`: each may be used by every virtual key. Secrets stay references."""
    return {name: _entry(name, options) for name, options in servers.items()}


def environment(servers: Servers) -> dict[str, str]:
    """What lets LiteLLM start programs of ours and no others; nothing where there are no servers."""
    if not servers:
        return {}
    program = Path(_command("python", ())[0]).name
    return {ENABLED: "true", "LITELLM_MCP_STDIO_EXTRA_COMMANDS": program}


def check(servers: Servers) -> None:
    """Start each server once. Raises ToolkitError with what one says that cannot run, before a client meets it."""
    for name, options in servers.items():
        try:
            done = subprocess.run(
                _command(name, options),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=START_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise ToolkitError(f"the MCP server {name} does not start", hint=f"toolkit mcp run {name}") from None
        if done.returncode != 0:
            said = [line.removeprefix("error: ") for line in done.stderr.splitlines() if "error: " in line]
            raise ToolkitError(
                f"the MCP server {name} does not start: {said[-1] if said else f'exit code {done.returncode}'}",
                hint=f"toolkit mcp run {name} --help  # options stand under mcp: in gateway.yaml",
            )


def _entry(name: str, options: Sequence[str]) -> dict[str, Any]:
    program, *arguments = _command(name, options)
    named = [found[1] for option in options if (found := re.search(r"\benv:(\w+)$", option))]
    given = {variable: f"os.environ/{variable}" for variable in (*_READ, *named) if variable in os.environ}
    return {
        "transport": "stdio",
        "command": program,
        "args": arguments,
        "env": given,
        "allow_all_keys": True,
    }


def _command(name: str, options: Sequence[str]) -> list[str]:
    return python_module("mcp_servers", name, *options)
