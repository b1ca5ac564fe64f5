"""One self-contained HTML page from a folder of trials, and the pictures as SVG and PNG beside it."""

import csv
import io
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agents.experiments.analysis import Analysis, ModelAnalysis, analyse, manifest_document, write_summary
from agents.experiments.figures import WIDE, Picture, pictures
from agents.experiments.wording import CERTAIN, p_text, percent, sentences, title
from toolkit.core.paths import write_bytes, write_text
from toolkit.core.units import format_count, format_money

REPORT = "report.html"
FULL = 48.0  # rem, of a picture as wide as the page

DESIGNS = {
    "rotation": "Each task was asked under all rotations of an order of its own, drawn at random from the seed, so "
    "that every tool stood once in every position of every task.",
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
    """Write `report.html` and `figures/` into the folder; the report's path. Raises UsageError without trials."""
    analysis = analysis or analyse(folder)
    drawn = pictures(analysis)
    for picture in drawn:
        write_text(folder / "figures" / f"{picture.name}.svg", picture.svg)
        write_bytes(folder / "figures" / f"{picture.name}.png", picture.png)
    write_summary(folder, analysis)
    path = folder / REPORT
    write_text(path, page(analysis, drawn, folder))
    return path


def page(analysis: Analysis, drawn: list[Picture], folder: Path) -> str:
    """The report as HTML. Everything that came from outside is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = files("agents.experiments").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    experiment = analysis.manifest.experiment
    places = max(model.measures.places for model in analysis.models)
    return environment.from_string(template).render(
        title=title(analysis),
        subtitle=_subtitle(analysis),
        models=[
            {
                "name": model.model,
                "sentences": sentences(model, balanced=analysis.balanced),
                "warn": model.measures.headline is not None,
            }
            for model in analysis.models
        ],
        places=[f"{_ordinal(place + 1)}" for place in range(places)],
        table=[_row(model, places) for model in analysis.models],
        pictures=[_shown(picture) for picture in drawn],
        more_names=_MORE,
        more=[_more(model) for model in analysis.models],
        method=[DESIGNS[experiment.design.kind], MODES[experiment.mode], _TRUST],
        facts=_facts(analysis),
        manifest=json.dumps(manifest_document(analysis.manifest), indent=2, ensure_ascii=False),
        folder=folder.name or str(folder),
    )


_TRUST = (
    "Intervals are 95 % and take tasks, not calls, as the sampling unit. Whether the order matters is tested by "
    "dealing each task's orders anew among its own trials. Names of tools are compared exactly; a call that names no "
    "offered tool, or holds no JSON object, is counted as what it is and never dropped."
)
_MORE = (
    "macro F1",
    "weighted F1",
    "variation by position",
    "beyond chance",
    "by tool",
    "beyond chance ",
    "arguments fit",
)


def _more(model: ModelAnalysis) -> dict[str, Any]:
    measures = model.measures
    scores = measures.scores
    cells = [
        f"{scores.f1:.3f}" if scores else "",
        f"{scores.weighted_f1:.3f}" if scores else "",
        *(
            f"{100 * value:.1f} %"
            for variation in (measures.position_variation, measures.tool_variation)
            for value in (variation.value, variation.beyond)
        ),
        f"{100 * measures.arguments_fit:.0f} %" if measures.arguments_fit == measures.arguments_fit else "",
    ]
    return {"name": model.model, "cells": cells}


def _subtitle(analysis: Analysis) -> str:
    experiment = analysis.manifest.experiment
    measures = analysis.models[0].measures
    return (
        f"{measures.tasks} tasks of the suite {experiment.suite}, "
        f"{measures.trials / max(1, measures.tasks):.0f} orders each, {analysis.manifest.about.get('started', '')[:10]}"
    )


def _row(model: ModelAnalysis, places: int) -> dict[str, Any]:
    effects = [
        f"{100 * effect.effect.value:+.1f}{'*' * (adjusted < CERTAIN)}"
        for effect, adjusted in zip(model.measures.effects, model.holm, strict=True)
    ]
    hidden = model.measures.headline is not None
    return {
        "name": model.model,
        "accuracy": percent(model.measures.accuracy) if model.measures.scores else "",
        "effects": ["n/a"] * places if hidden else effects + [""] * (places - len(effects)),
        "p": "n/a" if hidden else p_text(model.measures.p_value),
        "calls": f"{model.cost.calls:,}",
        "tokens": format_count(model.cost.prompt_tokens + model.cost.completion_tokens),
        "cached": f"{model.cost.cached_tokens / max(1, model.cost.prompt_tokens):.0%}",
        "cost": format_money(model.cost.money),
    }


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


def _ordinal(number: int) -> str:
    return f"{number}{'st' if number == 1 else 'nd' if number == 2 else 'rd' if number == 3 else 'th'}"


def _shown(picture: Picture) -> dict[str, Any]:
    return {
        "name": picture.name,
        "title": picture.title,
        "caption": picture.caption,
        "svg": _accessible(picture),
        "width": round(picture.width * FULL / WIDE, 1),
        "columns": picture.columns,
        "rows": [[_cell(value) for value in row] for row in picture.rows],
        "count": len(picture.rows),
        "csv": "data:text/csv;charset=utf-8," + quote(as_csv(picture)),
    }


def _accessible(picture: Picture) -> str:
    """The SVG with a name for those who do not see it, and ids of its own so that several can share a page."""
    from markupsafe import escape

    svg = picture.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(picture.title)}" ', 1)
    for mark in ('id="', 'href="#', "url(#"):
        svg = svg.replace(mark, f"{mark}{picture.name}-")
    return svg


def as_csv(picture: Picture) -> str:
    """The numbers behind a picture."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(picture.columns)
    writer.writerows(picture.rows)
    return text.getvalue()


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
