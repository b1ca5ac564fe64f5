"""What offers tools to a model and calls them: MCP servers, through the MCP client. Knows nothing of models.

Our own servers get the whole environment, for they read their keys from it; others get only what is harmless.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from toolkit.core.errors import ToolkitError, UsageError

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult

BUNDLED = ("files", "images", "prices", "python", "spreadsheet", "web")
LONGEST_LIST = 50  # pages of tools; a server that has more is broken


@dataclass(frozen=True)
class Tool:
    """A tool as a model sees it. `parameters` is a JSON schema; `server` is empty for tools that no server offers."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    server: str = ""

    def openai(self) -> dict[str, Any]:
        """The tool in the OpenAI chat format."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolResult:
    """What a call gave, as text. An error is a result too: the model can act on it."""

    text: str
    is_error: bool = False


class ToolHost(Protocol):
    """Offers tools and calls them. `call` does not raise for what the model can mend: it returns an error result.
    Calls may run at the same time."""

    def tools(self) -> list[Tool]: ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult: ...


@dataclass(frozen=True)
class McpServer:
    """An MCP server to start by `command` (stdio), or to reach at `url` (streamable HTTP)."""

    name: str
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None


def bundled_server(name: str) -> McpServer:
    """One of the toolkit's own servers, by name."""
    if name not in BUNDLED:
        raise UsageError(f"there is no MCP server named {name}; there are {', '.join(BUNDLED)}", "toolkit mcp list")
    return McpServer(name, (sys.executable, "-P", "-m", "mcp_servers", name), dict(os.environ))


class McpToolHost:
    """The tools of several MCP servers. Starts them on entering, ends them on leaving (in the same task).

    Raises UsageError where two have one name.

    Two servers that offer a tool of one name: both get it as `server__tool`. `timeout` (seconds) is for one call.
    """

    def __init__(self, servers: Sequence[McpServer | str], *, timeout: float = 120.0) -> None:
        self._servers = [bundled_server(server) if isinstance(server, str) else server for server in servers]
        names = [server.name for server in self._servers]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two MCP servers are named {name}", hint="give each a name of its own")
        self._timeout = timeout
        self._stack = AsyncExitStack()
        self._tools: list[Tool] = []
        self._routes: dict[str, tuple[Client, str]] = {}

    async def __aenter__(self) -> Self:
        offered: list[tuple[Tool, Client]] = []
        try:
            for server in self._servers:
                client = await self._connect(server)
                offered += [(tool, client) for tool in await _list_tools(client, server.name)]
        except BaseException:
            await self._stack.aclose()
            raise
        names = [tool.name for tool, _ in offered]
        for tool, client in offered:
            shared = names.count(tool.name) > 1
            public = replace(tool, name=f"{tool.server}__{tool.name}") if shared else tool
            self._tools.append(public)
            self._routes[public.name] = (client, tool.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def tools(self) -> list[Tool]:
        """All tools, in the order of the servers and as each server lists them."""
        return list(self._tools)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call a tool. What goes wrong at the server, its death included, is an error result."""
        from mcp import MCPError

        if name not in self._routes:
            return ToolResult(f"there is no tool named {name}; tools: {', '.join(self._routes)}", is_error=True)
        client, original = self._routes[name]
        try:
            result = await client.call_tool(original, dict(arguments), read_timeout_seconds=self._timeout)
        except MCPError as error:
            return ToolResult(f"{name} failed: {error}", is_error=True)
        return ToolResult(_text(result), result.is_error)

    async def _connect(self, server: McpServer) -> "Client":
        """Raises ToolkitError with the end of what the server wrote on stderr."""
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client

        if server.url is not None:
            try:
                return await self._stack.enter_async_context(Client(server.url))
            except Exception as error:
                raise ToolkitError(
                    f"the MCP server at {server.url} cannot be reached: {_innermost(error)}",
                    hint=f"check --server {server.name}={server.url}",
                ) from error
        if shutil.which(server.command[0]) is None:
            raise ToolkitError(
                f"the MCP server {server.name} did not start: there is no program {server.command[0]}",
                hint=f"which {server.command[0]}",
            )
        complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._stack.callback(complaints.close)
        parameters = StdioServerParameters(
            command=server.command[0], args=list(server.command[1:]), env=dict(server.env)
        )
        try:
            return await self._stack.enter_async_context(Client(stdio_client(parameters, errlog=complaints)))
        except Exception as error:
            complaints.seek(0)
            last = [line for line in complaints.read().splitlines() if line.strip()][-1:] or [_innermost(error)]
            raise ToolkitError(
                f"the MCP server {server.name} did not start: {last[0]}", hint=" ".join(server.command)
            ) from error


async def _list_tools(client: "Client", server: str) -> list[Tool]:
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(LONGEST_LIST):
        page = await client.list_tools(cursor=cursor)
        found += [Tool(tool.name, tool.description or "", tool.input_schema, server) for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise ToolkitError(f"the MCP server {server} lists tools without an end")


def _text(result: "CallToolResult") -> str:
    """A result's content as text; what is no text is named by kind and size."""
    parts = []
    for block in result.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "image" or block.type == "audio":
            size = len(block.data) * 3 // 4 - block.data.count("=")
            parts.append(f"[{block.type}, {block.mime_type}, {size} bytes]")
        else:
            parts.append(block.model_dump_json(by_alias=True, exclude_none=True))
    if not parts and result.structured_content is not None:
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(parts)


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
