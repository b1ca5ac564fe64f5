"""The one sink for what a command says: data on stdout, everything else on stderr.

Three modes: for people (tables and colour on a terminal), `--json` (one document on stdout and nothing else
there), `--quiet` (only what a script would want, one item a line). `NO_COLOR` and pipes are honoured.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from toolkit.core.errors import ToolkitError, UsageError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what a script would want.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="Another gateway.yaml.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
LONGEST_NAME = 24  # characters of a name that is kept on one line in a table


class Progress(Protocol):
    """A running job's bar: `advance` by units done, or `reach` so many of so many, counted from the start."""

    def advance(self, done: float = 1) -> None: ...

    def reach(self, done: float, total: float) -> None: ...


class Output:
    """Where one command writes. Make one per command from its flags."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        if json and quiet:
            raise UsageError("--json and --quiet exclude each other", hint="drop one of them")
        self.json = json
        self.quiet = quiet

    def result(self, document: Any, *, human: Any = None, quiet: str | Iterable[str] = ()) -> None:
        """The command's result: `document` for --json, `human` (text or a rich renderable) for people,
        `quiet` (a line or lines) for scripts."""
        if self.json:
            sys.stdout.write(json.dumps(document, default=_plain, ensure_ascii=False, indent=2) + "\n")
        elif self.quiet:
            lines = [quiet] if isinstance(quiet, str) else quiet
            for line in lines:
                sys.stdout.write(f"{line}\n")
        elif isinstance(human, str):
            sys.stdout.write(human + "\n")
        elif human is not None:
            _console(stderr=False).print(human)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "nothing yet") -> Any:
        """A table for `human=`. Columns named with a trailing `>` are right-aligned."""
        if not rows:
            return empty
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, column in enumerate(columns):
            number = column.endswith(">")
            # Numbers, and names of a usual length in the first column, are never broken over two lines.
            whole = number or (place == 0 and max(len(str(row[0])) for row in rows) <= LONGEST_NAME)
            name, side = column.rstrip(">"), "right" if number else "left"
            table.add_column(name, justify=side, overflow="fold", no_wrap=whole)  # type: ignore[arg-type]
        for row in rows:
            cells = ["" if cell is None else str(cell) for cell in row]
            table.add_row(*cells)
        return table

    def note(self, message: str) -> None:
        """What is being done, on stderr; silent under --quiet."""
        if not self.quiet:
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    def warn(self, message: str) -> None:
        """Something the user should know though the command goes on; never silenced."""
        sys.stderr.write(f"warning: {message}\n")
        sys.stderr.flush()

    @contextmanager
    def progress(self, what: str, total: float | None, unit: str = "") -> Iterator[Progress]:
        """A bar with done of total, rate and time left on a terminal; silent in a pipe. `unit` B: bytes."""
        if self.quiet or not sys.stderr.isatty():
            yield _Silent()
            return
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            *(
                (DownloadColumn(binary_units=True), TransferSpeedColumn())
                if unit == "B"
                else (MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            ),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=_console(stderr=True),
        )
        with bar:
            yield _Bar(bar, bar.add_task(what, total=total, rate=""), unit)

    def confirm(self, question: str, *, yes: bool, flag: str = "--yes") -> None:
        """Ask before something that cannot be undone; without a terminal it needs the flag."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageError(f"{question} needs a yes, and there is no terminal to ask on", hint=f"add {flag}")
        if not typer.confirm(question, err=True):
            raise typer.Abort


class _Silent:
    def advance(self, done: float = 1) -> None:
        pass

    def reach(self, done: float, total: float) -> None:
        pass


class _Bar:
    def __init__(self, bar: Any, task: Any, unit: str) -> None:
        self._bar, self._task, self._unit = bar, task, unit

    def advance(self, done: float = 1) -> None:
        self._bar.advance(self._task, done)
        self._tell_rate()

    def reach(self, done: float, total: float) -> None:
        self._bar.update(self._task, completed=done, total=total)
        self._tell_rate()

    def _tell_rate(self) -> None:
        speed = self._bar.tasks[self._bar.task_ids.index(self._task)].speed
        if speed:
            self._bar.update(self._task, rate=f"{speed:.1f} {self._unit}/s")


def report_error(error: ToolkitError) -> None:
    """`error: ...` and `hint: ...` on stderr."""
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")


def _console(*, stderr: bool) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
