"""The report of two quantisations of one model: what was found in sentences, the figures, and the pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.experiments.compare import Difference
from agents.experiments.drawing import COLOURS, MUTED, STYLE, Picture, draw_dot, finished, new_figure, percentages
from agents.experiments.page import Page, Said, Shown, write_page
from agents.experiments.quant import Distance
from agents.experiments.wording import CERTAIN, p_text, percent, points


def write_quant_report(
    folder: Path,
    names: tuple[str, str],
    table: Sequence[Sequence[str]],
    far: Distance,
    paired: Sequence[Difference],
    document: Mapping[str, Any],
    again: str,
) -> Path:
    """Write `report.html` and `figures/` into the folder; the report's path. `table` has four columns: measure, first,
    second, difference; `document` is all that was measured, `again` the command that repeats it."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        drawn = [_overlap(far), *([_choices(paired)] if paired else [])]
    page = Page(
        title=f"What {names[1]} costs against {names[0]}",
        subtitle=f"{far.places:,} next tokens in {far.windows} stretches of one text",
        said=[Said(f"{names[1]}, against {names[0]}", sentences(document, far, paired))],
        tables=[Shown(("", *names, "Difference"), table)],
        pictures=drawn,
        method=(_WHOLE if far.exact else _LIKELIEST, _INTERVALS),
        facts=[("first file", str(document["files"][0])), ("second file", str(document["files"][1]))],
        again=again,
        data=("The measures", json.dumps(document, indent=2, ensure_ascii=False)),
    )
    return write_page(folder, page)


def sentences(document: Mapping[str, Any], far: Distance, paired: Sequence[Difference]) -> list[str]:
    """What the second file costs, most important first."""
    (size, other_size), (memory, other_memory) = document["sizes"], document["peak_memory"]
    one, other = document["profiles"]
    ratio = far.perplexity_ratio
    worse = "worse" if ratio.value > 1 else "better"
    told = (
        f"{100 * abs(ratio.value - 1):.1f} % {worse}" if not ratio.low <= 1 <= ratio.high else "no different for sure"
    )
    said = [
        f"It is {other_size / size:.0%} of the size and takes {other_memory / memory:.0%} of the memory; it reads at "
        f"{other['prompt_speed']['value'] / one['prompt_speed']['value']:.0%} and writes at "
        f"{other['reply_speed']['value'] / one['reply_speed']['value']:.0%} of the speed.",
        f"At predicting the text it is {told} (perplexity times {ratio.value:.3f}, {ratio.low:.3f} to "
        f"{ratio.high:.3f}).",
        f"The likeliest next token is the same in {percent(far.jaccard[1])} of the places.",
    ]
    changed = [difference for difference in paired if difference.holm < CERTAIN]
    for difference in changed:
        said.append(f"Tool choice, {difference.measure}: {points(difference.difference)}, {p_text(difference.holm)}.")
    if paired and not changed:
        said.append(
            f"No difference in tool choice can be told from chance (accuracy {points(paired[0].difference)}, over "
            f"{paired[0].tasks} tasks)."
        )
    return said


_JACCARD = (
    "The overlap of the n likeliest is Jaccard's: those in both as a share of those in either. The divergence is "
    "Kullback and Leibler's of the second from the first, "
)
_WHOLE = (
    "Both files read the same text in llama-cpp-python, which gives the probability of every token of the vocabulary "
    f"at each place. {_JACCARD}over the whole vocabulary."
)
_LIKELIEST = (
    "Both files read the same text, and at each place llama.cpp's server was asked for the likeliest next tokens. "
    f"{_JACCARD}over the tokens that both name and the rest as one: a lower bound."
)
_INTERVALS = (
    "Intervals are 95 %, over stretches of text (next tokens), runs (speed), or tasks paired between the files (tool "
    "choice, with Holm's correction)."
)


def _overlap(far: Distance) -> Picture:
    figure, axes = new_figure(2.8)
    for place, estimate in enumerate(far.jaccard.values()):
        draw_dot(axes, place, estimate, COLOURS[0], None)
    axes.set_xticks(range(len(far.jaccard)), [f"top {top}" for top in far.jaccard])
    axes.set_xlim(-0.5, len(far.jaccard) - 0.5)
    axes.set_ylim(min(95.0, 100 * min(estimate.low for estimate in far.jaccard.values()) - 2), 100.5)
    axes.set_ylabel("overlap (%)")
    return finished(
        figure,
        "overlap",
        "Overlap of the likeliest next tokens",
        "How many of the n likeliest next tokens both files share, of those that either names; averaged over places, "
        "with 95 % intervals over stretches of text.",
        ("top", "overlap_percent", "low", "high"),
        [(top, *percentages(estimate)) for top, estimate in far.jaccard.items()],
    )


def _choices(paired: Sequence[Difference]) -> Picture:
    figure, axes = new_figure(2.9)
    for place, difference in enumerate(paired):
        draw_dot(axes, place, difference.difference, COLOURS[0], None)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.set_xticks(range(len(paired)), [difference.measure.replace(" ", "\n") for difference in paired])
    axes.set_xlim(-0.5, len(paired) - 0.5)
    axes.set_ylabel("second less first\n(percentage points)")
    return finished(
        figure,
        "tool-choice",
        "What changes in the choice of tools",
        "Accuracy, and the effect of each position on the choice: the second file's less the first's, paired by task. "
        "Lines are 95 % intervals.",
        ("measure", "difference_pp", "low", "high", "p", "p_holm"),
        [(d.measure, *percentages(d.difference), d.p_value, d.holm) for d in paired],
    )
