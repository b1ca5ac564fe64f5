"""What every server of this package is: a named set of tools over stdio or streamable HTTP.

Knows nothing of what the tools do. Keeps the protocol alone on stdout and every argument and result out of the logs.
"""

import functools
import hmac
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.types import CallToolResult, Icon, InputRequiredResult, ToolAnnotations
from pydantic import AfterValidator, ValidationError

from toolkit import __version__
from toolkit.core.errors import ToolkitError

# The largest HTTP request body. stdio has no such limit in the SDK; there the tools' own limits hold.
MAX_BODY = 4 * 1024 * 1024
HEALTH = "/health"  # over HTTP: answers once the server does, without a token


def AtMost(limit: int, *, least: int = 1) -> AfterValidator:
    """A text argument of `least` to `limit` characters.

    Not in the schema: a model server that compiles schemas to a grammar (llama.cpp) unrolls every repetition.
    """

    def check(text: str) -> str:
        if not least <= len(text) <= limit:
            raise ValueError(f"has {len(text):,} characters; {least} to {limit:,} are allowed")
        return text

    return AfterValidator(check)


_Function = TypeVar("_Function", bound=Callable[..., Any])


class ToolServer(MCPServer[Any]):
    """An MCP server whose errors a model can act on and whose log holds no content."""

    def __init__(self, name: str, instructions: str, **options: Any) -> None:
        super().__init__(
            name=f"toolkit-{name}", instructions=instructions, version=__version__, log_level="WARNING", **options
        )

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; every fault reaches the model as one sentence it can act on.

        Raises ToolError for what the caller can mend; UnexpectedToolError for a defect of ours.
        """
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError as error:
            cause = error.__cause__
            if isinstance(cause, ToolkitError):
                raise ToolError(cause.message + (f" ({cause.hint})" if cause.hint else "")) from None
            if isinstance(cause, OSError) and cause.strerror:
                raise ToolError(f"the system says: {cause.strerror}; nothing was changed") from None
            raise
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(f"{name}: {_faults(error.__cause__)}") from None
            if str(error).startswith("Unknown tool"):
                known = ", ".join(tool.name for tool in await self.list_tools())
                raise ToolError(f"there is no tool named {name[:80]}; tools: {known}") from None
            raise ToolError(str(error).removeprefix(f"Error executing tool {name}: ")) from None

    def tool(
        self,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        annotations: ToolAnnotations | None = None,
        icons: list[Icon] | None = None,
        meta: dict[str, Any] | None = None,
        structured_output: bool | None = None,
    ) -> Callable[[_Function], _Function]:
        """Register a tool. One that is no coroutine runs on a thread that does not outlive the client's session."""
        register = super().tool(name, title, description, annotations, icons, meta, structured_output)

        def decorate(function: _Function) -> _Function:
            register(function if inspect.iscoroutinefunction(function) else _on_a_thread(function))
            return function

        return decorate

    def serve_stdio(self) -> None:
        """Serve the client on the other end of stdin and stdout until it goes."""
        try:
            self.run("stdio")
        except* BrokenPipeError:
            pass  # the client went without reading its last answers
        if any(thread is not threading.current_thread() and not thread.daemon for thread in threading.enumerate()):
            # A tool still runs on its thread and nobody waits for it: Python would, before it exits.
            sys.stderr.flush()
            os._exit(0)

    def serve_http(self, port: int, token: str | None = None) -> None:
        """Serve any number of clients on http://127.0.0.1:`port`/mcp until told to stop. Blocks.

        With a token, only those who send it: every account of this machine reaches the port.
        """
        import asyncio
        import socket

        import uvicorn
        from starlette.responses import PlainTextResponse

        async def health(_: Any) -> PlainTextResponse:
            return PlainTextResponse("ok")

        self.custom_route(HEALTH, methods=["GET"])(health)
        app: Any = self.streamable_http_app(max_request_body_size=MAX_BODY, host="127.0.0.1")
        if token is not None:
            app = _only_with(token, app)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
            sys.stderr.write(f"{self.name} at http://127.0.0.1:{listener.getsockname()[1]}/mcp\n")
            sys.stderr.flush()
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
            asyncio.run(server.serve(sockets=[listener]))


def _only_with(token: str, app: Any) -> Any:
    """The ASGI app for those who send the token; the rest learns only that a server is there."""
    from starlette.responses import PlainTextResponse

    expected = f"Bearer {token}".encode()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != HEALTH:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, expected):
                refusal = PlainTextResponse("send the token of this server: Authorization: Bearer TOKEN\n", 401)
                await refusal(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


def _on_a_thread(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def run(**arguments: Any) -> Any:
        # Abandoned, not awaited, when its client goes: what it writes, it writes whole or not at all.
        return await anyio.to_thread.run_sync(functools.partial(fn, **arguments), abandon_on_cancel=True)

    return run


def _faults(error: ValidationError) -> str:
    """What is wrong with the arguments, without repeating them."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in faults[:5]
    )


def log_without_content() -> None:
    """Log to stderr where something happened and never what: messages quote arguments, addresses and results.

    For the process of a server; called before anything else sets up logging.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(WhereOnly())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class WhereOnly(logging.Formatter):
    """Level, logger and place of a record, and the kind of its exception; never its message."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname.lower()}: {record.name} at {record.filename}:{record.lineno}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return line
        error = error.__cause__ or error
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        where = f" at {at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at is not None else ""
        return f"{line}: {type(error).__name__}{where}"
