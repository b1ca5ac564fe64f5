"""Runs every way out of `escapes.yaml` against the real `python` server and says what became of it.

`python -m tests.mcp_servers.escapes` writes the table of `docs/mcp-python-escapes.md`.
"""

import asyncio
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from mcp_servers import isolation
from mcp_servers.isolation import Isolation

ATTEMPTS = Path(__file__).with_name("escapes.yaml")
PAGE = Path(__file__).parents[2] / "docs" / "mcp-python-escapes.md"
SECONDS = 1.5
MEMORY = 256 << 20


class Attempt(NamedTuple):
    """One way out."""

    kind: str
    name: str
    code: str


@dataclass
class Outcome:
    """What became of an attempt: what it met, and what of the machine it reached (nothing, if contained)."""

    met: str
    reached: list[str]
    seconds: float
    memory: int


@dataclass
class Report:
    """All outcomes under one isolation, and what was left when the server had gone."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    answers_after: bool = False
    left_over: list[int] = field(default_factory=list)


def attempts() -> list[Attempt]:
    """The ways out, in the order of the file."""
    document = yaml.safe_load(ATTEMPTS.read_text(encoding="utf-8"))
    return [
        Attempt(kind, name, code) for kind, items in document.items() for item in items for name, code in item.items()
    ]


def isolations() -> list[Isolation]:
    """Those that work on this machine."""
    works: dict[Isolation, bool] = {
        "bubblewrap": isolation.bubblewrap_works(),
        "monty": isolation.monty_works(),
    }
    return [name for name, usable in works.items() if usable]


class Machine(NamedTuple):
    """What there is to reach: a secret, its folder, listeners, and a variable of the server."""

    canary: str
    folder: Path
    secret: Path
    listener: socket.socket
    named: socket.socket
    named_path: Path
    abstract: socket.socket | None

    def touched(self) -> list[str]:
        """What was changed or connected to since the last look."""
        found = []
        for listener in (self.listener, self.named, self.abstract):
            if listener is None:
                continue
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            connection.close()
            found.append("connected to a listener")
        if not self.secret.exists() or self.secret.read_text(encoding="utf-8") != self.canary:
            found.append("changed the secret")
        elif sorted(path.name for path in self.folder.iterdir()) != [self.secret.name]:
            found.append("changed the folder")
        if self.secret.exists() and self.secret.stat().st_mode & 0o777 != 0o644:
            found.append("changed permissions")
        return found


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine worth escaping to."""
    with tempfile.TemporaryDirectory(prefix="canary-") as base:
        folder = Path(base, "home")
        folder.mkdir()
        canary = f"CANARY-{secrets.token_hex(8)}"
        secret = folder / "canary-secret.txt"
        secret.write_text(canary, encoding="utf-8")
        secret.chmod(0o644)
        listener = socket.create_server(("127.0.0.1", 0))
        named = socket.socket(socket.AF_UNIX)
        named_path = Path(base, "socket")
        named.bind(str(named_path))
        named.listen()
        abstract = None
        if sys.platform == "linux":
            abstract = socket.socket(socket.AF_UNIX)
            abstract.bind(f"\0toolkit-canary-{listener.getsockname()[1]}")
            abstract.listen()
        sockets = [one for one in (listener, named, abstract) if one is not None]
        for one in sockets:
            one.setblocking(False)
        try:
            yield Machine(canary, folder, secret, listener, named, named_path, abstract)
        finally:
            for one in sockets:
                one.close()


