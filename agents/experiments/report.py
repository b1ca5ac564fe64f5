"""The report of an experiment on tool choice, from a folder of trials."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.experiments.analysis import Analysis, ModelAnalysis, analyse, manifest_document, write_summary
from agents.experiments.figures import pictures
from agents.experiments.page import Page, Said, Shown, write_page
from agents.experiments.wording import CERTAIN, numbered, p_text, percent, sentences, title
from toolkit.core.units import format_count, format_money

DESIGNS = {
    "rotation": "Each task was asked under all rotations of an order of its own, drawn at random from the seed, so "
    "that every tool stood once in every position of every task.",
    "grouped": "Each task was asked under rotations of an order drawn at random from the seed, in steps that put every "
    "tool once into each group of positions.",
    "williams": "Each task was asked under a Williams design: every tool stood equally often in each position and "
    "after each other tool.",
    "permutations": "Each task was asked under every order of its tools.",
    "random": "Each task was asked under random orders, as in the original experiment; positions are balanced only on "
    "average.",
    "production": "Each task was asked under the orders in which clients send tools. A position's effect and those of "
    "the tools that stand there cannot be told apart in such orders; compare the accuracy of whole orders.",
}
MODES = {
    "call": "The choice is the first native tool call of the reply.",
    "react": "The tools were listed in the prompt, and the choice is the first action in the text of the reply.",
    "logprob": "The choice is the exact distribution over tools, multiplied along the tokens of their names right "
    "after the opening of a call; accuracy counts the likeliest tool.",
}


def write_report(folder: Path, analysis: Analysis | None = None) -> Path:
    """Write `report.html`, `figures/` and `summary.json` into the folder; the report's path. Raises UsageError without
    trials."""
    analysis = analysis or analyse(folder)
    write_summary(folder, analysis)
    return write_page(folder, page(analysis, folder))


def page(analysis: Analysis, folder: Path) -> Page:
    """The report."""
    experiment = analysis.manifest.experiment
    places = max(model.measures.places for model in analysis.models)
    name = folder.name or str(folder)
    shown = len(_COST) if any(model.cost.money for model in analysis.models) else len(_COST) - 1
    columns = ("Model", "Accuracy", *(numbered(place + 1) for place in range(places)), *_COST[:shown])
    return Page(
        title=title(analysis),
        subtitle=_subtitle(analysis),
        said=[
            Said(model.model, sentences(model, balanced=analysis.balanced), model.measures.headline is not None)
            for model in analysis.models
        ],
        tables=[Shown(columns, [_row(model, places)[: len(columns)] for model in analysis.models], _EFFECTS)],
        pictures=pictures(analysis),
        method=[DESIGNS[_design(analysis)], MODES[experiment.mode], _trust(analysis)],
        facts=_facts(analysis),
        again=f"toolkit bias run --from {name} --out {name}-again",
        data=("The manifest", json.dumps(manifest_document(analysis.manifest), indent=2, ensure_ascii=False)),
        more=[Shown(("Model", *_MORE), [_more(model) for model in analysis.models])],
    )


def _design(analysis: Analysis) -> str:
    kind = analysis.manifest.experiment.design.kind
    grouped = any(model.measures.places < model.measures.widest for model in analysis.models)
    return "grouped" if kind == "rotation" and grouped else kind


_COST = ("Order", "Calls", "Tokens", "Cached", "Cost")
_EFFECTS = (
    "Effects in percentage points; * where p < .05 after Holm's correction over positions and models. The original "
    "percentage of Ozdemir (deviation of a position's share from that of the right tool) stands beside each effect in "
    "the data of the first picture."
)
_MORE = (
    "macro F1",
    "weighted F1",
    "variation by position",
    "beyond chance",
    "by tool",
    "beyond chance",
    "arguments fit",
)


def _trust(analysis: Analysis) -> str:
    measures = analysis.models[0].measures
    shared = f" (tasks share {measures.units} sets of orders, and those of one set are one unit together)"
    return (
        "Intervals are 95 % and take tasks, not calls, as the sampling unit"
        f"{shared if measures.units < measures.tasks else ''}. Whether the order matters is tested by dealing each "
        "task's orders anew among its own trials. Names of tools are compared exactly; a call that names no offered "
        "tool, or holds no JSON object, is counted as what it is and never dropped."
    )


def _more(model: ModelAnalysis) -> tuple[str, ...]:
    measures = model.measures
    scores = measures.scores
    return (
        model.model,
        f"{scores.f1:.3f}" if scores else "",
        f"{scores.weighted_f1:.3f}" if scores else "",
        *(
            f"{100 * value:.1f} %"
            for variation in (measures.position_variation, measures.tool_variation)
            for value in (variation.value, variation.beyond)
        ),
        f"{100 * measures.arguments_fit:.0f} %" if measures.arguments_fit == measures.arguments_fit else "",
    )


def _subtitle(analysis: Analysis) -> str:
    experiment = analysis.manifest.experiment
    measures = analysis.models[0].measures
    return (
        f"{measures.tasks} tasks of the suite {experiment.suite}, "
        f"{measures.trials / max(1, measures.tasks):.0f} orders each, {analysis.manifest.about.get('started', '')[:10]}"
    )


def _row(model: ModelAnalysis, places: int) -> tuple[str, ...]:
    effects = [
        f"{100 * effect.effect.value:+.1f}{'*' * (adjusted < CERTAIN)}"
        for effect, adjusted in zip(model.measures.effects, model.holm, strict=True)
    ]
    hidden = model.measures.headline is not None
    return (
        model.model,
        percent(model.measures.accuracy),
        *(["n/a"] * places if hidden else effects + [""] * (places - len(effects))),
        "n/a" if hidden else p_text(model.measures.p_value),
        f"{model.cost.calls:,}",
        format_count(model.cost.prompt_tokens + model.cost.completion_tokens),
        f"{model.cost.cached_tokens / max(1, model.cost.prompt_tokens):.0%}",
        format_money(model.cost.money),
    )


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    manifest = analysis.manifest
    experiment, about = manifest.experiment, manifest.about
    facts = [
        ("models", ", ".join(experiment.models)),
        *((f"file of {model}", digest) for model, digest in manifest.identities.items()),
        ("suite", f"{experiment.suite}, sha256 {manifest.suite_digest[:16]}"),
        ("tools", f"sha256 {manifest.tools_digest[:16]}"),
        ("design", _described(experiment.design.model_dump(exclude_none=True))),
        ("mode", f"{experiment.mode}, temperature {experiment.temperature:g}, at most {experiment.max_tokens} tokens"),
        ("tool choice", experiment.tool_choice),
        ("seed", str(experiment.seed)),
        ("endpoint", str(about.get("endpoint", ""))),
        ("machine", f"{about.get('platform', '')}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in dict(about.get("versions", {})).items())),
    ]
    return [(name, value) for name, value in facts if value]


def _described(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
