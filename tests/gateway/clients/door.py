"""A door in front of a server: bytes pass both ways as they are, and when the first question came is noted."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.loopback import on_loopback


@dataclass
class Door:
    """Where the door is, and when (monotonic seconds) the first POST came through it."""

    url: str
    first: float | None = None


@contextmanager
def door(url: str) -> Iterator[Door]:
    """A door to the server at `url`, open while the context lasts."""
    behind = urlsplit(url)
    opened = Door("")

    def note(sent: bytes) -> None:
        if opened.first is None and sent.startswith(b"POST "):
            opened.first = time.monotonic()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((behind.hostname, behind.port)) as server:
                answers = threading.Thread(target=_pass, args=(server, self.request))
                answers.start()
                _pass(self.request, server, note)
                answers.join()

    with on_loopback(Handler, socketserver.ThreadingTCPServer) as opened.url:
        yield opened


def _pass(source: socket.socket, target: socket.socket, note: Callable[[bytes], None] = lambda sent: None) -> None:
    with contextlib.suppress(OSError):
        while sent := source.recv(65_536):
            note(sent)
            target.sendall(sent)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
