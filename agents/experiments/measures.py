"""What is measured from a table of trials: effects of position, accuracy, precision and recall, flips, total
variation. Formulas and sources: docs/design/experiments.md. Knows nothing of files, models or pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agents.experiments.inference import (
    Estimate,
    Null,
    cluster_mean,
    cluster_p,
    detectable,
    permutation_test,
    share_of,
    spread_in,
    task_means,
    unit_means,
)
from agents.experiments.scoring import OUTCOMES
from agents.experiments.table import Floats, Ints, Table

MOST_WITHOUT_CHOICE = 0.10  # beyond this share of trials without a valid choice there is no headline


class Scores(NamedTuple):
    """Precision, recall and F1 over tools, plain means (macro) and weighted by how often each tool is right."""

    precision: float
    recall: float
    f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float


class ToolScore(NamedTuple):
    tool: str
    support: int
    chosen: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Variation:
    """Half the sum of absolute deviations from equal shares, and what chance alone would show. `beyond` is the
    difference; it can be below 0."""

    value: float
    floor: float

    @property
    def beyond(self) -> float:
        return self.value - self.floor


@dataclass(frozen=True)
class Effect:
    """The average marginal effect of one group of positions: how much likelier an average tool is chosen because it
    stands there. `share` is how often it was chosen, `original` Ozdemir's percentage, as a share, `null_low` and
    `null_high` where 95 % of a model that ignores the order lie.
    """

    place: int
    effect: Estimate
    p_value: float
    share: float
    original: float
    null_low: float
    null_high: float
    detectable: float


@dataclass(frozen=True)
class Flips:
    """How often two runs of one task differ: under different orders, under the same order, and the excess."""

    across: Estimate
    same: Estimate
    excess: Estimate
    tasks: int


@dataclass(frozen=True)
class Measures:
    """All that is measured in one arm of one model. `units` is over how many sampling units the intervals are taken:
    fewer than tasks where tasks share their orders. `widest` is the longest list of tools, `coefficients` (log
    probabilities only) are the closed-form coefficients of the groups of positions; `by_place` is the accuracy by the
    right tool's group of positions; `without_choice` the share of trials in which no offered tool was soundly called
    although one was needed."""

    tasks: int
    units: int
    trials: int
    places: int
    widest: int
    accuracy: Estimate
    effects: tuple[Effect, ...]
    p_value: float
    position_variation: Variation
    tool_variation: Variation
    by_place: tuple[Estimate, ...]
    gap: float
    gap_floor: float
    always_right: Estimate
    scores: Scores | None
    tool_scores: tuple[ToolScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    place_confusion: tuple[tuple[int, ...], ...]
    tools: tuple[str, ...]
    flips: Flips | None
    coefficients: tuple[Estimate, ...] | None
    without_choice: float
    arguments_fit: float

    @property
    def headline(self) -> str | None:
        """None if the effects may be shown as a result, else the reason why not."""
        if self.without_choice > MOST_WITHOUT_CHOICE:
            return (
                f"{self.without_choice:.0%} of the trials hold no valid choice (more than {MOST_WITHOUT_CHOICE:.0%}): "
                "what the rest shows may come from which trials are missing"
            )
        return None


def measure(
    plain: Table, repeats: Table | None = None, *, fits: Sequence[bool | None] = (), draws: int = 2000, seed: int = 0
) -> Measures:
    """Measure one arm: `plain` holds each task under its orders once, `repeats` what was asked again."""
    count = len(plain.tasks)
    null = permutation_test(plain, draws=draws, seed=seed)
    by_place = _accuracy_by_place(plain)
    confusion = _confusion(plain)
    needed = plain.right_tool >= 0
    scores, tool_scores = _scores(confusion, plain) if needed.any() else (None, ())
    known = [fit for fit in fits if fit is not None]
    accuracies = np.array([place.value for place in by_place])
    correct = task_means(plain.task, plain.correct.astype(float), count)
    effects = _effects(plain, null)
    return Measures(
        tasks=count,
        units=plain.units,
        trials=len(plain),
        places=plain.places,
        widest=int(plain.size.max(initial=0)),
        accuracy=share_of(plain, correct),
        effects=effects,
        p_value=null.p_value,
        position_variation=Variation(
            0.5 * float(sum(abs(effect.effect.value) for effect in effects)),
            0.5 * float(np.abs(null.effects).sum(1).mean()),
        ),
        tool_variation=_tool_variation(plain, draws=min(draws, 200), seed=seed),
        by_place=by_place,
        gap=float(np.nanmax(accuracies) - np.nanmin(accuracies)) if np.isfinite(accuracies).any() else float("nan"),
        gap_floor=float(null.gaps.mean()),
        always_right=share_of(plain, (correct == 1).astype(float)),
        scores=scores,
        tool_scores=tool_scores,
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        place_confusion=_place_confusion(plain),
        tools=plain.tools,
        flips=_flips(plain, repeats) if repeats is not None and len(repeats) else None,
        coefficients=_coefficients(plain) if plain.probabilities is not None else None,
        without_choice=float((~plain.chose & ~plain.correct).mean()) if len(plain) else float("nan"),
        arguments_fit=sum(known) / len(known) if known else float("nan"),
    )


def position_effects(table: Table) -> Floats:
    """(tasks, places): each task's mean effect of each place. Their mean over tasks is the average marginal effect:
    P(chosen at p) - P(any tool chosen) / K, which is share(chosen = p) - 1/K when every trial holds a choice."""
    return task_means(table.task, table.place_effects, len(table.tasks))


def ozdemir(chosen: Ints | Floats, right: Ints | Floats) -> Floats:
    """The original percentage of each place, as a share, from how often it was chosen and how often the right tool
    stood there: (share chosen - share right) / share right. Trials without a valid choice are missing from the first
    share and not from the second, as in the original (S. Ozdemir, 2024)."""
    expected = right / right.sum()
    with np.errstate(invalid="ignore"):
        found: Floats = (chosen / chosen.sum() - expected) / expected
    return found


def _effects(table: Table, null: Null) -> tuple[Effect, ...]:
    per_unit = unit_means(table, position_effects(table))
    chosen = np.array([(table.place == place).sum() for place in range(table.places)])
    stood = np.array([(table.right_place == place).sum() for place in range(table.places)])
    if not stood.all():  # no tool is right, or a place was never the right tool's
        stood = np.array([(1 / table.groups[table.groups > place]).sum() for place in range(table.places)])
    original = ozdemir(chosen, stood)
    found = []
    for place in range(table.places):
        values = per_unit[:, place]
        known = int(np.isfinite(values).sum())
        grain = 0.0 if table.probabilities is not None else table.units / len(table)
        estimate = cluster_mean(values, grain=grain)
        band = np.quantile(null.effects[:, place], [0.025, 0.975])
        found.append(
            Effect(
                place=place,
                effect=estimate,
                p_value=cluster_p(values, grain=grain),
                share=float(chosen[place] / len(table)),
                original=float(original[place]),
                null_low=float(band[0]),
                null_high=float(band[1]),
                detectable=detectable(spread_in(estimate, known), known),
            )
        )
    return tuple(found)


def _accuracy_by_place(table: Table) -> tuple[Estimate, ...]:
    found = []
    for place in range(table.places):
        there = table.right_place == place
        per_task = task_means(table.task[there], table.correct[there].astype(float), len(table.tasks))
        found.append(share_of(table, per_task))
    return tuple(found)


def _confusion(table: Table) -> Ints:
    """(tools, tools + 1): how often each was chosen (last column: none) when each was right."""
    count = len(table.tools)
    matrix = np.zeros((count, count + 1), dtype=np.int64)
    rows = table.right_tool >= 0
    np.add.at(matrix, (table.right_tool[rows], table.chosen_tool[rows]), 1)
    return matrix


def _place_confusion(table: Table) -> tuple[tuple[int, ...], ...]:
    """(places, places + 1): how often each place was chosen (last column: none) when the right tool stood at each."""
    matrix = np.zeros((table.places, table.places + 1), dtype=np.int64)
    rows = table.right_place >= 0
    np.add.at(matrix, (table.right_place[rows], table.place[rows]), 1)
    return tuple(tuple(int(cell) for cell in row) for row in matrix)


def _scores(confusion: Ints, table: Table) -> tuple[Scores, tuple[ToolScore, ...]]:
    """From the confusion of tools; calls of a tool that is right nowhere count against precision of no tool, so they
    are left to accuracy. Asserts that support-weighted recall is the accuracy over the same trials."""
    support = confusion.sum(1)
    hit = np.diagonal(confusion)
    chosen = confusion[:, :-1].sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(chosen > 0, hit / chosen, 0.0)
        recall = np.where(support > 0, hit / support, 0.0)
        f1 = np.where(hit > 0, 2 * precision * recall / (precision + recall), 0.0)
    used = support > 0
    weight = support / support.sum()
    rows = table.right_tool >= 0
    accuracy = float((table.chosen_tool[rows] == table.right_tool[rows]).mean())
    weighted_recall = float((weight * recall).sum())
    if abs(weighted_recall - accuracy) > 1e-9:
        raise ArithmeticError(f"support-weighted recall {weighted_recall} is not the accuracy {accuracy}")
    scores = Scores(
        float(precision[used].mean()),
        float(recall[used].mean()),
        float(f1[used].mean()),
        float((weight * precision).sum()),
        weighted_recall,
        float((weight * f1).sum()),
    )
    tools = tuple(
        ToolScore(name, int(support[i]), int(chosen[i]), float(precision[i]), float(recall[i]), float(f1[i]))
        for i, name in enumerate(table.tools)
        if support[i] or chosen[i]
    )
    return scores, tools


def _tool_variation(table: Table, *, draws: int, seed: int) -> Variation:
    """How unevenly the choices fall on tools beyond what the right answers ask for. The floor is that of a model
    whose mistakes (all choices, where any tool would do) fall on each of a task's other tools alike."""
    rng = np.random.default_rng(seed)
    count = len(table.tools)
    chose = np.flatnonzero(table.chose)
    if not len(chose):
        return Variation(float("nan"), float("nan"))
    right, picked, task = table.right_tool[chose], table.chosen_tool[chose], table.task[chose]
    wrong = picked != right
    total = len(chose)
    expected = np.zeros(count)
    np.add.at(expected, right[right >= 0], 1 / total)
    for row in chose[right < 0]:
        offered = table.order[row, : table.size[row]]
        expected[offered] += 1 / table.size[row] / total

    def value(chosen: Ints) -> float:
        return 0.5 * float(np.abs(np.bincount(chosen, minlength=count) / total - expected).sum())

    others: dict[int, Ints] = {}
    for row in chose:
        number = int(table.task[row])
        if number not in others:
            offered = np.sort(table.order[row, : table.size[row]])
            others[number] = offered[offered != table.right_tool[row]]
    floor = 0.0
    for _ in range(draws):
        drawn = picked.copy()
        for number, offered in others.items():
            rows = np.flatnonzero((task == number) & wrong)
            if len(rows):
                drawn[rows] = rng.permutation(offered)[np.searchsorted(offered, picked[rows])]
        floor += value(drawn) / draws
    return Variation(value(picked), floor)