async def run_all(kind: Isolation, at_once: int = 4) -> Report:
    """Run every attempt, each in a session of its own, against one server over stdio."""
    report = Report()
    with machine() as target:
        command = StdioServerParameters(
            command=sys.executable,
            args=[
                "-P",
                "-m",
                "mcp_servers",
                "python",
                "--isolation",
                kind,
                "--seconds",
                str(SECONDS),
                "--memory",
                "256M",
            ],
            env={"TOOLKIT_CANARY": target.canary},
        )
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        async with Client(stdio_client(command)) as client:
            server = next(child for child in psutil.Process().children() if child.pid not in before)
            places = {
                "@SECRET@": str(target.secret),
                "@FOLDER@": str(target.folder),
                "@PORT@": str(target.listener.getsockname()[1]),
                "@SOCKET@": str(target.named_path),
                "@PID@": str(server.pid),
            }
            turns = asyncio.Semaphore(at_once)

            async def one(number: int, attempt: Attempt) -> None:
                code = attempt.code
                for placeholder, value in places.items():
                    code = code.replace(placeholder, value)
                async with turns:
                    began = time.monotonic()
                    answer = await client.call_tool("run_python", {"code": code, "session": f"s{number}"})
                    seconds = time.monotonic() - began
                    memory = sum(_resident(child) for child in _tree(server))
                report.outcomes[attempt.name] = Outcome(
                    _met(answer), _reached(answer, target.canary) + target.touched(), seconds, memory
                )

            await asyncio.gather(*(one(number, attempt) for number, attempt in enumerate(attempts())))
            after = await client.call_tool("run_python", {"code": "6 * 7", "session": "after"})
            report.answers_after = (after.structured_content or {}).get("result") == "42"
            tree = _tree(server)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and any(_alive(child) for child in tree):
            await asyncio.sleep(0.05)
        report.left_over = [child.pid for child in tree if _alive(child)]
    return report


def _tree(server: psutil.Process) -> list[psutil.Process]:
    try:
        return server.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _said(answer: Any) -> dict[str, Any]:
    return dict(answer.structured_content or {"error": str(answer.content)})


def _reached(answer: Any, canary: str) -> list[str]:
    if answer.is_error:
        return ["made the server fail"]
    said = _said(answer)
    # A traceback quotes the code, so only what was printed or returned can be the word of success.
    shown = f"{said.get('output')}\n{said.get('result')}"
    found = ["said so"] if "ESCAPED" in shown and "ESCAPED-THE-WORKER" not in shown else []
    return found + (["read the canary"] if canary in str(said) else [])


def _met(answer: Any) -> str:
    said = _said(answer)
    if said.get("session_ended"):
        return str(said["session_ended"]).split(";")[0]
    if said.get("error"):
        line = [line for line in str(said["error"]).strip().splitlines() if line.strip()][-1]
        return line.split(":")[0][:60] if ":" in line else line[:60]
    return "ran, reached nothing"


def page(reports: dict[Isolation, Report]) -> str:
    """The table as Markdown."""
    names = list(reports)
    lines = [
        "# Ways out of the `python` server",
        "",
        "Written by `python -m tests.mcp_servers.escapes`, which runs each attempt of `tests/mcp_servers/escapes.yaml` "
        "against the real server over stdio; the tests do the same. A cell says what the attempt met. An attempt "
        "counts as contained if nothing of the machine was read, changed or connected to, the server still answers "
        "and no process is left.",
        "",
        f"{len(attempts())} attempts, each with {SECONDS:g} s and {MEMORY >> 20} MiB. Contained: "
        + ", ".join(f"{sum(not one.reached for one in reports[name].outcomes.values())} under {name}" for name in names)
        + ".",
        "",
        "| kind | attempt | " + " | ".join(names) + " |",
        "|---" * (2 + len(names)) + "|",
    ]
    for attempt in attempts():
        cells = []
        for name in names:
            outcome = reports[name].outcomes[attempt.name]
            cells.append(
                f"**GOT OUT**: {', '.join(outcome.reached)}" if outcome.reached else outcome.met.replace("|", "/")
            )
        lines.append(f"| {attempt.kind} | {attempt.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page; 1 if something got out."""
    reports = {kind: asyncio.run(run_all(kind)) for kind in isolations()}
    PAGE.write_text(page(reports), encoding="utf-8")
    out = [
        f"{kind}: {name}"
        for kind, report in reports.items()
        for name, outcome in report.outcomes.items()
        if outcome.reached
    ]
    sys.stderr.write(f"wrote {PAGE}\n" + "".join(f"got out under {line}\n" for line in out))
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
