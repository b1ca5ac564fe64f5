"""In which order tools are put before a model. Pure: the same tools, seed and step give the same order.

Claude Code sends its own tools alphabetically and then those of MCP servers by full name; OpenCode sends one
alphabetical list in which an MCP tool stands under its server's name. Seen on the wire of 2.1.197 and 1.18.33.
"""

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

from agents.tool_host import Tool
from toolkit.core.errors import UsageError

T = TypeVar("T")


class Order(Protocol):
    """Puts tools in order for step number `step` of a run; most orders are the same at every step."""

    def __call__(self, tools: Sequence[Tool], step: int = 0) -> list[Tool]: ...


def as_given(tools: Sequence[Tool], step: int = 0) -> list[Tool]:
    """As the servers list them."""
    return list(tools)


def alphabetical(tools: Sequence[Tool], step: int = 0) -> list[Tool]:
    """By name."""
    return sorted(tools, key=lambda tool: tool.name)


def claude_code(tools: Sequence[Tool], step: int = 0) -> list[Tool]:
    """As Claude Code sends them: its own by name, then `mcp__server__tool` by that name."""
    return sorted(tools, key=lambda tool: (bool(tool.server), f"mcp__{tool.server}__{tool.name}", tool.name))


def opencode(tools: Sequence[Tool], step: int = 0) -> list[Tool]:
    """As OpenCode sends them: one list by name, MCP tools as `server_tool`."""
    return sorted(tools, key=lambda tool: f"{tool.server}_{tool.name}" if tool.server else tool.name)


def shuffled(seed: int, *, each_step: bool = False) -> Order:
    """At random from `seed`: once for a run, or anew at every step."""

    def order(tools: Sequence[Tool], step: int = 0) -> list[Tool]:
        drawn = list(tools)
        random.Random(f"{seed}:{step if each_step else 0}").shuffle(drawn)  # noqa: S311
        return drawn

    return order


def permutation(indices: Sequence[int]) -> Order:
    """`indices[i]` is where the tool that comes i-th stood as given. Raises UsageError if it does not fit the tools."""

    def order(tools: Sequence[Tool], step: int = 0) -> list[Tool]:
        return permuted(tools, indices)

    return order


def permuted(items: Sequence[T], indices: Sequence[int]) -> list[T]:
    """`items` in the order of `indices`. Raises UsageError unless each item is named once."""
    if sorted(indices) != list(range(len(items))):
        raise UsageError(
            f"{list(indices)} is not an order of {len(items)} tools",
            hint=f"name each of 0 to {len(items) - 1} once, for example {','.join(str(i) for i in range(len(items)))}",
        )
    return [items[index] for index in indices]


def named(name: str, *, seed: int = 0) -> Order:
    """The order a person named: `as-given`, `alphabetical`, `claude-code`, `opencode`, `shuffle`, `shuffle-each-step`,
    or a permutation such as `2,0,1`."""
    fixed = {"as-given": as_given, "alphabetical": alphabetical, "claude-code": claude_code, "opencode": opencode}
    if name in fixed:
        return fixed[name]
    if name in ("shuffle", "shuffle-each-step"):
        return shuffled(seed, each_step=name == "shuffle-each-step")
    try:
        return permutation([int(part) for part in name.split(",")])
    except ValueError:
        known = ", ".join([*fixed, "shuffle", "shuffle-each-step"])
        raise UsageError(f"there is no order named {name}; there are {known}", "--order shuffle --seed 7") from None
