"""Reads the hand-written data files in `kinds/`: what tools exist, how people describe them and how they ask for them.

Knows nothing of conversations, tokens or models. The format is explained in `kinds/README.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

KINDS = Path(__file__).parent / "kinds"
WHOLE = "request"  # the slot of an argument that takes the request as it was said; it stands in no template
PLACEHOLDER = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Argument:
    """One argument of a kind of tool: the names a developer may give it, and the slot its values come from."""

    names: tuple[str, ...]
    slot: str
    required: bool = True

    @property
    def key(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Kind:
    """What a tool does, in the several ways in which developers name and describe it and users ask for it."""

    name: str
    group: str
    arguments: tuple[Argument, ...]
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    requests: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    kinds: tuple[Kind, ...]
    slots: dict[str, tuple[str, ...]]
    verbs: tuple[tuple[str, ...], ...]
    nouns: tuple[tuple[str, ...], ...]
    systems: tuple[str, ...]
    chats: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    results: tuple[str, ...]
    tails: tuple[str, ...]
    contexts: tuple[str, ...]
    facts: tuple[str, ...]
    acts: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    by_name: dict[str, Kind] = field(repr=False, default_factory=dict)


def alternatives(text: str, separator: str = "|") -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(separator) if part.strip())


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip()


def _arguments(text: str) -> tuple[Argument, ...]:
    found = []
    for part in alternatives(text, ","):
        names, _, slot = part.partition("=")
        found.append(Argument(tuple(names.rstrip("?").split("/")), slot, not names.endswith("?")))
    return tuple(found)


def parse_kinds(path: Path) -> list[Kind]:
    """Kinds of one file; each is a block of lines `@ name : arguments`, `n names`, `d descriptions`, `r requests`."""
    blocks: list[dict[str, str]] = []
    for line in _lines(path):
        mark, _, rest = line.partition(" ")
        if mark == "@":
            name, _, arguments = rest.partition(":")
            blocks.append({"@": name.strip(), "a": arguments.strip()})
        elif mark in "ndr":
            blocks[-1][mark] = f"{blocks[-1][mark]} | {rest}" if mark in blocks[-1] else rest
        else:
            raise ValueError(f"{path.name}: line starts with neither @, n, d nor r: {line!r}")
    return [_kind(block, path) for block in blocks]


def _kind(block: dict[str, str], path: Path) -> Kind:
    arguments = _arguments(block["a"])
    names = tuple(block["n"].replace(",", " ").split())
    kind = Kind(block["@"], path.stem, arguments, names, alternatives(block["d"]), alternatives(block["r"]))
    keys = {argument.key for argument in arguments}
    must = {argument.key for argument in arguments if argument.required and argument.slot != WHOLE}
    for request in kind.requests:
        used = set(PLACEHOLDER.findall(request))
        # Beside an argument that takes the whole request, the template may fill in any other slot.
        if (used - keys and not any(argument.slot == WHOLE for argument in arguments)) or must - used:
            raise ValueError(
                f"{path.name}: {kind.name}: {request!r} must use {sorted(must)} and may use {sorted(keys)}"
            )
    return kind


def parse_groups(path: Path) -> tuple[tuple[str, ...], ...]:
    return tuple(alternatives(line, ",") for line in _lines(path))


def parse_slots(path: Path) -> dict[str, tuple[str, ...]]:
    slots = {}
    for line in _lines(path):
        name, _, values = line.partition(":")
        slots[name.strip()] = alternatives(values)
    return slots


def parse_entities(path: Path) -> list[Kind]:
    """Compositional kinds: every entity (a thing records are kept of) under every action that suits it."""
    actions: dict[str, tuple[tuple[Argument, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {}
    kinds = []
    for line in _lines(path):
        mark, _, rest = line.partition(" ")
        if mark == "action":
            name, arguments, names, descriptions, requests = (part.strip() for part in rest.split(" ; "))
            split = (alternatives(names, ","), alternatives(descriptions), alternatives(requests))
            actions[name] = (_arguments(arguments), *split)
        elif mark == "entity":
            nouns, about, chosen = (part.strip() for part in rest.split(" ; "))
            for action in chosen.split():
                kinds.append(_compose(alternatives(nouns, ","), about, action, *actions[action]))
        else:
            raise ValueError(f"{path.name}: line starts with neither action nor entity: {line!r}")
    return kinds


def _compose(
    nouns: tuple[str, ...],
    about: str,
    action: str,
    arguments: tuple[Argument, ...],
    names: tuple[str, ...],
    descriptions: tuple[str, ...],
    requests: tuple[str, ...],
) -> Kind:
    def fill(templates: tuple[str, ...], snake: bool = False) -> tuple[str, ...]:
        return tuple(
            template.replace("<s>", plural(noun)).replace("<>", noun).replace("<about>", about).replace(" ", "_")
            if snake
            else template.replace("<s>", plural(noun)).replace("<>", noun).replace("<about>", about)
            for template in templates
            for noun in nouns
        )

    return Kind(
        f"{action}_{nouns[0].replace(' ', '_')}",
        f"entity:{nouns[0]}",
        arguments,
        fill(names, snake=True),
        fill(descriptions),
        fill(requests),
    )


def plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def parse_pairs(path: Path, separator: str) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Pairs of alternatives, one per line: of what people say and what may be answered, or of verbs and things."""
    pairs = []
    for line in _lines(path):
        left, _, right = line.partition(separator)
        pairs.append((alternatives(left), alternatives(right)))
    return tuple(pairs)


@lru_cache(maxsize=1)
def load(folder: Path = KINDS) -> Catalogue:
    """The whole catalogue. Raises ValueError naming file and kind where a data file is inconsistent."""
    kinds: list[Kind] = []
    for path in sorted((folder / "tools").glob("*.txt")):
        kinds += parse_kinds(path)
    kinds += parse_entities(folder / "entities.txt")
    slots = parse_slots(folder / "slots.txt")
    by_name = {kind.name: kind for kind in kinds}
    if len(by_name) != len(kinds):
        names = [kind.name for kind in kinds]
        raise ValueError(f"kinds written twice: {sorted({name for name in names if names.count(name) > 1})}")
    return Catalogue(
        kinds=tuple(kinds),
        slots=slots,
        verbs=parse_groups(folder / "verbs.txt"),
        nouns=parse_groups(folder / "nouns.txt"),
        systems=tuple(_lines(folder / "systems.txt")),
        chats=parse_pairs(folder / "chats.txt", "=>"),
        results=tuple(_lines(folder / "results.txt")),
        tails=tuple(_lines(folder / "tails.txt")),
        contexts=tuple(_lines(folder / "contexts.txt")),
        facts=tuple(_lines(folder / "facts.txt")),
        acts=parse_pairs(folder / "acts.txt", ">"),
        by_name=by_name,
    )
