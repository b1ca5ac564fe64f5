"""Edits JSON with comments and trailing commas as text: what is not edited keeps every byte. Pure; knows no files.

There is no kept Python library that writes JSONC back unchanged; this is the part of one that is needed: parse to
offsets, put a value, remove a value.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from toolkit.core.errors import ToolkitError

DEEPEST = 200  # levels; deeper is no config
Path = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_LITERAL = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')
_SAME_LINE = re.compile(r"[ \t]*(?:/\*[^\r\n]*?\*/[ \t]*)*(?://[^\r\n]*)?")


class JsoncError(ToolkitError):
    """The text is not JSON, not even with comments and trailing commas."""


@dataclass(frozen=True)
class Node:
    """A value in the text, at [start, end). `members` are those of an object, or the elements of an array."""

    start: int
    end: int
    value: Any
    members: "tuple[Member, ...]" = ()

    def find(self, path: Sequence[str | int]) -> "Node | None":
        """The node at `path` below this one, or None."""
        node: Node | None = self
        for step in path:
            member = node.member(step) if node else None
            node = member.node if member else None
        return node

    def member(self, step: str | int) -> "Member | None":
        """The member of that name (the last one counts, as in every JSON parser), or the element of that number."""
        if isinstance(step, int):
            return self.members[step] if isinstance(self.value, list) and step < len(self.value) else None
        named = [member for member in self.members if member.key == step]
        return named[-1] if named else None


@dataclass(frozen=True)
class Member:
    """A member or element: `start` is where its key (or value) starts, `comma` where the comma after it is."""

    key: str | None
    start: int
    node: Node
    comma: int | None

    @property
    def end(self) -> int:
        """Where it ends, its comma included."""
        return self.node.end if self.comma is None else self.comma + 1


def parse(text: str) -> Node:
    """The text's one value. Raises JsoncError with line and column."""
    reader = _Reader(text)
    reader.skip()
    node = reader.value(0)
    reader.skip()
    if reader.at < len(text):
        reader.fail("something follows the value")
    return node


def at(text: str, path: Path) -> Node:
    """The node at `path`. Raises LookupError if there is none."""
    node = parse(text).find(path)
    if node is None:
        raise LookupError(path)
    return node


def raw(text: str, path: Path) -> str | None:
    """The text of the value at `path`, None if there is none."""
    node = parse(text).find(path)
    return None if node is None else text[node.start : node.end]


def replace(text: str, path: Path, with_text: str) -> str:
    """The text with the value at `path`, which must be there, written as `with_text`."""
    node = at(text, path)
    return text[: node.start] + with_text + text[node.end :]


def put(text: str, path: Path, value: Any) -> str:
    """The text with `value` at `path`; objects on the way there are made.

    Raises JsoncError if something on the way is no object.
    """
    parent = parse(text)
    for depth, step in enumerate(path):
        member = parent.member(step)
        if member is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            if not isinstance(parent.value, dict):
                raise JsoncError(f"{'.'.join(map(str, path[:depth])) or 'the document'} is not an object")
            return _insert(text, parent, json.dumps(step, ensure_ascii=False) + ": ", value)
        parent = member.node
    return text[: parent.start] + _written(text, parent.start, value) + text[parent.end :]


def append(text: str, path: Path, value: Any) -> str:
    """The text with `value` as the last element of the array at `path`, which must be there."""
    node = parse(text).find(path)
    if node is None or not isinstance(node.value, list):
        raise JsoncError(f"{'.'.join(map(str, path))} is not an array")
    return _insert(text, node, "", value)


def remove(text: str, path: Path) -> str:
    """The text without the value at `path`, which must be there; the commas around it come right."""
    parent, target = at(text, path[:-1]), at(text, path)
    number = next(number for number, member in enumerate(parent.members) if member.node.start == target.start)
    member = parent.members[number]
    if (
        len(parent.members) == 1
        and not (text[parent.start + 1 : member.start] + text[member.end : parent.end - 1]).strip()
    ):
        return text[: parent.start + 1] + text[parent.end - 1 :]
    start = _before_space(text, member.start)
    before, after = text[:start], text[member.end :]
    if member.comma is None and number > 0:
        comma = parent.members[number - 1].end - 1
        before = text[:comma] + text[comma + 1 : start]
    if _ends_in_line_comment(text, parent.start, start) and not re.match(r"[ \t]*(\r?\n|$)", after):
        before += _newline(text)
    return before + after


