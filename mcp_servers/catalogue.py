"""The servers by name. A server's module is imported only when it is run or listed in full."""

import argparse
from importlib import import_module
from typing import Any, NoReturn, Protocol, cast

from toolkit.core.errors import UsageError

# name -> what it is for; the module is mcp_servers.<name>.
SERVERS = {
    "python": "Run Python code in isolation and keep a session",
    "spreadsheet": "List, read, change and query CSV, XLSX and SQLite files under allowed folders",
    "prices": "Cryptocurrency prices, history and conversion",
    "web": "Search the web, read a page as Markdown",
    "files": "List, read, search and edit text files under allowed folders",
    "images": "Text to image by a Stable Diffusion web UI",
}


class ServerModule(Protocol):
    """What each server's module offers."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare the server's own flags."""

    def build(self, options: argparse.Namespace) -> Any:
        """The server (a `mcp_servers.server.ToolServer`) for parsed flags. Raises ToolkitError for what cannot be."""


def load(name: str) -> ServerModule:
    """The module of the server `name`. Raises UsageError for an unknown name."""
    if name not in SERVERS:
        raise UsageError(f"there is no MCP server named {name}; servers: {', '.join(SERVERS)}", hint="toolkit mcp list")
    return cast(ServerModule, import_module(f"mcp_servers.{name}"))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")


def parser(name: str) -> argparse.ArgumentParser:
    """The parser of everything that stands after the server's name. Raises UsageError, as what it parses does."""
    module = load(name)
    command = _Parser(prog=f"toolkit mcp run {name}", description=f"{SERVERS[name]}, over MCP.")
    command.add_argument(
        "--http", type=int, metavar="PORT", help="serve streamable HTTP on 127.0.0.1:PORT (0: a free one), not stdio"
    )
    command.add_argument(
        "--token", metavar="env:NAME", help="over HTTP: serve only those who send this as a bearer token"
    )
    module.add_options(command)
    return command
