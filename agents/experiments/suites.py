"""A suite: requests, the tools offered with them, and the one tool that is right. Reads and checks suite files.
Knows nothing of models, orders or results.

A file says where its tools come from (MCP servers, or written in place) and lists its requests by the right tool:

    name: my-tools
    tools:
      - {name: get_weather, description: Weather for a city, parameters: {city: Name of the city}}
      - {name: get_time, description: Local time in a city, parameters: {city: Name of the city}}
    tasks:
      get_weather:
        - Do I need an umbrella in Oslo?
      get_time:
        - Is it late in Tokyo?

Instead of a tool's name, `any` says that each would do and `none` that no tool fits. `sets` names several lists of
tools; requests listed under a set's name go with its tools, any of which would do.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from agents.tool_host import Tool
from toolkit.core.config import Strict, read_yaml, validate
from toolkit.core.errors import UsageError
from toolkit.core.paths import bundled, config_dir

ANY = "any"  # every tool of the set would do: no answer is wrong
NONE = "none"  # no tool fits: the right thing is to call none

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WIRE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ToolEntry(Strict):
    """A tool written in the suite. `parameters` is a JSON schema, or in short `{name: description}` of texts."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)

    def tool(self) -> Tool:
        return Tool(self.name, self.description, _schema(self.parameters))


class TaskEntry(Strict):
    """A request in full form. `set` names the tools that are offered with it, if not the suite's own."""

    ask: str = Field(min_length=1)
    right: str
    id: str | None = None
    set: str | None = None
    system: str | None = None


class SuiteFile(Strict):
    """The file as it is written."""

    name: str
    about: str = ""
    system: str | None = None
    servers: list[str] = Field(default_factory=list)
    tools: list[str | ToolEntry] = Field(default_factory=list)
    sets: dict[str, list[str | ToolEntry]] = Field(default_factory=dict)
    tasks: dict[str, list[str]] | list[TaskEntry]

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name: use letters, digits, dots, dashes")
        return name

    @model_validator(mode="after")
    def _has_tools(self) -> "SuiteFile":
        if not (self.tools or self.sets):
            raise ValueError("the suite offers no tools: give `tools` or `sets`")
        return self


@dataclass(frozen=True)
class Task:
    """One request. `right` is a tool's name, ANY or NONE; `tools` are the names offered, as the suite lists them."""

    id: str
    ask: str
    right: str
    tools: tuple[str, ...]
    set: str = ""
    system: str | None = None


@dataclass(frozen=True)
class Suite:
    """A checked suite. `tools` maps each set's name ("" is the suite's own) to what its file says of it: a Tool
    written in place, or the name of one that an MCP server of `servers` offers."""

    name: str
    about: str
    servers: tuple[str, ...]
    tools: Mapping[str, tuple[Tool | str, ...]]
    tasks: tuple[Task, ...]
    digest: str

    def resolve(self, offered: Sequence[Tool]) -> dict[str, dict[str, Tool]]:
        """For each set the tools by name, taking those named only by name from `offered`. Raises UsageError."""
        known = {tool.name: tool for tool in offered}
        resolved: dict[str, dict[str, Tool]] = {}
        for label, entries in self.tools.items():
            resolved[label] = {}
            for entry in entries:
                if isinstance(entry, str) and entry not in known:
                    raise UsageError(
                        f"the suite {self.name} uses the tool {entry}, which no server of "
                        f"{', '.join(self.servers) or 'the suite'} offers; they offer {', '.join(known) or 'none'}",
                        hint="toolkit mcp list",
                    )
                tool = known[entry] if isinstance(entry, str) else entry
                resolved[label][tool.name] = tool
        return resolved

    def draw(self, count: int | None) -> "Suite":
        """The suite with `count` of its tasks, taken evenly over right tools and sets, in the file's order."""
        if count is None or count >= len(self.tasks):
            return self
        groups: dict[tuple[str, str], list[Task]] = {}
        for task in self.tasks:
            groups.setdefault((task.set, task.right), []).append(task)
        turns = [task for turn in _zip_longest(groups.values()) for task in turn]
        kept = {task.id for task in turns[:count]}
        tasks = tuple(task for task in self.tasks if task.id in kept)
        return Suite(self.name, self.about, self.servers, self.tools, tasks, self.digest)


def bundled_suites() -> list[str]:
    """Names of the suites that come with the toolkit."""
    return sorted(path.stem for path in bundled("suites").glob("*.yaml"))


def own_suites() -> list[str]:
    """Names of the suites in the user's config folder."""
    return sorted(path.stem for path in (config_dir() / "suites").glob("*.yaml"))


