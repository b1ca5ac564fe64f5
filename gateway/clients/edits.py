"""What is to be in a client's config, how it gets there, and how exactly that is taken back. Pure: text in, text out.

An edit remembers the text it replaced. Taking it back leaves alone whatever was changed by hand since.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.clients import jsonc


@dataclass(frozen=True)
class Put:
    """This value stands at this path."""

    path: tuple[str, ...]
    value: Any


@dataclass(frozen=True)
class Include:
    """The array at this path holds these elements, besides what else it holds."""

    path: tuple[str, ...]
    items: tuple[Any, ...]


Wish = Put | Include


@dataclass(frozen=True)
class Edit:
    """What was done at `path`: `before` is the text of the value that stood there (None: nothing did), `after` the
    value now."""

    path: tuple[str, ...]
    before: str | None
    after: Any


class Applied(NamedTuple):
    """The new text, and the edits that made it."""

    text: str
    edits: tuple[Edit, ...]


class Undone(NamedTuple):
    """The text without the edits, and the paths that were left because they were changed since."""

    text: str
    left: tuple[str, ...]


def apply(text: str, wishes: Sequence[Wish]) -> Applied:
    """`text` with every wish fulfilled. What is as wished already is no edit. Raises JsoncError."""
    edits: list[Edit] = []
    for wish in wishes:
        node = jsonc.parse(text).find(wish.path)
        if isinstance(wish, Include) and node is not None and isinstance(node.value, list):
            missing = [item for item in wish.items if item not in node.value]
            new = text
            for item in missing:
                new = jsonc.append(new, wish.path, item)
            after: Any = [*node.value, *missing]
        else:
            after = list(wish.items) if isinstance(wish, Include) else wish.value
            new = text if node is not None and _same(node.value, after) else jsonc.put(text, wish.path, after)
        if new != text:
            place = _place(text, wish.path)
            edits.append(Edit(place, jsonc.raw(text, place), jsonc.at(new, place).value))
            text = new
    return Applied(text, tuple(edits))


def undo(text: str, edits: Sequence[Edit]) -> Undone:
    """`text` without the edits, the last one first. Raises JsoncError if the text can no longer be parsed."""
    left: list[str] = []
    for edit in reversed(edits):
        text = _undo(text, edit, left)
    return Undone(text, tuple(left))


def holds(text: str, edits: Sequence[Edit]) -> bool:
    """Whether all that the edits wrote still stands in `text`."""
    root = jsonc.parse(text)
    return all(_within(edit.after, node.value) if (node := root.find(edit.path)) else False for edit in edits)


def _undo(text: str, edit: Edit, left: list[str]) -> str:
    node = jsonc.parse(text).find(edit.path)
    if node is None:
        if edit.before is not None:
            left.append(_dotted(edit.path))
        return text
    if _same(node.value, edit.after):
        if edit.before is not None:
            return jsonc.replace(text, edit.path, edit.before)
        return jsonc.remove(text, edit.path)
    before = jsonc.parse(edit.before).value if edit.before is not None else type(edit.after)()
    if isinstance(node.value, dict) and isinstance(edit.after, dict) and isinstance(before, dict):
        return _undo_members(text, edit, before, left)
    if isinstance(node.value, list) and isinstance(edit.after, list) and isinstance(before, list):
        return _undo_elements(text, edit, before)
    left.append(_dotted(edit.path))
    return text


def _undo_members(text: str, edit: Edit, before: dict[str, Any], left: list[str]) -> str:
    """The object was changed by hand too: take back ours member by member."""
    for key, value in edit.after.items():
        if key in before and _same(before[key], value):
            continue
        old = jsonc.raw(edit.before, (key,)) if edit.before is not None and key in before else None
        text = _undo(text, Edit((*edit.path, key), old, value), left)
    node = jsonc.parse(text).find(edit.path)
    if edit.before is None and node is not None and node.value == {} and edit.path:
        return jsonc.remove(text, edit.path)
    return text


def _undo_elements(text: str, edit: Edit, before: list[Any]) -> str:
    """The array was changed by hand too: take out the elements that are ours."""
    for item in edit.after:
        present = jsonc.at(text, edit.path).value
        if item not in before and item in present:
            text = jsonc.remove(text, (*edit.path, present.index(item)))
    return text


def _place(text: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """Where an edit at `path` is remembered: the first thing missing on the way, or an empty object that it fills.

    An empty object is remembered whole, since its inner space cannot be told from ours afterwards.
    """
    root = jsonc.parse(text)
    for depth in range(len(path)):
        node = root.find(path[:depth])
        if node is None or (isinstance(node.value, dict) and not node.members):
            return path[:depth]
        if node.member(path[depth]) is None:
            return path[: depth + 1]
    return path


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: True is not 1, and the order of members does not matter."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _within(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(key in theirs and _within(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, list) and isinstance(theirs, list):
        return all(item in theirs for item in ours)
    return _same(ours, theirs)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the whole file"
