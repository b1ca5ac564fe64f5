"""The `python` server: runs code in isolation and keeps sessions. What the isolation is, `isolation` knows."""

import argparse
import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from mcp_servers import isolation
from mcp_servers.guard import Refusal
from mcp_servers.isolation import Isolation, Limits, MontySession, ProcessSession, Session
from mcp_servers.server import AtMost, ToolServer
from toolkit.core.errors import UsageError
from toolkit.core.units import parse_bytes

MAX_CODE = 200_000
MAX_SESSIONS = 8

Code = Annotated[str, Field(description="Python source code."), AtMost(MAX_CODE)]
SessionName = Annotated[
    str, Field(description="Name of the session whose variables are used.", pattern=r"^[A-Za-z0-9_-]{1,40}$")
]

_ISOLATIONS: dict[Isolation, str] = {
    "bubblewrap": "CPython in a bubblewrap sandbox: no network, no files but /scratch",
    "monty": "the restricted interpreter Monty: a subset of Python and its standard library, no network, "
    "no third-party modules, no files but /scratch",
    "none": "CPython WITHOUT isolation (--unsafe): everything this account may do",
}


class RunResult(BaseModel):
    """What a piece of code did."""

    output: str = Field(description="What the code printed, stdout and stderr together.")
    result: str | None = Field(description="repr() of the last expression, if it has one.")
    error: str | None = Field(description="The traceback, if the code raised.")
    session_ended: str | None = Field(description="Why the session and its variables are gone; null if they live on.")
    truncated: bool = Field(description="Whether output was cut.")
    seconds: float
    isolation: Isolation = Field(description="What the code ran under.")


