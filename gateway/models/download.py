"""Fetch one file over HTTP into a part file: resumed where it stopped, verified, never left half under a final name.

Knows nothing of hubs or models. What was written stays in the part file on every failure, so the next call goes on
from there; only a digest that does not match throws it away.
"""

import email.utils
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpcore
import httpx

from toolkit.core.errors import ToolkitError
from toolkit.core.units import format_bytes, format_duration

ATTEMPTS = 10  # in a row without a single byte
LONGEST_WAIT = 900.0  # a server that asks for more is told on, and the part kept
RETRIED = {408, 425, 429, 500, 502, 503, 504}
PIECE = 2**20
READ = 2**19  # bytes taken from the line at once: httpcore's 64 KiB costs more in Python than the bytes themselves


@dataclass(frozen=True)
class Wanted:
    """What to fetch. `size` in bytes; `sha256` in hexadecimal, or None if the server does not tell it."""

    url: str
    name: str
    size: int
    sha256: str | None = None


class Watcher(Protocol):
    """Told about a download as it goes: bytes that came (negative: thrown away), and what a person should know."""

    def advance(self, done: float = 1) -> None: ...

    def note(self, message: str) -> None: ...


def client(timeout: float = 30.0) -> httpx.Client:
    """A client that follows redirects, never from https to plain http. Proxies come from the environment."""
    httpcore.HTTP11Connection.READ_NUM_BYTES = READ
    return httpx.Client(
        follow_redirects=True,
        max_redirects=8,
        timeout=httpx.Timeout(timeout, connect=15.0),
        event_hooks={"response": [_refuse_downgrade]},
    )


