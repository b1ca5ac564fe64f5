"""Everything an experiment's folder says, measured: per model and arm, with Holm's correction over all of them.
Reads trials and manifest, writes `summary.json`; knows nothing of pictures or pages.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agents.experiments.arms import DUPLICATE, PLAIN
from agents.experiments.attributes import ArmEffect, arm_effects
from agents.experiments.designs import pool_size
from agents.experiments.inference import holm
from agents.experiments.measures import Measures, measure
from agents.experiments.remedies import Remedy, remedies
from agents.experiments.table import table, unit_of
from agents.experiments.trials import Manifest, Trial, outcomes, read_manifest, read_trials
from toolkit.core.errors import UsageError
from toolkit.core.paths import write_text

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Cost:
    """What a model's trials took. `seconds` is the sum of latencies; tokens of the prompt include cached ones."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    money: int  # nano-dollars
    seconds: float


@dataclass(frozen=True)
class ModelAnalysis:
    """One model: its plain arm measured whole, each dressed arm's effect, remedies, and what it cost.

    `holm` are the p-values of the positions' effects, adjusted over positions and models. `partial` counts tasks whose
    block is incomplete; they are left out of `measures`, since balance is what makes positions comparable.
    """

    model: str
    measures: Measures
    outcomes: dict[str, int]
    holm: tuple[float, ...]
    arms: tuple[ArmEffect, ...]
    remedies: tuple[Remedy, ...]
    cost: Cost
    partial: int


@dataclass(frozen=True)
class Analysis:
    manifest: Manifest
    models: tuple[ModelAnalysis, ...]

    @property
    def balanced(self) -> bool:
        """Whether each tool stood everywhere equally often, so that effects of position mean what they say."""
        return self.manifest.experiment.design.kind != "production"


def analyse(folder: Path, *, draws: int = 2000) -> Analysis:
    """Measure the folder's trials. Raises UsageError if there are none."""
    manifest = read_manifest(folder)
    trials = read_trials(folder)
    if not trials:
        raise UsageError(
            f"{folder} holds no trials yet", hint=f"toolkit bias run --from {folder} --out {folder} goes on with it"
        )
    models = [name for name in manifest.experiment.models if any(trial.model == name for trial in trials)]
    found = [_model(name, [t for t in trials if t.model == name], manifest, draws) for name in models]
    adjusted = iter(holm([effect.p_value for model, _ in found for effect in model.effects]))
    return Analysis(
        manifest,
        tuple(
            ModelAnalysis(
                model=name,
                measures=measures,
                holm=tuple(next(adjusted) for _ in measures.effects),
                **rest,
            )
            for name, (measures, rest) in zip(models, found, strict=True)
        ),
    )


def write_summary(folder: Path, analysis: Analysis) -> Path:
    """Write the analysis as `summary.json`; numbers that are not known are null."""
    document = plain({"v": 1, "models": analysis.models, "manifest": manifest_document(analysis.manifest)})
    path = folder / SUMMARY
    write_text(path, json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    return path


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """The manifest as a JSON document."""
    return {
        "experiment": manifest.experiment.model_dump(mode="json"),
        "suite_digest": manifest.suite_digest,
        "tools_digest": manifest.tools_digest,
        "identities": dict(manifest.identities),
        "about": dict(manifest.about),
    }


def plain(value: Any) -> Any:
    """A document of dataclasses and tuples as plain JSON values, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _model(name: str, trials: Sequence[Trial], manifest: Manifest, draws: int) -> tuple[Measures, dict[str, Any]]:
    first = [trial for trial in trials if trial.arm == PLAIN and trial.repeat == 0]
    whole = complete(first)
    kept = {trial.task for trial in whole}
    again = [trial for trial in trials if trial.arm == PLAIN and trial.repeat > 0 and trial.task in kept]
    pool = partial(pool_size, manifest.experiment.design)
    plain_table = table(whole, pool)
    measures = measure(
        plain_table,
        table(again) if again else None,
        fits=[trial.fits for trial in whole],
        draws=draws,
        seed=manifest.experiment.seed,
    )
    # An arm is paired with the plain list cell by cell, so it needs no whole blocks.
    arms = arm_effects(first, [trial for trial in trials if trial.arm != PLAIN], unit_of(first, pool))
    listed = [trial for trial in trials if trial.arm != DUPLICATE]
    return measures, {
        "outcomes": outcomes(listed),
        "arms": arms,
        "remedies": remedies(plain_table, seed=manifest.experiment.seed) if len(plain_table) else (),
        "cost": Cost(
            calls=sum(trial.requests for trial in trials),
            prompt_tokens=sum(trial.prompt_tokens for trial in trials),
            completion_tokens=sum(trial.completion_tokens for trial in trials),
            cached_tokens=sum(trial.cached_tokens for trial in trials),
            money=sum(trial.cost or 0 for trial in trials),
            seconds=sum(trial.latency for trial in trials),
        ),
        "partial": len({trial.task for trial in first} - kept),
    }


def complete(trials: Sequence[Trial]) -> list[Trial]:
    """The trials of tasks whose block is whole. How many orders a block holds is what the fullest one holds of the
    same number of tools."""
    rows: dict[str, int] = {}
    kind: dict[str, tuple[int, int]] = {}
    for trial in trials:
        rows[trial.task] = rows.get(trial.task, 0) + 1
        kind[trial.task] = (len(trial.order), trial.groups)
    full: dict[tuple[int, int], int] = {}
    for task, count in rows.items():
        full[kind[task]] = max(full.get(kind[task], 0), count)
    return [trial for trial in trials if rows[trial.task] == full[kind[trial.task]]]