def _flips(plain: Table, repeats: Table) -> Flips:
    """Pairs of trials of one task that name different tools. No choice, and each kind of it, counts as an answer."""
    answers: dict[str, list[int]] = {}
    at: dict[tuple[str, tuple[int, ...]], int] = {}
    said = _answers(plain)
    for row in range(len(plain)):
        name = plain.tasks[plain.task[row]]
        answers.setdefault(name, []).append(int(said[row]))
        at[name, tuple(plain.order[row].tolist())] = int(said[row])
    again: dict[str, list[float]] = {}
    said_again = _answers(repeats)
    translate = [plain.tools.index(tool) for tool in repeats.tools]
    for row in range(len(repeats)):
        name = repeats.tasks[repeats.task[row]]
        order = tuple(translate[tool] if tool >= 0 else -1 for tool in repeats.order[row])
        order += (-1,) * (plain.order.shape[1] - len(order))
        if (name, order) in at:
            answer = int(said_again[row])
            answer = translate[answer] if answer >= 0 else answer
            again.setdefault(name, []).append(float(answer != at[name, order]))
    across, same = np.full((2, len(plain.tasks)), np.nan)
    for number, name in enumerate(plain.tasks):
        if name in again and len(answers[name]) > 1:
            across[number], same[number] = _disagreement(answers[name]), np.mean(again[name])
    both = int(np.isfinite(across).sum())
    excess = cluster_mean(unit_means(plain, across - same))
    return Flips(share_of(plain, across), share_of(plain, same), excess, both)