class Sessions:
    """The running interpreters by name; the one unused for longest makes room for a new one."""

    def __init__(self, kind: Isolation, limits: Limits) -> None:
        self.kind = kind
        self.limits = limits
        self._sessions: dict[str, tuple[Session, asyncio.Lock]] = {}
        self._pool: Any = None
        self._starting = asyncio.Lock()

    async def run(self, name: str, code: str) -> isolation.Answer:
        """Run `code` in the session `name`, after what is already waiting for it."""
        session, lock = await self._named(name)
        async with lock:
            return await session.run(code)

    async def end(self, name: str) -> bool:
        """End the session `name`; whether there was one."""
        found = self._sessions.pop(name, None)
        if found is not None:
            await found[0].close()
        return found is not None

    async def close(self) -> None:
        """End all of them."""
        for name in list(self._sessions):
            await self.end(name)
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.__aexit__(None, None, None)

    async def _named(self, name: str) -> tuple[Session, asyncio.Lock]:
        found = self._sessions.pop(name, None)
        if found is None:
            if len(self._sessions) >= MAX_SESSIONS:
                idle = next((key for key, (_, lock) in self._sessions.items() if not lock.locked()), None)
                if idle is None:
                    raise Refusal(
                        f"all {MAX_SESSIONS} sessions are busy", hint=f"wait, or use one of {', '.join(self._sessions)}"
                    )
                await self.end(idle)
            found = (self._new(), asyncio.Lock())
        self._sessions[name] = found
        return found

    def _new(self) -> Session:
        if self.kind == "monty":
            return MontySession(self.limits, self._monty)
        return ProcessSession(self.limits, bubblewrap=self.kind == "bubblewrap")

    async def _monty(self) -> Any:
        async with self._starting:
            if self._pool is None:
                import pydantic_monty

                self._pool = await pydantic_monty.AsyncMonty(
                    min_processes=1,
                    max_processes=MAX_SESSIONS + 1,
                    max_checkouts_per_worker=1,
                    request_timeout=self.limits.seconds + 1,
                ).__aenter__()
            return self._pool


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `toolkit mcp run python`."""
    parser.add_argument(
        "--isolation", choices=("auto", "bubblewrap", "monty"), default="auto", help="what to run code under"
    )
    parser.add_argument("--unsafe", action="store_true", help="run code WITHOUT isolation, as this user")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="time limit of one call (default: 30)")
    parser.add_argument("--memory", default="1GiB", help="memory of one session (default: 1GiB)")
    parser.add_argument("--forget", action="store_true", help="keep no session: each call starts afresh")
    parser.add_argument("--scratch", default="64MiB", help="size of the scratch folder (default: 64MiB)")


def build(options: argparse.Namespace) -> ToolServer:
    """The server. Raises UsageError where no isolation works and `--unsafe` was not said."""
    if not 0 < options.seconds <= 3600:
        raise UsageError(f"--seconds must be in (0, 3600], not {options.seconds:g}", hint="--seconds 30")
    limits = Limits(seconds=options.seconds, memory=parse_bytes(options.memory), scratch=parse_bytes(options.scratch))
    return make(_choose(options.isolation, unsafe=options.unsafe), limits, keep=not options.forget)


def _choose(wanted: str, *, unsafe: bool) -> Isolation:
    if unsafe:
        if sys.platform == "win32":
            raise UsageError("--unsafe needs a POSIX system", hint="toolkit mcp run python --isolation monty")
        return "none"
    if wanted == "bubblewrap":
        if not isolation.bubblewrap_works():
            raise UsageError("bubblewrap does not work here", hint="install bubblewrap, or use --isolation monty")
        return "bubblewrap"
    if wanted == "monty":
        if not isolation.monty_works():
            raise UsageError("pydantic-monty is not installed here", hint="pip install pydantic-monty")
        return "monty"
    found = isolation.best()
    if found is None:
        raise UsageError(
            "there is no isolation to run code under here", hint="install bubblewrap or pydantic-monty, or add --unsafe"
        )
    return found


def make(kind: Isolation, limits: Limits, *, keep: bool = True) -> ToolServer:
    """The server under a given isolation. Without `keep`, no call meets what another one left."""
    sessions = Sessions(kind, limits)
    room = asyncio.Semaphore(MAX_SESSIONS)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(sessions.close())

    server = ToolServer("python", f"Runs code under {_ISOLATIONS[kind]}.", lifespan=lifespan)

    annotations = ToolAnnotations(
        read_only_hint=False, destructive_hint=kind == "none", idempotent_hint=False, open_world_hint=kind == "none"
    )
    purpose = (
        "Run Python code and return what it prints and the value of its last expression. Use it to calculate, "
        "simulate, parse or transform data exactly. "
    )

    async def run(name: str, code: str, context: Context[Any, Any]) -> RunResult:
        async with reporting(context, limits.seconds):
            answer = await sessions.run(name, code)
        return RunResult(
            output=answer.output,
            result=answer.result,
            error=answer.error,
            session_ended=answer.ended
            and answer.ended + (f"; the session {name} and its variables are gone" if keep else ""),
            truncated=answer.truncated,
            seconds=round(answer.seconds, 3),
            isolation=kind,
        )

    if not keep:

        @server.tool(
            name="run_python",
            title="Run Python",
            description=f"{purpose}Each call starts afresh: variables do not stay.",
            annotations=annotations,
        )
        async def run_afresh(code: Code, context: Context[Any, Any]) -> RunResult:
            name = secrets.token_hex(8)
            async with room:
                try:
                    return await run(name, code, context)
                finally:
                    await asyncio.shield(sessions.end(name))

        return server

    @server.tool(title="Run Python", description=f"{purpose}Variables stay for the next call.", annotations=annotations)
    async def run_python(code: Code, context: Context[Any, Any], session: SessionName = "main") -> RunResult:
        return await run(session, code, context)

    @server.tool(
        title="Reset a Python session",
        description="Forget the variables and scratch files of a Python session. Use it to start afresh.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def reset_python(session: SessionName = "main") -> str:
        existed = await sessions.end(session)
        return f"forgot the session {session}" if existed else f"there was no session {session}"

    return server


@asynccontextmanager
async def reporting(context: Context[Any, Any], seconds: float) -> AsyncIterator[None]:
    """Tell the client each second how many of `seconds` have passed, while the body runs."""

    async def tell() -> None:
        passed = 0
        while True:
            await asyncio.sleep(1)
            passed += 1
            await context.report_progress(passed, seconds, f"running for {passed} s")

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
