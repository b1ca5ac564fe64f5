"""Trials of one model and arm as arrays, the form in which everything is measured. Built from trials, or by a
simulation that plants the truth.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.experiments.scoring import CHOICES, OUTCOMES
from agents.experiments.trials import Trial

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """N trials. `task` counts tasks from 0; `size` is the number of tools offered, `groups` that of the groups of
    positions; `chosen` and `right` are indices in the order (-1: none); `chosen_tool` and `right_tool` index `tools`
    (-1: none); `outcome` indexes OUTCOMES; `order` is (N, widest), the tool at each place, padded with -1;
    `probabilities` is (N, widest) or None. `unit` (a number for each task, from 0) says which tasks share the chances
    of their orders and are one sampling unit together; None: each task is one."""

    tasks: tuple[str, ...]
    tools: tuple[str, ...]
    task: Ints
    size: Ints
    groups: Ints
    order: Ints
    chosen: Ints
    right: Ints
    chosen_tool: Ints
    right_tool: Ints
    outcome: Ints
    probabilities: Floats | None = None
    unit: Ints | None = None

    def __len__(self) -> int:
        return len(self.task)

    @property
    def units(self) -> int:
        """How many sampling units there are."""
        return len(self.tasks) if self.unit is None else int(self.unit.max(initial=-1)) + 1

    @property
    def chose(self) -> Bools:
        """Where an offered tool was chosen by a sound call."""
        chose: Bools = self.chosen >= 0
        return chose

    @property
    def correct(self) -> Bools:
        correct: Bools = self.outcome == OUTCOMES.index("right")
        return correct

    @property
    def weights(self) -> Floats:
        """(N, widest): how much of each trial's choice fell on each place in the order: probabilities where they are
        known, else 1 for the tool that was chosen."""
        if self.probabilities is not None:
            return self.probabilities
        weights = np.zeros(self.order.shape)
        rows = np.flatnonzero(self.chose)
        weights[rows, self.chosen[rows]] = 1.0
        return weights

    @property
    def place_effects(self) -> Floats:
        """(N, places): what fell on each group of positions, less an equal share of what fell on any tool; NaN
        where a trial has no such group."""
        weights = self.weights
        places = np.arange(self.places)
        group = np.arange(self.order.shape[1])[None, :] * self.groups[:, None] // np.maximum(self.size, 1)[:, None]
        fell = np.stack([np.where(group == place, weights, 0.0).sum(1) for place in places], 1)
        effects = fell - weights.sum(1, keepdims=True) / self.groups[:, None]
        return np.where(places[None, :] < self.groups[:, None], effects, np.nan)

    @property
    def place(self) -> Ints:
        """The group of positions that was chosen, -1 for none."""
        return np.where(self.chose, self.chosen * self.groups // self.size, -1)

    @property
    def right_place(self) -> Ints:
        """The group of positions where the right tool stood, -1 where there is none."""
        return np.where(self.right >= 0, self.right * self.groups // self.size, -1)

    @property
    def places(self) -> int:
        """The largest number of groups."""
        return int(self.groups.max(initial=0))


def table(trials: Sequence[Trial], pool: Callable[[int], int | None] = lambda count: None) -> Table:
    """The table of `trials` (one model, one arm, one repeat), sorted by task and step, so that equal trials give an
    equal table whatever the sequence in which they ended. `pool` tells for a number of tools from how many base orders
    the tasks drew theirs (`designs.pool_size`)."""
    held = sorted(trials, key=lambda trial: (trial.task, trial.step, trial.repeat))
    tasks = tuple(sorted({trial.task for trial in held}))
    tools = tuple(sorted({name for trial in held for name in trial.order}))
    task_of = {name: number for number, name in enumerate(tasks)}
    tool_of = {name: number for number, name in enumerate(tools)}
    widest = max((len(trial.order) for trial in held), default=0)

    def ints(values: Sequence[int]) -> Ints:
        return np.array(values, dtype=np.int64)

    order = np.full((len(held), widest), -1, dtype=np.int64)
    exact = bool(held) and all(trial.probabilities is not None for trial in held)
    probabilities = np.zeros((len(held), widest)) if exact else None
    for row, trial in enumerate(held):
        order[row, : len(trial.order)] = [tool_of[name] for name in trial.order]
        if probabilities is not None and trial.probabilities is not None:
            probabilities[row, : len(trial.order)] = trial.probabilities
    chosen = [trial.chosen_index if trial.outcome in CHOICES else None for trial in held]
    return Table(
        tasks=tasks,
        tools=tools,
        task=ints([task_of[trial.task] for trial in held]),
        size=ints([len(trial.order) for trial in held]),
        groups=ints([trial.groups for trial in held]),
        order=order,
        chosen=ints([-1 if index is None else index for index in chosen]),
        right=ints([-1 if trial.right_index is None else trial.right_index for trial in held]),
        chosen_tool=ints([-1 if i is None else tool_of[t.order[i]] for t, i in zip(held, chosen, strict=True)]),
        right_tool=ints([tool_of.get(trial.right, -1) for trial in held]),
        outcome=ints([OUTCOMES.index(trial.outcome) for trial in held]),
        probabilities=probabilities,
        unit=_units(held, pool),
    )


def unit_of(trials: Sequence[Trial], pool: Callable[[int], int | None]) -> dict[str, Hashable]:
    """The sampling unit of each task: its own name, or the orders it was asked under where it drew them from a pool."""
    orders: dict[str, set[tuple[str, ...]]] = {}
    for trial in trials:
        orders.setdefault(trial.task, set()).add(trial.order)
    return {task: frozenset(own) if pool(len(next(iter(own)))) else task for task, own in orders.items()}


def _units(held: Sequence[Trial], pool: Callable[[int], int | None]) -> Ints | None:
    """For each task, in the sequence of their names, the number of its unit; None where each is one."""
    units = [unit for _, unit in sorted(unit_of(held, pool).items(), key=lambda item: item[0])]
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    if len(numbers) == len(units):
        return None
    return np.array([numbers[unit] for unit in units], dtype=np.int64)
