"""From samples to statements: intervals clustered by task, the permutation test within tasks, Holm's correction,
power. Knows arrays and nothing of tools or models. Derivations and sources: docs/design/experiments.md.

Tasks are the sampling unit. Trials of one task are alike, and an interval that takes them as independent is too narrow
by far (64 % coverage where 95 % is written). Tasks that share their orders are one unit together, for the same reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from agents.experiments.table import Floats, Ints, Table

LEVEL = 0.95
DRAWS = 2000
FEW = 6  # tasks that moved; below, their variance says too little


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval; NaN where there is too little to say."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


def task_means(task: Ints, values: Floats, count: int) -> Floats:
    """Mean of `values` (N, or N x P) within each of `count` tasks; NaN for tasks without trials."""
    flat = values.reshape(len(task), int(np.prod(values.shape[1:])))
    sums = np.zeros((count, flat.shape[1]))
    np.add.at(sums, task, flat)
    sizes = np.bincount(task, minlength=count).astype(float)
    with np.errstate(invalid="ignore"):
        means: Floats = sums / np.where(sizes, sizes, np.nan)[:, None]
    return means.reshape(count, *values.shape[1:])


def unit_means(table: Table, per_task: Floats) -> Floats:
    """Tasks' values (tasks, or tasks x P) as values of the sampling units, NaN left out: the values themselves where
    each task is a unit, else `linear` in them, so that the mean stays that over tasks."""
    if table.unit is None:
        return per_task
    known = np.isfinite(per_task)
    sums, sizes = np.zeros((2, table.units, *per_task.shape[1:]))
    np.add.at(sums, table.unit, np.where(known, per_task, 0.0))
    np.add.at(sizes, table.unit, known)
    return linear(sums, sizes)


def linear(sums: Floats, sizes: Floats) -> Floats:
    """Units (along the first axis) of unequal sizes as values whose mean is the ratio of the totals and whose spread is
    that ratio's: the ratio plus what each unit moves it by. NaN for a unit of size 0."""
    with np.errstate(invalid="ignore"):
        ratio = sums.sum(0) / sizes.sum(0)
        moved = (sums - ratio * sizes) / (sizes.sum(0) / (sizes > 0).sum(0))
    values: Floats = np.where(sizes > 0, ratio + moved, np.nan)
    return values


def cluster_mean(per_unit: Floats, *, grain: float = 0.0) -> Estimate:
    """Mean over sampling units (tasks) with a t interval. `grain` is the least by which one trial could have moved a
    unit's value."""
    values = per_unit[~np.isnan(per_unit)]
    if len(values) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    error, freedom = _error(values, grain)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half)


def _error(values: Floats, grain: float) -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom, by Satterthwaite (Biometrics Bulletin 2, 1946) from the
    kurtosis: n - 1 for normal values, fewer where a few tasks hold all the variance, since that variance is then
    badly known. Where fewer than FEW tasks differ from the rest, one more that moved by `grain` either way is imagined:
    a sample in which nothing moved does not show that nothing can."""
    n = len(values)
    deviations = values - values.mean()
    if grain and np.count_nonzero(np.abs(values - np.median(values)) > grain / 1000) < FEW:
        deviations = np.append(deviations, [grain, -grain])
        scale = 0.5  # of the two, one is imagined
    else:
        scale = 1.0
    squares = float((deviations[:n] ** 2).sum() + scale * (deviations[n:] ** 2).sum())
    variance = squares / (n - 1)
    if variance <= 0:
        return 0.0, n - 1
    m = len(deviations)
    own = float(deviations.var(ddof=1))
    spread = (float((deviations**4).mean()) - own**2 * (m - 3) / (m - 1)) / m
    freedom = 2 * own**2 / spread if spread > 0 else m - 1.0
    return float(np.sqrt(variance / n)), float(np.clip(freedom, 1.0, n - 1))


def spread_in(estimate: Estimate, tasks: int) -> float:
    """The standard deviation between tasks that an interval of `cluster_mean` over so many stands for: more than the
    sample's own where that is badly known, and never 0 only because nothing happened to move."""
    if tasks < 2:
        return float("nan")
    return float(estimate.error / stats.t.ppf((1 + LEVEL) / 2, tasks - 1) * np.sqrt(tasks))


