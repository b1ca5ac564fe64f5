"""A child process that cannot outlive us: started with a lifeline, watched until it answers, stopped for sure.

Knows nothing of what the child does. A child calls `gateway.lifeline.watch()` (or runs under
`python -P -m gateway.lifeline`), so it ends also when this process is killed.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from toolkit.core.errors import ToolkitError

TAIL_LINES = 12


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules in this environment; the current folder is not on its path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now. Another process may take it first: the child then says so and ends."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, or nothing if there is none."""
    with contextlib.suppress(OSError), log.open("rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(0, handle.tell() - 16_384))
        return "\n".join(handle.read().decode("utf-8", "replace").splitlines()[-lines:])
    return ""


def _status(url: str) -> int | None:
    """The status that a GET of an http:// URL is answered with; None if it is not.

    By the standard library: httpx takes longer to import than a small model to load, on the same cores.
    """
    from http.client import HTTPConnection, HTTPException

    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=2.0)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


class Child:
    """One running child. Its output goes to `log`; its stdin is the lifeline and is never written to."""

    def __init__(self, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            try:
                self._popen = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                    start_new_session=True,  # Ctrl-C reaches us, and we stop the children in order
                )
            except OSError as error:
                raise ToolkitError(
                    f"{name} could not be started: {error.strerror}", hint=f"check that {argv[0]} can be run"
                ) from error

    @property
    def pid(self) -> int:
        return self._popen.pid

    def running(self) -> bool:
        """Whether it is still alive."""
        return self._popen.poll() is None

    def wait_until(self, answers: str, *, timeout: float, between: Callable[[], None] | None = None) -> None:
        """Return once the child itself answers a GET of the URL `answers` with 200.

        Raises ToolkitError with the last lines of the log if the child ends first or `timeout` seconds pass.
        `between` runs at every turn, for a caller that wants to notice something else meanwhile.
        """
        deadline = time.monotonic() + timeout
        while True:
            if not self.running():
                raise self._failed(f"{self.name} ended with code {self._popen.returncode} before it answered")
            if _status(answers) == 200 and self._listens(urlsplit(answers).port):
                return
            if time.monotonic() > deadline:
                raise self._failed(f"{self.name} did not answer within {timeout:g} s")
            if between is not None:
                between()
            time.sleep(0.05)

    def _listens(self, port: int | None) -> bool:
        """Whether it is this child that listens there: another program may have taken the port before it."""
        import psutil

        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.pid)
            open_ = [found for each in (root, *root.children(recursive=True)) for found in each.net_connections("tcp")]
            return any(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in open_)
        return True  # the system does not say

    def stop(self, *, grace: float = 5.0) -> None:
        """End it and everything it started: ask first, insist after `grace` seconds. Safe to call twice."""
        import psutil

        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._popen.pid)
            family = [root, *root.children(recursive=True)]
        if self.running():
            self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(grace)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if os.name == "posix":  # what its children left behind when it was killed under them
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(grace)
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()

    def _failed(self, what: str) -> ToolkitError:
        end = tail(self.log)
        shown = f"; the end of its log:\n{end}" if end else ""
        return ToolkitError(f"{what}{shown}", hint=f"less {self.log}")
