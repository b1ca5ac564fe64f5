"""An MCP server in a client's config: which file, which block. Pure but for looking which config files exist."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.clients import claude_code, opencode
from gateway.clients.edits import Put, Wish
from toolkit.core.errors import UsageError

GITHUB = "github"
GITHUB_URL = "https://api.githubcopilot.com/mcp/"
GITHUB_TOKEN = "GITHUB_TOKEN"  # noqa: S105  the name of a variable


def config_path(client: str, scope: str, project: Path, environment: Mapping[str, str], home: Path) -> Path:
    """The file that holds the client's MCP servers."""
    if client == opencode.NAME:
        return opencode.settings_path(scope, project, environment, home)
    if client != claude_code.NAME:
        raise UsageError(f"there is no client {client}; there are claude-code and opencode", hint="toolkit mcp --help")
    if scope == "project":
        return project / ".mcp.json"
    own = environment.get("CLAUDE_CONFIG_DIR")
    return (Path(own).expanduser() if own else home) / ".claude.json"


def wishes(client: str, name: str, command: Sequence[str], text: str | None) -> list[Wish]:
    """What makes the server `name`, started by `command`, known to the client; `github` is the hosted one.

    `text` is the config as it is; it does not matter here.
    """
    block = _hosted(client) if name == GITHUB else _local(client, command)
    return [Put(("mcp" if client == opencode.NAME else "mcpServers", name), block)]


def _local(client: str, command: Sequence[str]) -> dict[str, Any]:
    if client == opencode.NAME:
        return {"type": "local", "command": list(command), "enabled": True}
    return {"type": "stdio", "command": command[0], "args": list(command[1:])}


def _hosted(client: str) -> dict[str, Any]:
    """GitHub's own server, with the token as a reference to the environment."""
    if client == opencode.NAME:
        return {
            "type": "remote",
            "url": GITHUB_URL,
            "headers": {"Authorization": f"Bearer {{env:{GITHUB_TOKEN}}}"},
            "enabled": True,
        }
    return {"type": "http", "url": GITHUB_URL, "headers": {"Authorization": f"Bearer ${{{GITHUB_TOKEN}}}"}}
