"""Import of Berkeley Function Calling Leaderboard files (one JSON object a line) as a suite: each question keeps its
own functions as a set of tools; the answers' file says which is right, and without one no tool is.

Names lose what the chat format does not allow (dots become underscores, as the leaderboard itself does), and its types
(dict, float, tuple, any) become those of JSON Schema.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agents.experiments.suites import NONE, Suite, SuiteFile, checked
from toolkit.core.config import validate
from toolkit.core.errors import ToolkitError, UsageError

_TYPES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "long": "integer",
    "short": "integer",
    "byte": "integer",
    "tuple": "array",
    "list": "array",
    "arraylist": "array",
    "hashmap": "object",
    "char": "string",
}
_KNOWN = {"object", "array", "string", "number", "integer", "boolean", "null"}


class Imported(NamedTuple):
    """The document of the suite's file, the suite itself, and what was left out, with the reason."""

    document: dict[str, Any]
    suite: Suite
    left_out: list[str]


def import_bfcl(questions: Path, answers: Path | None, name: str) -> Imported:
    """Read the files. Raises UsageError if they are not of this format, or fit nothing together."""
    right = {entry["id"]: _first_call(entry) for entry in _lines(answers, "ground_truth")} if answers else None
    sets: dict[str, Any] = {}
    tasks: list[dict[str, Any]] = []
    left_out: list[str] = []
    for entry in _lines(questions, "question"):
        identity = str(entry["id"])
        try:
            task, tools = _task(entry, right)
        except _Unfit as reason:
            left_out.append(f"{identity}: {reason}")
            continue
        sets[identity] = tools
        tasks.append({"id": identity, "set": identity, **task})
    if not tasks:
        raise UsageError(f"nothing in {questions} can be used: {left_out[0] if left_out else 'it is empty'}")
    document = {"name": name, "about": f"Imported from {questions.name}.", "sets": sets, "tasks": tasks}
    return Imported(document, checked(validate(SuiteFile, document, str(questions)), str(questions)), left_out)


class _Unfit(Exception):
    """Why a question cannot become a task."""


def _task(entry: Mapping[str, Any], right: Mapping[str, str | None] | None) -> tuple[dict[str, Any], list[Any]]:
    turns = entry["question"]
    if len(turns) != 1:
        raise _Unfit("it has several turns")
    system = "\n".join(message["content"] for message in turns[0] if message["role"] == "system")
    asks = [message["content"] for message in turns[0] if message["role"] == "user"]
    if len(asks) != 1 or len(turns[0]) != len(asks) + bool(system):
        raise _Unfit("it is more than one request")
    functions = entry.get("function") or []
    tools = [
        {
            "name": _plain(function["name"]),
            "description": function.get("description", ""),
            "parameters": _schema(function.get("parameters") or {"type": "dict", "properties": {}}),
        }
        for function in functions
    ]
    names = [tool["name"] for tool in tools]
    if not names:
        raise _Unfit("it offers no functions")
    if len(set(names)) < len(names):
        raise _Unfit("two of its functions have one name")
    if right is None:
        label: str | None = NONE
    else:
        called = right.get(entry["id"])
        label = _plain(called) if called else None
        if label is None:
            raise _Unfit("the answers do not name one function for it")
        if label not in names:
            raise _Unfit(f"its answer, {label}, is none of its functions")
        if len(names) < 2:
            raise _Unfit("it offers one function only, which is no choice")
    return {"ask": asks[0], "right": label} | ({"system": system} if system else {}), tools


def _first_call(entry: Mapping[str, Any]) -> str | None:
    truth = entry["ground_truth"]
    return next(iter(truth[0])) if len(truth) == 1 and isinstance(truth[0], dict) else None


def _lines(path: Path, needed: str) -> list[dict[str, Any]]:
    found = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", hint=f"ls {path.parent}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ToolkitError(f"{path} cannot be read: {error}", hint=f"file {path}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "id" not in entry or needed not in entry:
            raise UsageError(
                f"{path} is no file of the leaderboard: line {number} has no id and {needed}",
                hint=f"sed -n {number}p {path}",
            )
        found.append(entry)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]


def _schema(schema: Any) -> Any:
    """The leaderboard's schema as JSON Schema; a type that is neither is left open."""
    if isinstance(schema, list):
        return [_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: value for key, value in schema.items() if key not in ("optional", "default")}
    for key in ("properties", "$defs"):
        if isinstance(changed.get(key), dict):
            changed[key] = {name: _schema(inner) for name, inner in changed[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(changed.get(key), dict):
            changed[key] = _schema(changed[key])
    kind = changed.get("type")
    if isinstance(kind, str):
        kind = _TYPES.get(kind.lower(), kind.lower())
        changed = changed | {"type": kind} if kind in _KNOWN else {k: v for k, v in changed.items() if k != "type"}
    return changed
