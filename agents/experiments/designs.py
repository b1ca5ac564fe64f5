"""Which orders of the tools each task sees, and in which sequence they are asked. Pure: the same suite, design and
seed give the same cells. Knows nothing of models or results.

A block is one task under several orders in which each tool stands once in each group of positions. The base order
is drawn anew for each task: one base for all would confound a position with the tool that always stands before it.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from agents import orders
from agents.experiments.arms import ARMS, DUPLICATE, PLAIN, copy_of
from agents.experiments.experiment import Design
from agents.experiments.suites import Suite, Task
from agents.tool_host import Tool
from toolkit.core.errors import UsageError

MANY = 8  # with more tools than this, positions are grouped
FREE_BASES = 6  # up to so many tools, each task draws its own base; beyond, from a pool, to share prompts
POOL = 8
PRODUCTION = {
    "as-given": orders.as_given,
    "alphabetical": orders.alphabetical,
    "claude-code": orders.claude_code,
    "opencode": orders.opencode,
}


@dataclass(frozen=True)
class Cell:
    """One question to ask: a task under one order. `step` names the order within the task's block, `repeat` counts
    how often the same was asked before, `target` is the tool that the arm dresses. `groups` is how many groups of
    positions the block balances (the number of tools, unless there are many)."""

    task: str
    arm: str
    step: str
    repeat: int
    order: tuple[str, ...]
    groups: int
    target: str | None = None

    @property
    def key(self) -> tuple[str, str, str, int]:
        return (self.task, self.arm, self.step, self.repeat)


def cells(
    suite: Suite, sets: Mapping[str, Mapping[str, Tool]], design: Design, arms: Sequence[str], seed: int
) -> list[Cell]:
    """All cells of an experiment, in the sequence in which they should be asked. Raises UsageError for a design
    that does not fit the suite."""
    for arm in arms:
        if arm not in ARMS:
            raise UsageError(
                f"there is no arm named {arm}; there are {', '.join(ARMS)}", hint=f"--arm {next(iter(ARMS))}"
            )
    planned: list[Cell] = []
    bases = _bases(suite, design, seed)
    met: dict[tuple[str, str], int] = {}
    for task in suite.tasks:
        base = bases[task.id]
        turn = met[task.set, task.right] = met.get((task.set, task.right), -1) + 1
        plain = _block(task, base, sets[task.set], design, seed)
        planned += plain
        planned += _repeats(plain, design.repeats, seed)
        for number, arm in enumerate(arms):
            start = task.tools.index(task.right) if task.right in task.tools else 0
            target = task.tools[(start + turn + number) % len(task.tools)]
            if arm == DUPLICATE:
                planned += _twin_block(task, base, target, turn)
            else:
                planned += [Cell(c.task, arm, c.step, 0, c.order, c.groups, target) for c in plain]
    return in_sequence(planned)


def pool_size(design: Design, count: int) -> int | None:
    """From how many base orders, dealt out evenly, the tasks over `count` tools draw theirs; None: each has its own.
    Tasks that share an order share its chances, so together they are one sampling unit (see `table.units`)."""
    if design.kind not in ("rotation", "williams"):
        return None  # no base that lasts: every order, orders drawn for each task, or those that clients send
    return design.bases or (None if count <= FREE_BASES else POOL)


def in_sequence(planned: Sequence[Cell]) -> list[Cell]:
    """Cells in the sequence that shares the longest prompts: arm by arm, orders sorted so that neighbours begin with
    the same tools, all tasks of an order before the next. Repeats come last, far from what they repeat."""
    return sorted(planned, key=lambda cell: (cell.repeat, cell.arm, cell.target or "", cell.order, cell.task))


def groups_of(count: int, wanted: int | None) -> int:
    """How many groups the positions of `count` tools fall into: all of them, or the largest divisor up to MANY.
    Raises UsageError if `wanted` does not divide `count`."""
    if wanted is not None:
        if count % wanted:
            fitting = [n for n in range(2, count + 1) if count % n == 0]
            raise UsageError(
                f"{count} tools cannot be balanced over {wanted} groups of positions",
                hint=f"--positions {max(n for n in fitting if n <= max(wanted, fitting[0]))}",
            )
        return wanted
    if count <= MANY:
        return count
    return max((n for n in range(4, MANY + 1) if count % n == 0), default=count)


def williams(count: int) -> list[tuple[int, ...]]:
    """Orders in which each item stands once (twice, for an odd count) at each place and directly after each other
    item equally often (E. J. Williams, Australian Journal of Scientific Research A 2, 1949)."""
    first = [0] * count
    for place in range(1, count):
        first[place] = (place + 1) // 2 if place % 2 else count - place // 2
    rows = [tuple((item + shift) % count for item in first) for shift in range(count)]
    return rows if count % 2 == 0 else rows + [tuple(reversed(row)) for row in rows]


def _bases(suite: Suite, design: Design, seed: int) -> dict[str, tuple[str, ...]]:
    """A base order for each task: its own, or one of a pool that is dealt out evenly."""
    bases: dict[str, tuple[str, ...]] = {}
    by_tools: dict[tuple[str, ...], list[Task]] = {}
    for task in suite.tasks:
        by_tools.setdefault(task.tools, []).append(task)
    for tools, tasks in by_tools.items():
        pool = pool_size(design, len(tools))
        if pool is None:
            bases |= {task.id: _shuffled(tools, f"{seed}:{task.id}") for task in tasks}
            continue
        drawn = [_shuffled(tools, f"{seed}:base:{number}") for number in range(pool)]
        dealt = _shuffled(tuple(task.id for task in tasks), f"{seed}:deal")
        bases |= {identity: drawn[number % pool] for number, identity in enumerate(dealt)}
    return bases


def _block(task: Task, base: tuple[str, ...], tools: Mapping[str, Tool], design: Design, seed: int) -> list[Cell]:
    count = len(base)
    groups = count
    listed: dict[str, tuple[str, ...]]
    if design.kind == "rotation":
        groups = groups_of(count, design.positions)
        step = count // groups
        listed = {str(turn): base[turn * step :] + base[: turn * step] for turn in range(groups)}
    elif design.kind == "williams":
        listed = {str(n): tuple(base[item] for item in row) for n, row in enumerate(williams(count))}
    elif design.kind == "permutations":
        if count > 6:
            raise UsageError(
                f"{count} tools have {math.factorial(count):,} orders: too many to try them all",
                hint="--design rotation",
            )
        listed = {str(n): order for n, order in enumerate(permutations(base))}
    elif design.kind == "random":
        listed = {str(n): _shuffled(base, f"{seed}:{task.id}:{n}") for n in range(design.n or 10)}
    else:
        offered = [tools[name] for name in task.tools]
        listed = {name: tuple(tool.name for tool in order(offered)) for name, order in PRODUCTION.items()}
    return [Cell(task.id, PLAIN, step, 0, order, groups) for step, order in listed.items()]


def _twin_block(task: Task, base: tuple[str, ...], target: str, turn: int) -> list[Cell]:
    """Rotations of the tools and a copy of `target`, half the circle away, so that each of the two comes first
    equally often (for an even number of tools: over two neighbouring tasks)."""
    copy = copy_of(target)
    size = len(base) + 1
    start = base.index(target)
    circle = base[start:] + base[:start]
    away = size // 2 + (turn % 2 if size % 2 else 0)
    circle = (*circle[:away], copy, *circle[away:])
    return [
        Cell(task.id, DUPLICATE, str(shift), 0, circle[shift:] + circle[:shift], size, target) for shift in range(size)
    ]


def _repeats(block: Sequence[Cell], share: float, seed: int) -> list[Cell]:
    """Cells asked a second time in the same order: at least one of each task, unless none are wanted."""
    if not share:
        return []
    count = max(1, round(share * len(block)))
    chosen = random.Random(f"{seed}:{block[0].task}:repeat").sample(range(len(block)), count)  # noqa: S311
    return [
        Cell(cell.task, cell.arm, cell.step, 1, cell.order, cell.groups)
        for number, cell in enumerate(block)
        if number in chosen
    ]


def _shuffled(items: tuple[str, ...], seed: str) -> tuple[str, ...]:
    drawn = list(items)
    random.Random(seed).shuffle(drawn)  # noqa: S311
    return tuple(drawn)
