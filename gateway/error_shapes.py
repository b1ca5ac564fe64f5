"""Errors in the caller's own shape also where LiteLLM writes another: before a route's own code runs, and in a crash.

An ASGI wrapper around the proxy's application, put there by LiteLLM's startup hook of each worker. It reads no
request, passes every answer that is no error on as it comes, and takes out the header that tells where a model runs.
"""

import gzip
import json
import logging
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.keys.routes import ANTHROPIC_ROUTES, OPEN_TO_KEYS

log = logging.getLogger("toolkit.proxy")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

STARTUP = "gateway.error_shapes:install"
CRASHED = "The gateway failed to handle this request. Its log says why: toolkit gateway logs"
_PRIVATE = {b"x-litellm-model-api-base"}
_MODELS = OPEN_TO_KEYS["POST"] - {"/mcp"}


def shaped(body: bytes, *, anthropic: bool) -> bytes:
    """The body of an error in the caller's shape; the same bytes where it has that shape."""
    try:
        document = json.loads(body)
    except ValueError:
        document = {"detail": body.decode("utf-8", "replace")}
    if not isinstance(document, dict) or (anthropic and document.get("type") == "error"):
        return body
    error = document.get("error")
    if not isinstance(error, dict):
        told = document.get("detail", error)
        error = {"message": told if isinstance(told, str) else json.dumps(told), "type": "invalid_request_error"}
    elif not anthropic:
        return body
    if anthropic:
        error = {"type": error.get("type") or "api_error", "message": error.get("message") or ""}
        return json.dumps({"type": "error", "error": error}).encode()
    return json.dumps({"error": {"param": None, "code": None, **error}}).encode()


class ShapedErrors:
    """The application with every error of the routes to models in the caller's shape."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, in ASGI's terms."""
        path = scope.get("path")
        if scope["type"] != "http" or path not in _MODELS:
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, anthropic=path in ANTHROPIC_ROUTES)
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            if answer.begun:
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]  # its words may be the caller's, and are not logged
            log.error("a request to %s crashed: %s in %s:%s", path, type(error).__name__, place.filename, place.lineno)
            await answer.crash()


class _Answer:
    """What goes to one caller: an error is held back until it is whole."""

    def __init__(self, send: Send, *, anthropic: bool) -> None:
        self.begun = False
        self._send = send
        self._anthropic = anthropic
        self._held: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in _PRIVATE]
            message = {**message, "headers": headers}
            if message["status"] >= 400:
                self._held = message
                return
        elif self._held is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish(self._held)
            return
        self.begun = True
        await self._send(message)

    async def crash(self) -> None:
        self._body = CRASHED.encode()
        await self._finish({"type": "http.response.start", "status": 500, "headers": []})

    async def _finish(self, start: Message) -> None:
        self.begun = True
        headers = {name.lower(): value for name, value in start["headers"]}
        if headers.pop(b"content-encoding", b"") == b"gzip":
            self._body = gzip.decompress(self._body)
        body = shaped(self._body, anthropic=self._anthropic)
        headers |= {b"content-type": b"application/json", b"content-length": str(len(body)).encode()}
        await self._send({**start, "headers": list(headers.items())})
        await self._send({"type": "http.response.body", "body": body})


def install() -> None:
    """Put the wrapper around the proxy's application; called by LiteLLM in each worker before it serves."""
    from litellm.proxy.proxy_server import app

    app.middleware_stack = ShapedErrors(app.middleware_stack)