def download(
    wanted: Wanted,
    part: Path,
    *,
    client: httpx.Client,
    headers: Mapping[str, str],
    watcher: Watcher,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """Fill `part` until it is the whole file, and return its SHA-256.

    Goes on from what `part` holds. Waits out dropped lines, restarts (`ATTEMPTS`, doubling up to 30 s) and rate
    limits (as long as the server says, up to `LONGEST_WAIT`). Raises ToolkitError, with the part kept, when that
    does not help or the disk is full; with the part removed when the digest is wrong.
    """
    state = _Part(part, wanted, watcher)
    failures = 0
    while not state.whole:
        before = state.have
        try:
            pause = _once(state, client, headers)
        except (httpx.TransportError, httpx.StreamError) as error:
            pause, reason = None, type(error).__name__
        else:
            reason = "it answered with an error"
        if state.whole:
            break
        failures = 0 if state.have > before else failures + 1
        if failures >= ATTEMPTS:
            raise ToolkitError(
                f"{urlsplit(wanted.url).hostname} did not send the rest of {wanted.name} after {ATTEMPTS} attempts: "
                f"{reason}; {format_bytes(state.have)} of {format_bytes(wanted.size)} are kept",
                hint="run the same command again: it goes on from there",
            )
        if pause is None:
            pause = min(30.0, 0.5 * 2**failures)
        else:
            watcher.note(f"the server asks to wait {format_duration(pause)}")
        wait(pause)
    return state.verified()


class _Part:
    """The part file, how much of it there is, and the digest of that."""

    def __init__(self, path: Path, wanted: Wanted, watcher: Watcher) -> None:
        self.path, self.wanted, self.watcher = path, wanted, watcher
        self.have = 0
        self.digest = hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if path.stat().st_size > wanted.size:
            path.write_bytes(b"")
        with path.open("rb") as handle:
            while piece := handle.read(PIECE):
                self.digest.update(piece)
                self.have += len(piece)
        watcher.advance(self.have)

    @property
    def whole(self) -> bool:
        return self.have >= self.wanted.size

    def restart(self) -> None:
        self.path.write_bytes(b"")
        self.watcher.advance(-self.have)
        self.have, self.digest = 0, hashlib.sha256()

    def fill(self, response: httpx.Response) -> None:
        """Append the body. Every piece is written as it comes, so that a kill loses none."""
        with self.path.open("ab", buffering=0) as handle, self._hashing() as hashed:
            for piece in response.iter_raw():
                if self.have + len(piece) > self.wanted.size:
                    raise ToolkitError(
                        f"the server sends more of {self.wanted.name} than the {self.wanted.size:,} bytes it announced",
                        hint="run the same command again; if it happens again the file has just been replaced",
                    )
                try:
                    self._append(handle.fileno(), piece, hashed)
                except OSError as error:
                    raise self._unwritten(error) from None

    def _append(self, descriptor: int, piece: bytes, hashed: Callable[[memoryview], None]) -> None:
        rest = memoryview(piece)
        while rest:
            written = os.write(descriptor, rest)
            hashed(rest[:written])
            self.have += written
            self.watcher.advance(written)
            rest = rest[written:]

    @contextmanager
    def _hashing(self) -> Iterator[Callable[[memoryview], None]]:
        """Hashes in a second thread while the next piece is fetched; at the end of the block all is hashed.

        Two pieces wait at most: a processor that hashes slower than the line sends slows the line, not the memory.
        """
        waiting: list[Future[None]] = []

        def hashed(piece: memoryview) -> None:
            waiting.append(pool.submit(self.digest.update, piece))
            if len(waiting) > 2:
                waiting.pop(0).result()

        with ThreadPoolExecutor(1, thread_name_prefix="sha256") as pool:
            yield hashed

    def _unwritten(self, error: OSError) -> ToolkitError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ToolkitError(
                f"the disk of {self.path.parent} is full: {format_bytes(self.wanted.size - self.have)} more are needed "
                f"for {self.wanted.name}; what has come is kept",
                hint="free some space and run the same command again: it goes on from there",
            )
        return ToolkitError(f"{self.path} cannot be written: {error.strerror}", hint=f"ls -ld {self.path.parent}")

    def verified(self) -> str:
        found = self.digest.hexdigest()
        if self.wanted.sha256 is not None and found != self.wanted.sha256:
            self.path.unlink()
            raise ToolkitError(
                f"{self.wanted.name} is not what was promised: its SHA-256 is {found[:16]}..., "
                f"not {self.wanted.sha256[:16]}...; it was thrown away",
                hint="run the same command again; if it happens again, the server or what is between is at fault",
            )
        return found


def _once(state: _Part, client: httpx.Client, headers: Mapping[str, str]) -> float | None:
    """One request for what is missing. Seconds the server asks to wait before the next, if it does."""
    asked = dict(headers) | {"accept-encoding": "identity"}
    if state.have:
        asked["range"] = f"bytes={state.have}-"
    with client.stream("GET", state.wanted.url, headers=asked) as response:
        if response.status_code == 206 and not _goes_on(response, state):
            state.restart()
            return None
        if response.status_code == 416:
            state.restart()
            return None
        if response.status_code == 200 and state.have:
            state.watcher.note("the server cannot go on where it stopped: from the start")
            state.restart()
        if response.status_code in (200, 206):
            state.fill(response)
            return None
        if response.status_code in RETRIED:
            return _asked_wait(response, state)
        raise refused(response, state.wanted.name)


def _goes_on(response: httpx.Response, state: _Part) -> bool:
    """Whether a partial answer starts where we stopped, in a file of the size we know."""
    expected = f"bytes {state.have}-{state.wanted.size - 1}/{state.wanted.size}"
    return str(response.headers.get("content-range")) == expected


def _asked_wait(response: httpx.Response, state: _Part) -> float | None:
    seconds = retry_after(response.headers)
    if seconds is not None and seconds > LONGEST_WAIT:
        raise ToolkitError(
            f"{response.url.host} asks to wait {format_duration(seconds)} before the rest of {state.wanted.name}; "
            "what has come is kept",
            hint="run the same command again then; signed in (hf auth login) the limits are wider",
        )
    return seconds


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait by `Retry-After` (seconds or a date) or by the hub's `RateLimit` (`...;t=SECONDS`)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    if value:
        try:
            then = email.utils.parsedate_to_datetime(value)
        except ValueError:
            then = None
        if then is not None and then.tzinfo is not None:
            return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())
    for field in headers.get("ratelimit", "").split(";"):
        name, _, seconds = field.strip().partition("=")
        if name == "t" and seconds.isdecimal():
            return float(seconds)
    return None


def refused(response: httpx.Response, name: str) -> ToolkitError:
    """What an answer that will not change means."""
    host, code = response.url.host, response.status_code
    if code in (401, 403):
        return ToolkitError(
            f"{host} does not let you have {name} ({code}): it may ask for a licence to be accepted first",
            hint="hf auth login, or export HF_TOKEN=...",
        )
    if code == 404:
        return ToolkitError(f"{host} has no {name}", hint="toolkit models list")
    return ToolkitError(f"{host} answers {code} for {name}", hint="run the same command again later")


def _refuse_downgrade(response: httpx.Response) -> None:
    following = response.next_request
    if following is not None and response.url.scheme == "https" and following.url.scheme != "https":
        raise ToolkitError(
            f"{response.url.host} sends us on to {following.url.host} without encryption: refused",
            hint="try again; if it happens again, something on the way changes answers",
        )
