"""Two or more models or runs side by side: differences paired by task, adjusted over all that are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from agents.experiments.analysis import complete
from agents.experiments.arms import PLAIN
from agents.experiments.designs import pool_size
from agents.experiments.inference import Estimate, cluster_mean, cluster_p, holm, task_means, unit_means
from agents.experiments.measures import position_effects
from agents.experiments.table import Floats, Table, table
from agents.experiments.trials import read_manifest, read_trials
from toolkit.core.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One model in one folder."""

    label: str
    folder: Path
    table: Table


@dataclass(frozen=True)
class Difference:
    """`second` less `first` in one measure, over the tasks that both have."""

    first: str
    second: str
    measure: str
    tasks: int
    difference: Estimate
    p_value: float
    holm: float = float("nan")


def entries(folders: Sequence[Path]) -> list[Entry]:
    """Every model of every folder, labelled by what tells them apart. Raises UsageError for fewer than two, or for
    folders of different suites."""
    found: list[Entry] = []
    suites: dict[str, Path] = {}
    for folder in folders:
        manifest = read_manifest(folder)
        suites.setdefault(manifest.suite_digest, folder)
        trials = [trial for trial in read_trials(folder) if trial.arm == PLAIN and trial.repeat == 0]
        for model in manifest.experiment.models:
            own = complete([trial for trial in trials if trial.model == model])
            if own:
                found.append(Entry(model, folder, table(own, partial(pool_size, manifest.experiment.design))))
    if len(suites) > 1:
        one, other = list(suites.values())[:2]
        raise UsageError(
            f"{one} and {other} hold different suites, so their tasks cannot be paired",
            hint="compare runs of one suite",
        )
    if len(found) < 2:
        raise UsageError("a comparison needs two models with trials", hint="name another folder")
    labels = [entry.label for entry in found]
    return [
        replace(entry, label=f"{entry.label} ({entry.folder.name})") if labels.count(entry.label) > 1 else entry
        for entry in found
    ]


def compare(found: Sequence[Entry]) -> list[Difference]:
    """Differences in accuracy and in each position's effect, for each pair."""
    differences: list[Difference] = []
    for first, second in combinations(found, 2):
        shared = sorted(set(first.table.tasks) & set(second.table.tasks))
        if len(shared) < 2:
            raise UsageError(f"{first.label} and {second.label} share {len(shared)} tasks", hint="compare longer runs")
        one, other = (_values(entry.table) for entry in (first, second))
        names = ["accuracy", *(f"position {place + 1}" for place in range(min(one.shape[1], other.shape[1]) - 1))]
        for column, name in enumerate(names):
            before = dict(zip(first.table.tasks, one[:, column], strict=True))
            after = dict(zip(second.table.tasks, other[:, column], strict=True))
            paired = {task: after[task] - before[task] for task in shared}
            differences.append(_difference(first, second, name, paired))
    adjusted = holm([difference.p_value for difference in differences])
    return [replace(difference, holm=value) for difference, value in zip(differences, adjusted, strict=True)]


def _difference(first: Entry, second: Entry, name: str, paired: Mapping[str, float]) -> Difference:
    """The mean of `paired` over the sampling units of either run, whichever says less: runs with other seeds share
    their orders among other tasks."""
    found = []
    grain = max(_grain(first.table), _grain(second.table))
    for held in (first.table, second.table):
        per_unit = unit_means(held, np.array([paired.get(task, np.nan) for task in held.tasks]))
        found.append((cluster_mean(per_unit, grain=grain), cluster_p(per_unit, grain=grain)))
    estimate, p_value = max(found, key=lambda one: one[0].error)
    return Difference(first.label, second.label, name, len(paired), estimate, p_value)


def _values(held: Table) -> Floats:
    """(tasks, 1 + places): accuracy, then the effect of each place."""
    accuracy = task_means(held.task, held.correct.astype(float), len(held.tasks))
    return np.column_stack([accuracy, position_effects(held)])


def _grain(held: Table) -> float:
    """By how much one trial moves its unit."""
    return 0.0 if held.probabilities is not None else held.units / len(held)