def _insert(text: str, parent: Node, key: str, value: Any) -> str:
    """The text with a new last member of `parent`, in the manner of those that are there."""
    inside = text[parent.start : parent.end]
    newline = _newline(text)
    if not parent.members:
        close = parent.end - 1
        at = _before_space(text, close)
        indent = _line_indent(text, parent.start) + _unit(text)
        last = "" if "\n" in text[at:close] else newline + _line_indent(text, parent.start)
        return f"{text[:at]}{newline}{indent}{key}{_dumped(text, value, indent)}{last}{text[at:]}"
    last_member = parent.members[-1]
    if "\n" not in inside:
        piece = key + json.dumps(value, ensure_ascii=False)
        if last_member.comma is not None:
            return f"{text[: last_member.end]} {piece},{text[last_member.end :]}"
        return f"{text[: last_member.end]}, {piece}{text[last_member.end :]}"
    indent = _member_indent(text, parent)
    line = newline + indent + key + _dumped(text, value, indent)
    remark = _SAME_LINE.match(text, last_member.end)
    at = last_member.end + len(remark[0].rstrip()) if remark else last_member.end
    if last_member.comma is not None:
        return text[:at] + line + "," + text[at:]
    return text[: last_member.end] + "," + text[last_member.end : at] + line + text[at:]


def _member_indent(text: str, parent: Node) -> str:
    for member in reversed(parent.members):
        start = _line_start(text, member.start)
        if not text[start : member.start].strip(" \t\ufeff"):
            return text[start : member.start].lstrip("\ufeff")
    return _line_indent(text, parent.start) + _unit(text)


def _written(text: str, at: int, value: Any) -> str:
    return _dumped(text, value, _line_indent(text, at))


def _dumped(text: str, value: Any, indent: str) -> str:
    """`value` as JSON in the text's own manner, its further lines indented below `indent`."""
    lines = json.dumps(value, ensure_ascii=False, indent=_unit(text)).split("\n")
    return (_newline(text) + indent).join(lines)


def _unit(text: str) -> str:
    """One level of indentation, as the document's first indented line has it."""
    found = re.search(r"\n([ \t]+)\S", text)
    if found is None:
        return "  "
    return "\t" if found[1].startswith("\t") else found[1]


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_indent(text: str, at: int) -> str:
    found = re.compile(r"\ufeff?([ \t]*)").match(text, _line_start(text, at))
    return found[1] if found else ""


def _before_space(text: str, at: int) -> int:
    while at > 0 and text[at - 1] in " \t\r\n":
        at -= 1
    return at


def _ends_in_line_comment(text: str, start: int, end: int) -> bool:
    """Whether the last thing of text[start:end] that is no space is a `//` comment."""
    at = start
    last = ""
    while at < end:
        found = _LITERAL.match(text, at) or _COMMENT.match(text, at)
        last = found[0] if found else text[at] if text[at].strip() else last
        at = found.end() if found else at + 1
    return last.startswith("//")


class _Reader:
    """Reads one document from left to right; `at` is where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def skip(self) -> None:
        """Past space and comments."""
        while True:
            space = _SPACE.match(self._text, self.at)
            self.at = space.end() if space else self.at
            comment = _COMMENT.match(self._text, self.at)
            if comment is None:
                return
            self.at = comment.end()

    def fail(self, problem: str) -> NoReturn:
        line = self._text.count("\n", 0, self.at) + 1
        column = self.at - _line_start(self._text, self.at) + 1
        raise JsoncError(f"line {line}, column {column}: {problem}")

    def value(self, depth: int) -> Node:
        if depth > DEEPEST:
            self.fail(f"it is nested more than {DEEPEST} levels deep")
        start = self.at
        if self._next() in ("{", "["):
            return self._container(start, depth)
        literal = _LITERAL.match(self._text, start)
        if literal is None:
            self.fail("a value is missing" if start < len(self._text) else "it ends too early")
        try:
            value = json.loads(literal[0])
        except ValueError:
            self.fail(f"{literal[0]} is no JSON value")
        self.at = literal.end()
        return Node(start, self.at, value)

    def _container(self, start: int, depth: int) -> Node:
        is_object = self._next() == "{"
        close = "}" if is_object else "]"
        self.at += 1
        members: list[Member] = []
        while True:
            self.skip()
            if self._next() == close:
                self.at += 1
                break
            if members and members[-1].comma is None:
                self.fail(f"a comma or {close} is missing")
            begin = self.at
            key = self._key(depth) if is_object else None
            node = self.value(depth + 1)
            after = self.at
            self.skip()
            comma = self.at if self._next() == "," else None
            self.at = after if comma is None else self.at + 1
            members.append(Member(key, begin, node, comma))
        value: Any = [member.node.value for member in members]
        if is_object:
            value = {member.key: member.node.value for member in members}
        return Node(start, self.at, value, tuple(members))

    def _key(self, depth: int) -> str:
        if self._next() != '"':
            self.fail("a name in double quotes is missing" if self._next() else "it ends too early")
        name = self.value(depth).value
        self.skip()
        if self._next() != ":":
            self.fail("a colon is missing")
        self.at += 1
        self.skip()
        return str(name)

    def _next(self) -> str:
        return self._text[self.at : self.at + 1]
