"""A local hub: a real HTTP server that speaks the part of the Hugging Face Hub's protocol a pull uses.

A stand-in: no hub can be reached from here. Built from the documented API and the headers huggingface_hub reads:
`/api/models/OWNER/REPO`, `/OWNER/REPO/resolve/REVISION/FILE` answering 302 with `X-Linked-ETag` and `X-Repo-Commit`
to a second address that serves ranges, as the hub's file servers do. Faults are switched on by the tests.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import quote, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 16 * 1024


@dataclass
class Faults:
    """What goes wrong. Counters go down as they are used."""

    drop_after: list[int] = field(default_factory=list)  # bytes of an answer before its line is cut
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # answers given instead of bytes
    no_ranges: bool = False
    wrong_bytes: bool = False
    pace: float = 0.0  # seconds between pieces
    small_pieces: bool = False
    rate: float = 0.0  # bytes a second, as a line of that width would carry
    redirect: str = ""
    gated: bool = False
    missing: bool = False


@dataclass
class Hub:
    """The server's side of things: its files, its faults, and what was asked of it."""

    url: str
    files: dict[str, bytes]
    repository: str = "owner/model-GGUF"
    faults: Faults = field(default_factory=Faults)
    ranges: list[int] = field(default_factory=list)
    sent: int = 0
    tokens: list[str | None] = field(default_factory=list)
    seen_tokens: set[str | None] = field(default_factory=set)  # at the address that serves the bytes
    lock: threading.Lock = field(default_factory=threading.Lock)
    on_sent: Callable[[int], object] = lambda sent: None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.hub
        path = unquote(self.path.partition("?")[0])
        if path.startswith("/api/models/"):
            return self._api(path)
        resolved = re.fullmatch(rf"/{hub.repository}/resolve/[^/]+/(.+)", path)
        if resolved and resolved[1] in hub.files:
            digest = hashlib.sha256(hub.files[resolved[1]]).hexdigest()
            hub.tokens.append(self.headers.get("authorization"))
            location = hub.faults.redirect or f"{hub.url}/cdn/{quote(resolved[1])}?signature=x"
            return self._answer(
                302,
                b"",
                {
                    "Location": location,
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-ETag": f'"{digest}"',
                    "X-Linked-Size": str(len(hub.files[resolved[1]])),
                },
            )
        if path.startswith("/cdn/") and path[5:] in hub.files:
            return self._bytes(hub.files[path[5:]])
        return self._answer(404, b'{"error": "Entry not found"}', {"X-Error-Code": "EntryNotFound"})

    def _api(self, path: str) -> None:
        hub = self.hub
        asked = re.match(rf"/api/models/{hub.repository}(/revision/[^/]+)?$", path)
        if hub.faults.gated:
            return self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if asked is None or hub.faults.missing:
            return self._answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135},
            }
            for name, content in hub.files.items()
        ]
        document = {
            "_id": "1",
            "id": hub.repository,
            "modelId": hub.repository,
            "sha": COMMIT,
            "private": False,
            "gated": False,
            "tags": [],
            "downloads": 1,
            "likes": 1,
            "cardData": {"license": "apache-2.0"},
            "siblings": siblings,
        }
        return self._answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _bytes(self, content: bytes) -> None:
        hub = self.hub
        hub.seen_tokens.add(self.headers.get("authorization"))
        start, end = 0, len(content) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        probe = bool(asked and asked[2])
        if hub.faults.statuses and not probe:
            status, headers = hub.faults.statuses.pop(0)
            return self._answer(status, b"{}", headers)
        if asked and not (hub.faults.no_ranges and not probe):
            start, end = int(asked[1]), min(int(asked[2] or end), end)
            if start > end:
                return self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        else:
            self.send_response(200)
        body = memoryview(content)[start : end + 1]
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.end_headers()
        if not probe:
            hub.ranges.append(start)
        limit = hub.faults.drop_after.pop(0) if hub.faults.drop_after and not probe else None
        return self._stream(body, limit, probe)

    def _stream(self, body: memoryview, limit: int | None, probe: bool) -> None:
        hub, done, begun = self.hub, 0, time.monotonic()
        piece_size = PIECE if hub.faults.pace or hub.faults.small_pieces or limit is not None else 2**20
        while done < len(body):
            piece = bytes(body[done : done + min(piece_size, (limit or len(body)) - done)])
            if hub.faults.wrong_bytes and not probe and done == 0:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            try:
                self.wfile.write(piece)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
                return
            done += len(piece)
            if not probe:
                with hub.lock:
                    hub.sent += len(piece)
                hub.on_sent(hub.sent)
            if limit is not None and done >= limit:
                self.close_connection = True
                self.connection.close()
                return
            if hub.faults.rate:
                time.sleep(max(0.0, begun + done / hub.faults.rate - time.monotonic()))
            if hub.faults.pace and not probe:
                time.sleep(hub.faults.pace)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that was killed is no news


@contextmanager
def local_hub(files: dict[str, bytes], port: int = 0) -> Iterator[Hub]:
    """A hub on loopback with these files in `owner/model-GGUF`."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", port), handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", files)
    handler.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
