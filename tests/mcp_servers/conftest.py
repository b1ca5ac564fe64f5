"""Servers as a client meets them: processes of their own, with a folder of their own and nothing of the outside."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.mcp_servers.calls import options, services
from tests.mcp_servers.stand_ins import StandIn, serving


class Started(NamedTuple):
    """How a server is started, and in which folder."""

    command: list[str]
    folder: Path


@pytest.fixture
def outside() -> Iterator[StandIn]:
    """What `prices`, `web` and `images` ask instead of the services of others."""
    with serving(services) as running:
        yield running


@pytest.fixture
def server(tmp_path: Path, outside: StandIn) -> Callable[..., Started]:
    """How the server of a name is started here, with further options."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "t.csv").write_text("a\n1\n2\n")

    def start(name: str, *more: str) -> Started:
        given = options(outside.url).get(name, [])
        return Started([sys.executable, "-P", "-m", "mcp_servers", name, *given, *more], inside)

    return start


@asynccontextmanager
async def stdio(started: Started, log: Path | None = None) -> AsyncIterator[Client]:
    """The official client of a server that it starts; what the server says on stderr goes to `log`."""
    program, *arguments = started.command
    command = StdioServerParameters(command=program, args=arguments, cwd=started.folder)
    with (log or Path(os.devnull)).open("w") as errors:
        async with Client(stdio_client(command, errlog=errors)) as client:
            yield client
