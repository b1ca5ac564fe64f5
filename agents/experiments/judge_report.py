"""The report of models that judge: what was found in sentences, the figures, and the pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

from agents.experiments.analysis import plain
from agents.experiments.drawing import (
    COLOURS,
    MUTED,
    STYLE,
    Picture,
    draw_dot,
    draw_legend,
    finished,
    new_figure,
    percentages,
)
from agents.experiments.judge import Pair, Verdict
from agents.experiments.page import Page, Said, Shown, write_page
from agents.experiments.wording import CERTAIN, p_text, percent, points

MOST_INVALID = 0.1


def write_judge_report(folder: Path, found: Sequence[Verdict], pairs: Sequence[Pair], again: str) -> Path:
    """Write `report.html` and `figures/` into the folder; the report's path. `again` is the command that repeats it."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        drawn = [_preference(found), _scores(found), _agreement(found)]
    page = Page(
        title=f"How {', '.join(verdict.model for verdict in found)} judge{'s' * (len(found) == 1)} two answers",
        subtitle=f"{len(pairs)} pairs of answers, each in both orders, scored and chosen between",
        said=[Said(verdict.model, sentences(verdict), unusable(verdict)) for verdict in found],
        tables=[Shown(_COLUMNS, [_row(verdict) for verdict in found])],
        pictures=drawn,
        method=_METHOD,
        facts=[("pairs", str(len(pairs))), ("replies", str(sum(verdict.judgements for verdict in found)))],
        again=again,
        data=("The measures", json.dumps(plain(list(found)), indent=2, ensure_ascii=False)),
    )
    return write_page(folder, page)


def unusable(verdict: Verdict) -> bool:
    """Whether too many replies hold no verdict for the rest to stand for all."""
    return verdict.invalid > MOST_INVALID * verdict.judgements


def sentences(verdict: Verdict) -> list[str]:
    """What one model's judgements show, most important first."""
    said = []
    if unusable(verdict):
        said.append(
            f"No result: {verdict.invalid} of {verdict.judgements} replies hold no verdict, and the rest may not stand "
            "for all."
        )
    favour = verdict.first_score
    if favour.low != favour.low:
        said.append(
            "Too few pairs were scored in both orders to say whether it favours the answer that it reads first."
        )
    elif verdict.first_score_p < CERTAIN:
        which = "first" if favour.value > 0 else "second"
        low, high = sorted((abs(favour.low), abs(favour.high)))
        said.append(
            f"It favours the answer that it reads {which} by {abs(favour.value):.2f} of the scale's nine points "
            f"({low:.2f} to {high:.2f}; {p_text(verdict.first_score_p)})."
        )
    else:
        said.append(
            f"Its scores show no preference for the answer read first that could be told from chance "
            f"({favour.value:+.2f} points of nine, {favour.low:+.2f} to {favour.high:+.2f}; "
            f"{p_text(verdict.first_score_p)})."
        )
    if verdict.first_choice.low == verdict.first_choice.low:
        said.append(
            f"Asked to choose, it takes the first answer {points(verdict.first_choice)} more often than half the time "
            f"({p_text(verdict.first_choice_p)})."
        )
    else:
        said.append(
            "Too few pairs were chosen between in both orders to say whether it takes the first answer more often."
        )
    said.append(
        f"In {percent(verdict.consistent)} of the pairs both orders name the same winner by score; by choice in "
        f"{percent(verdict.consistent_choice)}."
    )
    said.append(
        f"Its score is the reference's in {percent(verdict.exact)} and within one point of it in "
        f"{percent(verdict.within_one)}; it gives the middle in {percent(verdict.middle)}."
    )
    return said


_COLUMNS = ("Model", "First answer", "First chosen", "Exact", "Within one", "Rank", "Same winner", "Fives", "Invalid")
_METHOD = (
    "Each pair was judged in both orders. What remains of the mean score when the two orders are put together is the "
    "preference for the answer that is read first; a judge without one gives mirrored scores.",
    "Intervals are 95 % and take pairs, not replies, as the sampling unit. A reply without one number of the scale is "
    "counted as invalid and never dropped; a pair with one is left out of what needs both orders.",
)


