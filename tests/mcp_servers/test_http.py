"""The servers as clients meet them over streamable HTTP: with garbage, too much, too many, and stopped."""

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest
from mcp.client.client import Client

from mcp_servers.catalogue import SERVERS
from tests.mcp_servers.calls import CALLS, check
from tests.mcp_servers.conftest import Started
from tests.mcp_servers.test_transport import GARBAGE, gone, numbered

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@contextmanager
def serving(started: Started) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port: its process and its URL. It must end when told, and say nothing on stdout."""
    command = [*started.command, "--http", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stderr=pipe, stdout=pipe, text=True, cwd=started.folder) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            assert " at http://127.0.0.1:" in line, line
            yield process, line.split(" at ")[1].strip()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            finally:
                process.kill()
            assert process.stdout is not None
            assert process.stdout.read() == ""


@pytest.mark.parametrize("name", SERVERS)
async def test_garbage_and_ten_megabytes_are_refused_and_fifty_calls_of_two_clients_answered(
    name: str, server: Callable[..., Started]
) -> None:
    started = server(name)
    (started.folder / "n.txt").write_text("".join(f"line {n} old\n" for n in range(50)))
    with serving(started) as (process, url):
        async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
            garbage = [(await client.post(url, content=frame)).status_code for frame in GARBAGE]
            large = await client.post(url, content=b"x" * 10_000_000)
        assert all(400 <= status < 500 for status in garbage), garbage
        assert large.status_code == 413
        async with Client(url) as one, Client(url) as other:
            await asyncio.gather(check(one, CALLS[name]), check(other, CALLS[name]))
            await asyncio.gather(*(check((one, other)[n % 2], numbered(name, n)) for n in range(50)))
        family = psutil.Process(process.pid).children(recursive=True)
        assert family or name != "python"
    assert gone(family)


async def test_other_hosts_and_origins_are_refused(server: Callable[..., Started]) -> None:
    with serving(server("files")) as (_, url):
        async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
            rebound = await client.post(url, json=PING, headers={"Host": "evil.example"})
            foreign = await client.post(url, json=PING, headers={"Origin": "https://evil.example"})
        assert (rebound.status_code, foreign.status_code) == (421, 403)


def test_a_port_that_is_taken_is_told_in_a_sentence(server: Callable[..., Started]) -> None:
    started = server("files")
    with serving(started) as (_, url):
        port = url.split(":")[2].split("/")[0]
        command = [*started.command, "--http", port]
        done = subprocess.run(command, capture_output=True, text=True, cwd=started.folder, timeout=30)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert done.stdout == ""
