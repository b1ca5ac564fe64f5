"""What dressing a tool does to its being chosen: each arm against the plain list, cell by cell, over tasks."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.experiments.arms import ARMS, DUPLICATE, NEUTRAL
from agents.experiments.inference import Estimate, cluster_mean, cluster_p, cluster_share, holm, linear
from agents.experiments.scoring import CHOICES
from agents.experiments.trials import Trial


@dataclass(frozen=True)
class ArmEffect:
    """One arm's effect. `before` and `after` are the share of trials that chose the target without and with the
    dressing (accuracy, where all tools are dressed; for the duplicate: one half, and the share in which the one of the
    two that stands first was chosen), `change` their difference, `odds` the ratio of their odds."""

    arm: str
    about: str
    tasks: int
    trials: int
    before: Estimate
    after: Estimate
    change: Estimate
    odds: Estimate
    p_value: float
    holm: float = float("nan")


def arm_effects(
    plain: Sequence[Trial], dressed: Sequence[Trial], units: Mapping[str, Hashable] | None = None
) -> tuple[ArmEffect, ...]:
    """The effect of each arm in `dressed`, p-values adjusted over the arms. `units` is the sampling unit of each task,
    where it is not the task itself (`table.unit_of`)."""
    units = units or {}
    base = {(trial.task, trial.step): trial for trial in plain}
    found = []
    for arm in dict.fromkeys(trial.arm for trial in dressed):
        rows = [trial for trial in dressed if trial.arm == arm]
        if arm == DUPLICATE:
            effect = _duplicate(arm, rows, units)
        else:
            pairs = [(base[t.task, t.step], t) for t in rows if (t.task, t.step) in base]
            effect = _paired(arm, pairs, units) if pairs else None
        if effect is not None:
            found.append(effect)
    adjusted = holm([effect.p_value for effect in found])
    return tuple(ArmEffect(**{**effect.__dict__, "holm": value}) for effect, value in zip(found, adjusted, strict=True))


def _paired(arm: str, pairs: Sequence[tuple[Trial, Trial]], units: Mapping[str, Hashable]) -> ArmEffect:
    def taken(trial: Trial, target: str | None) -> float:
        if arm == NEUTRAL or target is None:
            return float(trial.outcome == "right")
        if trial.probabilities is not None:
            return trial.probabilities[trial.order.index(target)]
        return float(trial.outcome in CHOICES and trial.chosen == target)

    found: dict[Hashable, list[tuple[float, float]]] = {}
    for before, after in pairs:
        unit = units.get(after.task, after.task)
        found.setdefault(unit, []).append((taken(before, after.target), taken(after, after.target)))
    means = np.array([np.mean(values, axis=0) for values in found.values()])
    moved = means[:, 1] - means[:, 0]
    grain = 0.0 if pairs[0][1].probabilities is not None else len(means) / len(pairs)
    return ArmEffect(
        arm=arm,
        about=ARMS.get(arm, ""),
        tasks=len({after.task for _, after in pairs}),
        trials=len(pairs),
        before=cluster_share(means[:, 0]),
        after=cluster_share(means[:, 1]),
        change=cluster_mean(moved, grain=grain),
        odds=odds_ratio(means[:, 0], means[:, 1], grain=grain),
        p_value=cluster_p(moved, grain=grain),
    )


def _duplicate(arm: str, rows: Sequence[Trial], units: Mapping[str, Hashable]) -> ArmEffect | None:
    """Among choices of either of the two equal tools: how often the one that stands first."""
    found: dict[Hashable, list[float]] = {}
    tasks: set[str] = set()
    used = 0
    for trial in rows:
        places = [index for index, name in enumerate(trial.order) if name.split("#")[0] == trial.target]
        if trial.probabilities is not None:
            both = [trial.probabilities[index] for index in places]
            if not sum(both):
                continue
            value = (both[0] - both[1]) / 2
        elif trial.chosen_index in places and trial.outcome in CHOICES:
            value = 0.5 if trial.chosen_index == places[0] else -0.5
        else:
            continue
        found.setdefault(units.get(trial.task, trial.task), []).append(value)
        tasks.add(trial.task)
        used += 1
    if not tasks:
        return None
    # A task in which the two are rarely chosen says less: weigh by trials (a ratio of totals, not a mean of ratios).
    sums = np.array([sum(own) for own in found.values()])
    sizes = np.array([len(own) for own in found.values()], dtype=float)
    values = linear(sums, sizes)
    grain = 0.0 if rows[0].probabilities is not None else 1 / float(sizes.mean())
    half = np.full(len(values), 0.5)
    return ArmEffect(
        arm=arm,
        about=ARMS[arm],
        tasks=len(tasks),
        trials=used,
        before=Estimate(0.5, 0.5, 0.5),
        after=cluster_share(half + values),
        change=cluster_mean(values, grain=grain),
        odds=odds_ratio(half, half + values, grain=grain),
        p_value=cluster_p(values, grain=grain),
    )


def odds_ratio(before: np.ndarray, after: np.ndarray, *, grain: float = 0.0) -> Estimate:
    """Ratio of the odds of the two mean shares, its interval on the logarithm by the delta method over tasks (each
    task's pair of means is one observation, so that their correlation counts). The logarithm of an estimated share's
    odds is off by half its curvature times the share's variance: that is taken off. Half a task is added to each side
    of a share of 0 or 1, so that the ratio stays finite (Haldane, Anscombe). `grain` is that of `cluster_mean`."""
    n = len(before)
    logits, influence, steepest = [], [], 0.0
    for values in (before, after):
        mean = float(values.mean())
        share = mean if 0 < mean < 1 else (float(values.sum()) + 0.5) / (n + 1)
        slope = 1 / (share * (1 - share))
        steepest = max(steepest, slope)
        curved = (2 * share - 1) * slope**2 * float(values.var(ddof=1)) / n / 2 if n > 1 else 0.0
        logits.append(np.log(share / (1 - share)) - curved)
        influence.append((values - mean) * slope)
    ratio = float(np.exp(logits[1] - logits[0]))
    if n < 2:
        return Estimate(ratio, float("nan"), float("nan"))
    width = cluster_mean(influence[1] - influence[0], grain=grain * steepest).error
    return Estimate(ratio, float(ratio * np.exp(-width)), float(ratio * np.exp(width)))