def _row(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.model,
        _known(verdict.first_score.value, "+.2f", " of 9"),
        _known(100 * verdict.first_choice.value, "+.0f", " points"),
        _known(100 * verdict.exact.value, ".0f", " %"),
        _known(100 * verdict.within_one.value, ".0f", " %"),
        _known(verdict.rank, ".2f"),
        _known(100 * verdict.consistent.value, ".0f", " %"),
        _known(100 * verdict.middle.value, ".0f", " %"),
        f"{verdict.invalid} of {verdict.judgements}",
    )


def _known(value: float, form: str, unit: str = "") -> str:
    return f"{value:{form}}{unit}" if value == value else "n/a"


def _preference(found: Sequence[Verdict]) -> Picture:
    figure, axes = new_figure(2.9)
    rows: list[tuple[object, ...]] = []
    for number, verdict in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        shift = (number - (len(found) - 1) / 2) * 0.5 / len(found)
        # Both as a share of the most that is possible: 4 points of the scale, half of the choices.
        for place, (name, estimate, most) in enumerate(
            (("score", verdict.first_score, 4.0), ("choice", verdict.first_choice, 0.5))
        ):
            draw_dot(axes, place + shift, estimate, colour, verdict.model if place == 0 else None, scale=100 / most)
            rows.append((verdict.model, name, *(value / most for value in percentages(estimate))))
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.set_xticks((0, 1), ("scored from 1 to 9", "asked to choose"))
    axes.set_xlim(-0.6, 1.6)
    axes.set_ylabel("preference for the first\n(% of the most possible)")
    draw_legend(axes)
    return finished(
        figure,
        "preference",
        "Preference for the answer that is read first",
        "0 is a judge that the order does not move, 100 one that always prefers the first answer. Lines are 95 % "
        "intervals over pairs.",
        ("model", "asked", "preference_percent", "low", "high"),
        rows,
    )


def _scores(found: Sequence[Verdict]) -> Picture:
    figure, axes = new_figure(2.9)
    rows: list[tuple[object, ...]] = []
    step = 0.8 / len(found)
    for number, verdict in enumerate(found):
        total = max(1, sum(verdict.scores.values()))
        shift = (number - (len(found) - 1) / 2) * step
        shares = [100 * count / total for count in verdict.scores.values()]
        axes.bar(
            [score + shift for score in verdict.scores],
            shares,
            width=0.9 * step,
            color=COLOURS[number % len(COLOURS)],
            label=verdict.model,
        )
        rows += [
            (verdict.model, score, count, share)
            for (score, count), share in zip(verdict.scores.items(), shares, strict=True)
        ]
    axes.set_xticks(range(1, 10), ["1\nfirst far better", *map(str, range(2, 5)), "5\nequal", "6", "7", "8", "9"])
    axes.set_ylabel("share of scores (%)")
    draw_legend(axes)
    return finished(
        figure,
        "scores",
        "Which scores were given",
        "Both orders together: a judge that the order does not move gives 2 as often as 8, and 3 as often as 7.",
        ("model", "score", "count", "percent"),
        rows,
    )


def _agreement(found: Sequence[Verdict]) -> Picture:
    figure, axes = new_figure(3.0)
    rows: list[tuple[object, ...]] = []
    names = ("equal to the\nreference", "within one\nof it", "same winner\n(score)", "same winner\n(choice)")
    for number, verdict in enumerate(found):
        shift = (number - (len(found) - 1) / 2) * 0.5 / len(found)
        shown = (verdict.exact, verdict.within_one, verdict.consistent, verdict.consistent_choice)
        for place, (name, estimate) in enumerate(zip(names, shown, strict=True)):
            label = verdict.model if place == 0 else None
            draw_dot(axes, place + shift, estimate, COLOURS[number % len(COLOURS)], label)
            rows.append((verdict.model, name.replace("\n", " "), *percentages(estimate)))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(0, 103)
    axes.set_ylabel("share of pairs (%)")
    draw_legend(axes)
    return finished(
        figure,
        "agreement",
        "Agreement with the reference, and with itself in the other order",
        "95 % intervals over pairs.",
        ("model", "measure", "percent", "low", "high"),
        rows,
    )
