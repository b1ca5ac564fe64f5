"""What the doubles of servers have in common: they listen on loopback, end for sure, and answer in JSON."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn
from typing import Any


@contextmanager
def on_loopback(handler: type[BaseRequestHandler], kind: type[TCPServer] = ThreadingHTTPServer) -> Iterator[str]:
    """A server with this handler; its URL. At the end it waits for no answer under way."""
    server = kind(("127.0.0.1", 0), handler)
    if isinstance(server, ThreadingMixIn):
        server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


class JsonHandler(BaseHTTPRequestHandler):
    """A handler that logs nothing and keeps connections; `body` is the request's JSON, `send` answers."""

    protocol_version = "HTTP/1.1"

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")

    def send(self, answer: object, status: int = 200, kind: str = "application/json") -> None:
        """Answer with a document as JSON; bytes and text as they are."""
        text = answer if isinstance(answer, str | bytes) else json.dumps(answer)
        content = text.encode() if isinstance(text, str) else text
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass
