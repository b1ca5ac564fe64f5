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
from mcp.client.streamable_http import streamable_http_client

from mcp_servers.__main__ import main
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


async def test_with_a_token_only_those_who_send_it_are_served(
    server: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_TOKEN", "the-token")
    with serving(server("files", "--token", "env:MCP_TOKEN")) as (_, url):
        for given in ("", "the-token", "Bearer", "Bearer the-toke", "Bearer the-token2", "Bearer \xff"):
            async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as stranger:
                answer = await stranger.post(url, json=PING, headers={"Authorization": given.encode("latin-1")})
            assert answer.status_code == 401, given
        async with (
            httpx.AsyncClient(headers={"Authorization": "Bearer the-token"}, trust_env=False) as known,
            Client(streamable_http_client(url, http_client=known)) as client,
        ):
            await check(client, CALLS["files"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--http", "0", "--token", "the-token"], "--token must be a reference like env:MY_KEY"),
        (["--http", "0", "--token", "env:MCP_TOKEN_NOT_SET"], "refers to MCP_TOKEN_NOT_SET, which is not set"),
        (["--token", "env:MCP_TOKEN"], "a token is for HTTP"),
    ],
)
def test_a_token_that_cannot_be_kept_is_refused(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_servers.server.log_without_content", lambda: None)
    assert main(["prices", *options]) == 2
    assert says in capsys.readouterr().err