def suite_path(name: str) -> Path:
    """The file of a suite: a path as it stands, else an own suite of that name, else a bundled one."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name).expanduser()
    for path in (config_dir() / "suites" / f"{name}.yaml", bundled(f"suites/{name}.yaml")):
        if path.is_file():
            return path
    known = ", ".join(dict.fromkeys([*own_suites(), *bundled_suites()]))
    raise UsageError(f"there is no suite named {name}; there are {known}", hint="toolkit suite list")


def load_suite(name: str) -> Suite:
    """Read and check a suite, by name or path. Raises UsageError with the path of the first fault."""
    path = suite_path(name)
    return checked(validate(SuiteFile, read_yaml(path), str(path)), str(path))


def checked(file: SuiteFile, source: str) -> Suite:
    """The suite that a file describes. Raises UsageError where it contradicts itself; `source` names the file."""
    tools = {label: tuple(_entry(entry, source) for entry in entries) for label, entries in _sets(file).items()}
    names = {label: tuple(_name(entry) for entry in entries) for label, entries in tools.items()}
    for label, listed in names.items():
        where = f"the set {label}" if label else "tools"
        double = [name for name, count in Counter(listed).items() if count > 1]
        if double:
            raise UsageError(f"{source}: {where}: {double[0]} is listed twice", hint=f"edit {source}")
        if not listed:
            raise UsageError(f"{source}: {where}: no tools are listed", hint=f"edit {source}")
        if any(isinstance(entry, str) for entry in tools[label]) and not file.servers:
            raise UsageError(
                f"{source}: {where}: {listed[0]} is only a name, and no server is named that offers it",
                hint="add `servers: [web]`, or write the tool with its description",
            )
    tasks: list[Task] = []
    counts: Counter[str] = Counter()
    for entry in _entries(file):
        label = entry.set or ""
        if label not in names:
            known = ", ".join(name for name in names if name) or "none"
            problem = f"there is no set named {label!r}; there are {known}" if label else "a task needs a set here"
            raise UsageError(f"{source}: tasks: {entry.ask!r}: {problem}", hint=f"edit {source}")
        if entry.right not in (*names[label], ANY, NONE):
            raise UsageError(
                f"{source}: tasks: {entry.right} is none of the tools offered: {', '.join(names[label])}",
                hint=f"edit {source}, or use {NONE} for requests that no tool fits, {ANY} where each would do",
            )
        if entry.right != NONE and len(names[label]) < 2:
            raise UsageError(f"{source}: tasks: {entry.ask!r}: a choice needs at least two tools", f"edit {source}")
        stem = label if entry.right == ANY and label else f"{label}-{entry.right}" if label else entry.right
        counts[stem] += 1
        identity = entry.id or f"{stem}-{counts[stem]:02d}"
        tasks.append(Task(identity, entry.ask, entry.right, names[label], label, entry.system or file.system))
    if not tasks:
        raise UsageError(f"{source}: the suite has no tasks", hint=f"edit {source}")
    for what, values in (("id", [task.id for task in tasks]), ("request", [(task.ask, task.set) for task in tasks])):
        double_value = next((value for value, count in Counter(values).items() if count > 1), None)
        if double_value is not None:
            shown = double_value if isinstance(double_value, str) else double_value[0]
            raise UsageError(f"{source}: tasks: the {what} {shown!r} stands twice", hint=f"edit {source}")
    canonical = json.dumps(file.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return Suite(file.name, file.about, tuple(file.servers), tools, tuple(tasks), digest)


def _sets(file: SuiteFile) -> dict[str, list[str | ToolEntry]]:
    return ({"": file.tools} if file.tools else {}) | file.sets


def _entry(entry: str | ToolEntry, source: str) -> Tool | str:
    name = entry if isinstance(entry, str) else entry.name
    if not _WIRE_NAME.fullmatch(name):
        raise UsageError(
            f"{source}: {name!r} cannot be a tool's name", hint="use letters, digits, _ and -, at most 64 of them"
        )
    return entry if isinstance(entry, str) else entry.tool()


def _name(entry: Tool | str) -> str:
    return entry if isinstance(entry, str) else entry.name


def _entries(file: SuiteFile) -> Iterable[TaskEntry]:
    if isinstance(file.tasks, list):
        return file.tasks
    return [
        TaskEntry(ask=ask, right=ANY, set=key) if key in file.sets else TaskEntry(ask=ask, right=key)
        for key, asks in file.tasks.items()
        for ask in asks
    ]


def _schema(parameters: Mapping[str, Any]) -> dict[str, Any]:
    if parameters.get("type") == "object":
        return dict(parameters)
    properties = {
        name: {"type": "string", "description": about} if isinstance(about, str) else about
        for name, about in parameters.items()
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _zip_longest(groups: Iterable[Sequence[Task]]) -> Iterable[list[Task]]:
    held = list(groups)
    for turn in range(max(map(len, held))):
        yield [group[turn] for group in held if turn < len(group)]
