"""Real HTTP servers on loopback that stand in for services of others: a small web site, search providers, price
APIs, a Stable Diffusion web UI. Each answers in the format its owner documents, named beside it."""

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What is answered. `chunks` beyond `body` are sent one by one, as long as someone reads."""

    body: bytes | str | dict[str, object] | list[object] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Iterator[bytes] | None = None


@dataclass
class StandIn:
    """A running stand-in: where it is and what it was asked."""

    port: int
    asked: list[Asked]
    answer: Callable[[Asked], Answer]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]


@contextmanager
def serving(answer: Callable[[Asked], Answer], tls: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    """An HTTP(S) server on a free port of 127.0.0.1 that answers by `answer`, which may be exchanged while it runs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked = Asked(self.command, split.path, query, {k.lower(): v for k, v in self.headers.items()}, body)
            running.asked.append(asked)
            made = running.answer(asked)
            content = made.body
            headers = dict(made.headers)
            if isinstance(content, dict | list):
                content = json.dumps(content)
                headers.setdefault("Content-Type", "application/json")
            if isinstance(content, str):
                content = content.encode()
            headers.setdefault("Content-Type", "text/html; charset=utf-8")
            with contextlib.suppress(ConnectionError):
                self.send_response(made.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if made.chunks is None:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                for chunk in made.chunks or ():
                    self.wfile.write(chunk)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # fifty calls at once are fifty connections at once

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that goes is not an error here

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        running = StandIn(server.server_port, [], answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()
