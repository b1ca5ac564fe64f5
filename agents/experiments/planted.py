"""Simulated models whose position effects, tool preferences, invalid rate and difficulty are known: the truth that
estimators are held against. Makes tables as a real run would, for any number of tasks.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agents.experiments.scoring import OUTCOMES
from agents.experiments.table import Floats, Ints, Table

RIGHT, WRONG, INVALID = (OUTCOMES.index(name) for name in ("right", "wrong", "invalid"))


@dataclass(frozen=True)
class Planted:
    """A model that chooses with probabilities proportional to exp of: `positions[p]`, plus `tools[t]`, plus an appeal
    of its own for each task and tool (normal, standard deviation `taste`), plus for the right tool a margin that
    differs between tasks (normal, mean `margin`, standard deviation `unequal`). A share of `invalid` calls is broken,
    more in some tasks than in others."""

    positions: tuple[float, ...]
    tools: tuple[float, ...]
    margin: float = 3.0
    unequal: float = 1.5
    taste: float = 1.0
    invalid: float = 0.0


class Truth(NamedTuple):
    """What estimators should find: the effect of each position, and the accuracy."""

    effects: Floats
    accuracy: float


def experiment(
    model: Planted, tasks: int, seed: int, *, exact: bool = False, lift: float = 0.0, pool: int | None = None
) -> Table:
    """One run: each of `tasks` tasks, right tools in turn, under the rotations of a random base order, one of `pool`
    that are dealt out evenly if that is given. With `exact` the table holds probabilities, as mode logprob gives them.
    `lift` is what a dressing adds to the appeal of each task's target (see `targets`): the same tasks in the same
    orders, chosen anew."""
    rng = np.random.default_rng(seed)
    order, right, probabilities, valid = _probabilities(model, tasks, rng, lift, targets(model, tasks, seed), pool)
    n, rows, size = order.shape
    if lift:
        rng = np.random.default_rng((seed, 1))
    chosen = (probabilities.cumsum(-1) > rng.random((n, rows, 1))).argmax(-1)
    made = rng.random((n, rows)) < valid
    if exact:
        chosen, made = probabilities.argmax(-1), np.ones((n, rows), dtype=bool)
    chosen_tool = np.take_along_axis(order, chosen[..., None], -1)[..., 0]
    outcome = np.where(made, np.where(chosen_tool == right[:, None], RIGHT, WRONG), INVALID)
    right_index = (order == right[:, None, None]).argmax(-1)

    def flat(values: Ints) -> Ints:
        return values.reshape(n * rows).astype(np.int64)

    full = np.full(n * rows, size)
    return Table(
        tasks=tuple(f"t{number:05d}" for number in range(n)),
        tools=tuple(f"tool{number}" for number in range(size)),
        task=np.repeat(np.arange(n), rows),
        size=full,
        groups=full,
        order=order.reshape(n * rows, size),
        chosen=flat(np.where(made, chosen, -1)),
        right=flat(right_index),
        chosen_tool=flat(np.where(made, chosen_tool, -1)),
        right_tool=np.repeat(right, rows),
        outcome=flat(outcome),
        probabilities=probabilities.reshape(n * rows, size) if exact else None,
        unit=np.arange(n) * pool // n if pool else None,
    )


def targets(model: Planted, tasks: int, seed: int) -> Ints:
    """The tool that is dressed in each task of the run with this seed."""
    return np.random.default_rng((seed, 2)).integers(0, len(model.tools), tasks)


def truth(model: Planted, *, tasks: int = 200_000, seed: int = 2**31) -> Truth:
    """The exact expectation over choices, averaged over many tasks."""
    rng = np.random.default_rng(seed)
    effects, accuracy, done = np.zeros(len(model.positions)), 0.0, 0
    while done < tasks:
        batch = min(20_000, tasks - done)
        order, right, probabilities, valid = _probabilities(model, batch, rng)
        sound = probabilities * valid[..., None]
        effects += (sound - sound.mean(-1, keepdims=True)).mean(1).sum(0)
        accuracy += float((sound * (order == right[:, None, None])).sum(-1).mean(1).sum())
        done += batch
    return Truth(effects / tasks, accuracy / tasks)


def true_shares(model: Planted, lift: float, *, tasks: int = 200_000, seed: int = 2**31) -> tuple[float, float]:
    """The share of trials that choose the target, plain and dressed."""
    aimed = targets(model, tasks, seed)
    shares = []
    for lifted in (0.0, lift):
        rng = np.random.default_rng(seed)
        order, _, probabilities, valid = _probabilities(model, tasks, rng, lifted, aimed)
        shares.append(float((probabilities * valid[..., None] * (order == aimed[:, None, None])).sum(-1).mean()))
    return shares[0], shares[1]


def _probabilities(
    model: Planted,
    tasks: int,
    rng: np.random.Generator,
    lift: float = 0.0,
    aimed: Ints | None = None,
    pool: int | None = None,
) -> tuple[Ints, Ints, Floats, Floats]:
    """Orders (n, K, K), right tools (n), choice probabilities by place (n, K, K), chance of a sound call (n, K)."""
    size = len(model.positions)
    right = np.arange(tasks) % len(model.tools)
    appeal = np.asarray(model.tools)[None, :] + model.taste * rng.standard_normal((tasks, size))
    appeal[np.arange(tasks), right] += model.margin + model.unequal * rng.standard_normal(tasks)
    if aimed is not None:
        appeal[np.arange(tasks), aimed] += lift
    base = rng.random((pool or tasks, size)).argsort(-1)[np.arange(tasks) * (pool or tasks) // tasks]
    turns = (np.arange(size)[:, None] + np.arange(size)[None, :]) % size
    order = base[:, turns]  # (n, rotation, place)
    utility = np.take_along_axis(appeal[:, None, :].repeat(size, 1), order, -1) + np.asarray(model.positions)
    weight = np.exp(utility - utility.max(-1, keepdims=True))
    broken = np.clip(model.invalid * 2 * rng.random(tasks), 0, 1)
    valid = np.repeat((1 - broken)[:, None], size, 1)
    return order, right, weight / weight.sum(-1, keepdims=True), valid
