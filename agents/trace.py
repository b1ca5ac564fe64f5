"""The record of a run: JSON Lines, one event a line, with all that is needed to replay and analyse it.

Every event holds `v` (version of the schema), `event` (its kind) and `time` (UTC). Knows nothing of what runs.
"""

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from toolkit.core.errors import ToolkitError, UsageError

VERSION = 1


class Trace(Protocol):
    """Takes events as they happen."""

    def write(self, event: str, **fields: Any) -> None: ...


class MemoryTrace:
    """Keeps events in `events`."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, event: str, **fields: Any) -> None:
        self.events.append(_event(event, fields))


class FileTrace:
    """Appends events to a file, each out of our hands before the next thing happens. A context manager.

    Raises UsageError where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Half of a surrogate pair, which a model may write, becomes an escape of JSON.
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UsageError(f"no trace can be written to {path}: {error.strerror}", hint="--trace FILE") from None

    def write(self, event: str, **fields: Any) -> None:
        self._file.write(json.dumps(_event(event, fields), ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The events of a trace. A last line that was cut off is left out; any other fault is refused by its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no trace {path}", hint=f"ls {path.parent}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ToolkitError(f"{path} cannot be read as a trace: {error}", hint=f"file {path}") from None
    lines = text.removesuffix("\n").split("\n")  # not splitlines: text within an event may hold U+2028
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        event: object = None
        with suppress(ValueError):
            event = json.loads(line)
        if not isinstance(event, dict) or "event" not in event:
            if number == len(lines) and events and not text.endswith("\n"):
                break
            raise UsageError(f"{path} is no trace: line {number} is not an event", hint=f"sed -n {number}p {path}")
        if event.get("v") != VERSION:
            raise UsageError(
                f"{path} has version {event.get('v')} of the trace format, this toolkit reads {VERSION}",
                hint="toolkit --version",
            )
        events.append(event)
    return events


def versions() -> dict[str, str]:
    """What ran: the toolkit, the MCP client, Python."""
    found = {"python": platform.python_version()}
    for name in ("local-llm-toolkit", "mcp"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _event(event: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"v": VERSION, "event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
