"""What can be done about a position bias, computed from trials that are there already, each with its price.

calibrate        divide each place's probability by the model's own prior for it, learnt on other tasks (needs
                 probabilities: a choice without them cannot be divided)
rotate and vote  ask under every order of the block and take the tool chosen most often
filter, then draw keep the tools chosen in at least one of two opposite orders, draw one of them at random
"""

from dataclasses import dataclass

import numpy as np

from agents.experiments.inference import Estimate, cluster_mean, share_of, unit_means
from agents.experiments.table import Floats, Ints, Table

FOLDS = 5


@dataclass(frozen=True)
class Remedy:
    """A remedy's result: calls per decision, accuracy, what that gains over one plain call, and the total variation by
    position that is left (0 where the choice no longer knows positions)."""

    name: str
    about: str
    calls: float
    accuracy: Estimate
    gain: Estimate
    variation: float


def remedies(table: Table, *, seed: int = 0) -> tuple[Remedy, ...]:
    """All remedies that the trials allow. Empty where no tool is right."""
    if not (table.right_tool >= 0).any() or len(table.tasks) < 2:
        return ()
    weights = table.weights
    plain = _by_task(table, _hit(table, weights))
    found = [
        Remedy(
            "none",
            "one call, tools in a random order",
            1.0,
            share_of(table, plain),
            Estimate(0.0, 0.0, 0.0),
            _variation(table, weights),
        )
    ]
    if table.probabilities is not None and len(set(table.size.tolist())) == 1:
        calibrated = _calibrated(table, weights, seed)
        hits = _by_task(table, _hit(table, calibrated))
        found.append(
            Remedy(
                "calibrate",
                "divide by the position prior learnt on other tasks, take the likeliest",
                1.0,
                share_of(table, hits),
                cluster_mean(unit_means(table, hits - plain)),
                _variation(table, calibrated),
            )
        )
    rows = np.bincount(table.task, minlength=len(table.tasks))
    for name, about, hits, calls in (
        ("rotate and vote", "ask under every order of the block, most votes win", _vote(table, weights), rows.mean()),
        (
            "filter, then draw",
            "ask under two opposite orders, draw one of the tools chosen",
            _draw(table, weights),
            2.0,
        ),
    ):
        gain = cluster_mean(unit_means(table, hits - plain))
        found.append(Remedy(name, about, float(calls), share_of(table, hits), gain, 0.0))
    return tuple(found)


def _hit(table: Table, weights: Floats) -> Floats:
    """Share of each trial's weight on the right tool (the likeliest only, where probabilities are known)."""
    rows = np.arange(len(table))
    if table.probabilities is not None:
        likeliest: Floats = (weights.argmax(1) == table.right).astype(float)
        return likeliest
    return np.where(table.right >= 0, weights[rows, np.maximum(table.right, 0)], 0.0)


def _by_task(table: Table, values: Floats) -> Floats:
    sizes = np.bincount(table.task, minlength=len(table.tasks))
    means: Floats = np.bincount(table.task, weights=values, minlength=len(table.tasks)) / sizes
    return means


def _variation(table: Table, weights: Floats) -> float:
    """Total variation of the places chosen from equal shares."""
    total = weights.sum()
    if not total:
        return float("nan")
    size = int(table.size.max())
    place = np.arange(weights.shape[1])[None, :] * table.groups[:, None] // np.maximum(table.size, 1)[:, None]
    shares = np.bincount(place.ravel(), weights=weights.ravel(), minlength=size)[: table.places] / total
    return 0.5 * float(np.abs(shares - 1 / table.places).sum())


def _calibrated(table: Table, weights: Floats, seed: int) -> Floats:
    """Probabilities divided by the place's prior, which is the mean of logs over blocks (PriDe, arXiv 2309.03882). The
    prior of a task is learnt on the other folds of tasks, so that nothing is corrected by itself."""
    size = int(table.size[0])
    fold = np.random.default_rng(seed).permutation(len(table.tasks))[table.task] % FOLDS
    result = weights.copy()
    for number in range(FOLDS):
        here, there = fold == number, fold != number
        prior = np.exp(np.log(np.maximum(weights[there][:, :size], 1e-12)).mean(0))
        moved = weights[here][:, :size] / prior
        result[here, :size] = moved / moved.sum(1, keepdims=True)
    return result


def _votes(table: Table, weights: Floats) -> Floats:
    """(tasks, tools): how much of each task's choices fell on each tool."""
    votes = np.zeros((len(table.tasks), len(table.tools)))
    for place in range(table.order.shape[1]):
        rows = table.order[:, place] >= 0
        np.add.at(votes, (table.task[rows], table.order[rows, place]), weights[rows, place])
    return votes


def _right(table: Table) -> Ints:
    right = np.full(len(table.tasks), -1, dtype=np.int64)
    right[table.task] = table.right_tool
    return right


def _vote(table: Table, weights: Floats) -> Floats:
    """1 where the right tool has most votes; shared among those that tie."""
    votes = _votes(table, weights)
    best = votes >= votes.max(1, keepdims=True) - 1e-12
    right = _right(table)
    won = best[np.arange(len(right)), np.maximum(right, 0)] & (right >= 0) & (votes.max(1) > 0)
    return np.where(won, 1 / best.sum(1), 0.0)


def _draw(table: Table, weights: Floats) -> Floats:
    """Chance of drawing the right tool from those chosen in two opposite orders of the block, over all such pairs."""
    picked = np.where(weights.sum(1) > 0, np.take_along_axis(table.order, weights.argmax(1)[:, None], 1)[:, 0], -1)
    right = _right(table)
    chance = np.zeros(len(table.tasks))
    for number in range(len(table.tasks)):
        rows = np.flatnonzero(table.task == number)
        half = max(1, len(rows) // 2)
        pairs = [(picked[rows[i]], picked[rows[(i + half) % len(rows)]]) for i in range(len(rows))]
        for one, other in pairs:
            kept = {tool for tool in (one, other) if tool >= 0}
            chance[number] += (right[number] in kept) / max(1, len(kept)) / len(pairs)
    return chance