def cluster_share(per_unit: Floats, *, tasks: int | None = None) -> Estimate:
    """A share (0 to 1) over sampling units: Wilson's interval with as many trials as the clustered variance is worth
    (Korn and Graubard, Survey Methodology 24, 1998), so that it neither leaves 0..1 nor shrinks to a point at its
    ends; t instead of normal quantile. Where no unit differs from another it is worth as many trials as there are
    `tasks` (units, if not given)."""
    values = per_unit[~np.isnan(per_unit)]
    n = len(values)
    if n == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    share = float(values.mean())
    if n < 2:
        return Estimate(share, 0.0, 1.0)
    variance = float(values.var(ddof=1)) / n
    worth = share * (1 - share) / variance if variance > 0 else float(tasks or n)
    t = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    centre = (share + t * t / (2 * worth)) / (1 + t * t / worth)
    half = t / (1 + t * t / worth) * float(np.sqrt(share * (1 - share) / worth + t * t / (4 * worth**2)))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def share_of(table: Table, per_task: Floats) -> Estimate:
    """`cluster_share` of tasks' values over the table's sampling units."""
    return cluster_share(unit_means(table, per_task), tasks=int(np.isfinite(per_task).sum()))


def cluster_p(per_unit: Floats, *, grain: float = 0.0) -> float:
    """Two-sided p-value of the test that belongs to `cluster_mean`'s interval: is the mean 0?"""
    values = per_unit[~np.isnan(per_unit)]
    if len(values) < 2:
        return float("nan")
    error, freedom = _error(values, grain)
    mean = float(values.mean())
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean / error), freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false finding (Holm, Scandinavian Journal of Statistics 6, 1979).
    NaN stays NaN and does not count."""
    known = [(p, index) for index, p in enumerate(p_values) if not np.isnan(p)]
    adjusted = [float("nan")] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(sorted(known)):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = highest
    return adjusted


class Null(NamedTuple):
    """What a model that ignores the order would show: for each of the draws the effect of each place (draws x P),
    and the gap in accuracy between the right tool's best and worst place. `p_value` is that of all effects together.
    """

    effects: Floats
    gaps: Floats
    p_value: float


def permutation_test(table: Table, *, draws: int = DRAWS, seed: int = 0) -> Null:
    """Deal the orders of each task anew among its trials. If the order does not matter, every dealing is as likely
    as the one seen. The statistic is the sum of squared effects over places."""
    rng = np.random.default_rng(seed)
    blocks = _blocks(table)
    tasks = sum(len(block.moves) for block in blocks)
    places = table.places
    seen = np.zeros(places)
    effects = np.zeros((draws, places))
    hits = np.zeros((draws, places))
    stood = np.zeros((draws, places))
    for block in blocks:
        n, rows = block.moves.shape[:2]
        width = block.moves.shape[3]
        seen[:width] += block.moves[:, np.arange(rows), np.arange(rows)].mean(1).sum(0)
        one = np.arange(n)[:, None]
        for start in range(0, draws, 100):
            stop = min(start + 100, draws)
            deal = rng.random((stop - start, n, rows)).argsort(-1)
            moved = block.moves[one, np.arange(rows), deal]  # (draws, n, rows, width)
            effects[start:stop, :width] += moved.mean(2).sum(1)
            at = block.right[one, deal]  # the right tool's place under the dealt order
            for place in range(width):
                there = at == place
                hits[start:stop, place] += (there * block.correct).sum((1, 2))
                stood[start:stop, place] += there.sum((1, 2))
    if not tasks:
        return Null(effects, np.zeros(draws), float("nan"))
    seen, effects = seen / tasks, effects / tasks
    # Sums of equal shares differ in the last bits; a tie must count as one.
    reached = (effects**2).sum(1) >= (seen**2).sum() * (1 - 1e-9) - 1e-15
    with np.errstate(invalid="ignore"):
        accuracy = hits / np.where(stood, stood, np.nan)
    gaps = _gap(accuracy)
    return Null(effects, gaps, float((reached.sum() + 1) / (draws + 1)))


def power(effect: float, spread: float, tasks: int, *, level: float = 1 - LEVEL) -> float:
    """Chance that the t test over `tasks` finds an `effect`, if the tasks' values have standard deviation `spread`."""
    if tasks < 2:
        return 0.0
    if spread <= 0:
        return 1.0
    shift = effect / (spread / np.sqrt(tasks))
    bar = stats.t.ppf(1 - level / 2, tasks - 1)
    # Far from 0 the other tail comes back as NaN instead of nothing.
    return float(stats.nct.sf(bar, tasks - 1, shift) + np.nan_to_num(stats.nct.cdf(-bar, tasks - 1, shift)))