def _answers(table: Table) -> Ints:
    """The tool chosen; each outcome without one is an answer of its own, below 0."""
    return np.where(table.chosen_tool >= 0, table.chosen_tool, -1 - table.outcome)


def _disagreement(answers: Sequence[int]) -> float:
    """Share of the pairs of `answers` that differ."""
    n = len(answers)
    _, counts = np.unique(answers, return_counts=True)
    return 1 - float((counts * (counts - 1)).sum()) / (n * (n - 1))


def _coefficients(table: Table) -> tuple[Estimate, ...] | None:
    """For each group of positions the mean over a task's block of log P there, less the mean log P over positions
    (PriDe, arXiv 2309.03882). In a block each tool stands once in each group, so tools' own appeal cancels exactly."""
    assert table.probabilities is not None  # noqa: S101
    if len(set(table.size.tolist())) > 1 or len(set(table.groups.tolist())) > 1:
        return None
    width, groups = int(table.size[0]), int(table.groups[0])
    logs = np.log(np.maximum(table.probabilities[:, :width], 1e-12))
    relative = (logs - logs.mean(1, keepdims=True)).reshape(len(table), groups, -1).mean(2)
    per_unit = unit_means(table, task_means(table.task, relative, len(table.tasks)))
    return tuple(cluster_mean(per_unit[:, place]) for place in range(groups))


def outcome_shares(table: Table) -> dict[str, float]:
    """Share of the trials with each outcome."""
    return {name: float((table.outcome == index).mean()) for index, name in enumerate(OUTCOMES)}
