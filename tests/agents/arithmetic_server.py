"""A small real MCP server over stdio for the tests of the tool host: sums, slow sums, faults, and death."""

import os
import sys

import anyio
from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("arithmetic")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@server.tool()
def divide(a: int, b: int) -> float:
    """Divide a by b."""
    if b == 0:
        raise ToolError("b must not be 0")
    return a / b


@server.tool()
async def wait_for_peer(name: str, peer: str, folder: str) -> str:
    """Leave a mark and wait until the peer has left its own: only calls made at the same time end."""
    marks = anyio.Path(folder)
    await (marks / name).touch()
    with anyio.fail_after(10):
        while not await (marks / peer).exists():
            await anyio.sleep(0.01)
    return f"{name} met {peer}"


@server.tool()
async def never_ends() -> str:
    """Never end."""
    await anyio.sleep_forever()
    return ""


@server.tool()
def picture() -> Image:
    """A picture of one pixel."""
    return Image(data=b"\x89PNG", format="png")


@server.tool()
def environment(name: str) -> str:
    """An environment variable of the server."""
    return os.environ.get(name, "unset")


@server.tool()
def die() -> str:
    """End the server at once."""
    os._exit(3)


if __name__ == "__main__":
    if sys.argv[1:] == ["--broken"]:
        sys.exit("the abacus is missing")
    server.run("stdio")
