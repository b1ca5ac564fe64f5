"""Servers as a client meets them: processes of their own, driven by the official client."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client


@asynccontextmanager
async def stdio(*arguments: str, cwd: Path | None = None, log: Path | None = None) -> AsyncIterator[Client]:
    """A client of `python -P -m mcp_servers ARGUMENTS`; what it says on stderr goes to `log`."""
    command = StdioServerParameters(command=sys.executable, args=["-P", "-m", "mcp_servers", *arguments], cwd=cwd)
    with (log or Path(os.devnull)).open("w") as errors:
        async with Client(stdio_client(command, errlog=errors)) as client:
            yield client
