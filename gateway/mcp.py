"""The MCP servers that the gateway offers at /mcp: each runs once, on loopback, and LiteLLM asks it over HTTP.

Any account of this machine reaches such a port, so each server serves only who sends its token, which is new at every
start of the gateway. Knows how a server is started; nothing of what it does.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.process import free_port, python_module
from gateway.settings import McpName

NAMES = "TOOLKIT_MCP"  # in the proxy's environment: the names of the servers, by comma
_TOKEN = "TOOLKIT_MCP_TOKEN"  # noqa: S105  in a server's environment; in the proxy's with the server's name after it
# LiteLLM opens a session for each call: what a server would keep for the next call of one key, another key would meet.
_ALWAYS = {"python": ("--forget",)}


@dataclass(frozen=True)
class Server:
    """One server to start: its name, its options of `toolkit mcp run NAME`, where it listens, who may ask it."""

    name: str
    options: tuple[str, ...]
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def command(self) -> list[str]:
        """It ends with the gateway, however that ends."""
        options = (*self.options, *_ALWAYS.get(self.name, ()), "--http", str(self.port), "--token", f"env:{_TOKEN}")
        return python_module("gateway.lifeline", "--", *python_module("mcp_servers", self.name, *options))

    @property
    def environment(self) -> dict[str, str]:
        """Beside the gateway's own. A token stands on no command line, where every account could read it."""
        return {_TOKEN: self.token}


def planned(servers: Mapping[McpName, Sequence[str]]) -> list[Server]:
    """A free port and a new token for each."""
    return [Server(name, tuple(options), free_port(), secrets.token_urlsafe(32)) for name, options in servers.items()]


def entries(servers: Sequence[Server]) -> dict[str, Any]:
    """LiteLLM's `mcp_servers`. A server is found by its name, and secrets stay references."""
    return {
        server.name: {
            "server_id": server.name,
            "transport": "http",
            "url": f"{server.url}/mcp",
            "auth_type": "bearer_token",
            "auth_value": f"os.environ/{_token_of(server)}",
        }
        for server in servers
    }


def environment(servers: Sequence[Server]) -> dict[str, str]:
    """What the proxy must know of them; nothing where there are none."""
    if not servers:
        return {}
    return {NAMES: ",".join(server.name for server in servers)} | {_token_of(each): each.token for each in servers}


def _token_of(server: Server) -> str:
    return f"{_TOKEN}_{server.name.upper()}"
