"""How every double of these tests is served: on a free port of loopback, from a thread, while a context lasts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn


@contextmanager
def on_loopback(kind: type[TCPServer], handler: type[BaseRequestHandler]) -> Iterator[str]:
    """A server of this kind with this handler; its URL. At the end it waits for no answer under way."""
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