def detectable(spread: float, tasks: int, *, chance: float = 0.8) -> float:
    """The smallest effect that the t test over `tasks` finds with this chance."""
    if tasks < 2:
        return float("nan")
    if spread <= 0:
        return 0.0
    error = spread / np.sqrt(tasks)
    low, high = 0.0, 5 * error
    while power(high, spread, tasks) < chance:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, spread, tasks) >= chance else (middle, high)
    return float(high)


def expected_spread(accuracy: float, tools: int) -> float:
    """Standard deviation between tasks of one place's effect, before anything is measured: in a block of K orders each
    error takes a choice from the right tool's place to another, which gives variance 2 (1 - accuracy) / K^2, and at
    most that of choosing blindly, (K - 1) / K^3."""
    return float(np.sqrt(min(2 * (1 - accuracy) / tools**2, (tools - 1) / tools**3)))


@dataclass(frozen=True)
class _Block:
    """Tasks with equally many trials and tools. `moves` (n, R, R, P): effect on each place if the choice of trial r
    had been made under order s; `right` (n, R): the right tool's place in order s; `correct` (n, R)."""

    moves: Floats
    right: Ints
    correct: Floats


def _blocks(table: Table) -> list[_Block]:
    weights = table.weights
    starts = np.flatnonzero(np.diff(table.task, prepend=-1))
    ends = np.append(starts[1:], len(table.task))
    shapes: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for start, end in zip(starts, ends, strict=True):
        shape = (int(end - start), int(table.size[start]), int(table.groups[start]))
        shapes.setdefault(shape, []).append((int(start), int(end)))
    blocks = []
    for (rows, size, groups), spans in shapes.items():
        index = np.array([np.arange(start, end) for start, end in spans])  # (n, R)
        order = table.order[index][:, :, :size]
        # In each task's own numbering, tool k stands at place_of[n, s, k].
        place_of = order.argsort(-1) * groups // size
        chosen = np.take_along_axis(weights[index][:, :, :size], order.argsort(-1), -1)  # (n, R, K) by tool
        one_hot = np.eye(groups)[place_of]  # (n, S, K, P)
        moves = np.einsum("nrk,nskp->nrsp", chosen, one_hot)
        moves -= chosen.sum(-1)[:, :, None, None] / groups
        correct = table.correct[index].astype(float)
        blocks.append(_Block(moves, table.right_place[index], correct))
        assert rows == index.shape[1]  # noqa: S101
    return blocks


def _gap(accuracy: Floats) -> Floats:
    """Best minus worst along the last axis, places without trials left out."""
    filled_low = np.where(np.isnan(accuracy), np.inf, accuracy)
    filled_high = np.where(np.isnan(accuracy), -np.inf, accuracy)
    gap: Floats = filled_high.max(-1) - filled_low.min(-1)
    return np.where(np.isfinite(gap), gap, 0.0)
