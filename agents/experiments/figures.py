"""The report's pictures, one function each: from an analysis to a drawing and the numbers behind it. Knows nothing of
pages or files.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agents.experiments.analysis import Analysis, ModelAnalysis
from agents.experiments.drawing import (
    BAND,
    COLOURS,
    INK,
    MUTED,
    STYLE,
    Picture,
    draw_dot,
    draw_legend,
    finished,
    new_figure,
    new_grid,
    new_row,
    percentages,
)
from agents.experiments.inference import detectable, spread_in
from agents.experiments.scoring import OUTCOMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TOOLS = 45  # beyond, a confusion matrix says nothing to the eye


def pictures(analysis: Analysis) -> list[Picture]:
    """Every picture that the analysis has data for, in the order of the report."""
    import matplotlib as mpl

    drawing = (_forest, _coefficients, _places, _by_place, _flips, _outcomes, _tools, _arms, _remedies, _detect)
    with mpl.rc_context(STYLE):
        drawn = [draw(analysis.models) for draw in drawing]
    return [picture for picture in drawn if picture is not None]


def _forest(models: Sequence[ModelAnalysis]) -> Picture | None:
    places = max(model.measures.places for model in models)
    if places < 2:
        return None
    figure, axes = new_figure(3.4)
    step = 0.72 / len(models)
    for number, model in enumerate(models):
        shift = (number - (len(models) - 1) / 2) * step
        colour = COLOURS[number % len(COLOURS)]
        for effect in model.measures.effects:
            x = effect.place + 1 + shift
            axes.bar(
                x,
                100 * (effect.null_high - effect.null_low),
                width=min(step, 0.34),
                bottom=100 * effect.null_low,
                color=BAND,
                zorder=1,
                label="95 % of models that ignore the order" if number == effect.place == 0 else None,
            )
            draw_dot(axes, x, effect.effect, colour, model.model if effect.place == 0 else None)
    axes.axhline(0, color=MUTED, lw=0.8, zorder=2)
    _positions(axes, models)
    axes.set_ylabel("effect of the position\n(percentage points)")
    draw_legend(axes)
    rows = [
        (
            *(m.model, e.place + 1, *percentages(e.effect), e.p_value, adjusted),
            *(100 * e.null_low, 100 * e.null_high, 100 * e.original, 100 * e.detectable),
        )
        for m in models
        for e, adjusted in zip(m.measures.effects, m.holm, strict=True)
    ]
    return finished(
        figure,
        "position-effects",
        "Effect of each position",
        "How much likelier a tool is chosen because it stands there, averaged over tools and tasks. Dots are "
        "estimates, lines 95 % intervals; the grey band is where a model that ignores the order "
        "would fall in 95 of 100 experiments.",
        (
            *("model", "position", "effect_pp", "low_pp", "high_pp", "p", "p_holm", "null_low_pp", "null_high_pp"),
            *("original_percent", "detectable_pp"),
        ),
        rows,
    )


def _coefficients(models: Sequence[ModelAnalysis]) -> Picture | None:
    known = [(model, model.measures.coefficients) for model in models if model.measures.coefficients]
    if not known:
        return None
    figure, axes = new_figure(3.0)
    step = 0.6 / len(known)
    rows: list[tuple[object, ...]] = []
    for number, (model, coefficients) in enumerate(known):
        for place, estimate in enumerate(coefficients):
            x = place + 1 + (number - (len(known) - 1) / 2) * step
            draw_dot(axes, x, estimate, COLOURS[number % len(COLOURS)], model.model if place == 0 else None, scale=1)
            rows.append((model.model, place + 1, estimate.value, estimate.low, estimate.high))
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.set_xticks(range(1, len(known[0][1]) + 1))
    axes.set_xlabel("position in the list of tools")
    axes.set_ylabel("log-odds against\nthe average position")
    draw_legend(axes)
    return finished(
        figure,
        "position-coefficients",
        "Position coefficients from probabilities",
        "The model's own lean towards each position, from exact probabilities: the mean over each task's block of the "
        "log probability at that position, less the mean over positions. 0.69 is twice the odds.",
        ("model", "position", "coefficient", "low", "high"),
        rows,
    )


def _places(models: Sequence[ModelAnalysis]) -> Picture | None:
    shown = [m for m in models if m.measures.places > 1 and any(any(row) for row in m.measures.place_confusion)]
    if not shown:
        return None
    figure, grid = new_grid(len(shown), 2.9)
    rows: list[tuple[object, ...]] = []
    for axes, model in zip(grid, shown, strict=False):
        counts = np.array(model.measures.place_confusion, dtype=float)
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        names = [str(place + 1) for place in range(model.measures.places)]
        _heat(axes, shares, names, [*names, "none"], f"{model.model}")
        axes.set_xlabel("position chosen")
        axes.set_ylabel("right tool's position")
        rows += [
            (model.model, i + 1, column, int(counts[i, j]), 100 * shares[i, j])
            for i in range(len(names))
            for j, column in enumerate([*names, "none"])
        ]
    return finished(
        figure,
        "right-by-chosen",
        "Where the right tool stood, and which position was chosen",
        "Percent of the trials of a row. A model that ignores the order has the same figure along the whole diagonal, "
        "and no favoured column beside it.",
        ("model", "right_position", "chosen_position", "trials", "percent"),
        rows,
    )


def _by_place(models: Sequence[ModelAnalysis]) -> Picture | None:
    shown = [m for m in models if m.measures.scores is not None and m.measures.places > 1]
    if not shown:
        return None
    figure, axes = new_figure(3.0)
    rows: list[tuple[object, ...]] = []
    for number, model in enumerate(shown):
        xs = [place + 1 + (number - (len(shown) - 1) / 2) * 0.08 for place in range(model.measures.places)]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(xs, [100 * e.value for e in model.measures.by_place], color=colour, lw=1, alpha=0.5)
        for place, estimate in enumerate(model.measures.by_place):
            draw_dot(axes, xs[place], estimate, colour, model.model if place == 0 else None)
            rows.append((model.model, place + 1, *percentages(estimate)))
    _positions(axes, shown)
    axes.set_xlabel("position of the right tool")
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 103)
    draw_legend(axes)
    return finished(
        figure,
        "accuracy-by-position",
        "Accuracy by the right tool's position",
        "How often the right tool was called, by where it stood. 95 % intervals.",
        ("model", "right_position", "accuracy_percent", "low", "high"),
        rows,
    )


def _flips(models: Sequence[ModelAnalysis]) -> Picture | None:
    shown = [(model, model.measures.flips) for model in models if model.measures.flips is not None]
    if not shown:
        return None
    figure, axes = new_figure(0.9 + 0.75 * len(shown))
    rows: list[tuple[object, ...]] = []
    for number, (model, flips) in enumerate(shown):
        for shift, estimate, colour, label in (
            (0.17, flips.across, COLOURS[0], "another order"),
            (-0.17, flips.same, "#9aa5b1", "the same order again"),
        ):
            y = number + shift
            axes.barh(y, 100 * estimate.value, height=0.3, color=colour, label=label if number == 0 else None)
            axes.plot([100 * estimate.low, 100 * estimate.high], [y, y], color=INK, lw=1)
        rows.append(
            (model.model, *percentages(flips.across), *percentages(flips.same), *percentages(flips.excess), flips.tasks)
        )
    axes.set_yticks(range(len(shown)), [model.model for model, _ in shown])
    axes.set_xlabel("pairs of runs that call different tools (%)")
    axes.set_xlim(0)
    draw_legend(axes)
    return finished(
        figure,
        "flips",
        "Changes of mind, against the noise floor",
        "How often two runs of one task end in different tools: under two orders, and under the same order asked "
        "again. Only the difference is due to order.",
        (
            *("model", "across_percent", "across_low", "across_high", "same_percent", "same_low", "same_high"),
            *("excess_pp", "excess_low", "excess_high", "tasks"),
        ),
        rows,
    )


def _outcomes(models: Sequence[ModelAnalysis]) -> Picture | None:
    colours = ("#15803d", "#c2410c", "#7c3aed", "#b91c1c", "#9aa5b1", INK)
    figure, axes = new_figure(0.9 + 0.5 * len(models))
    rows: list[tuple[object, ...]] = []
    for number, model in enumerate(models):
        total = max(1, sum(model.outcomes.values()))
        left = 0.0
        for outcome, colour in zip(OUTCOMES, colours, strict=True):
            share = 100 * model.outcomes[outcome] / total
            label = outcome.replace("_", " ") if number == 0 else None
            axes.barh(number, share, left=left, height=0.55, color=colour, label=label)
            left += share
            rows.append((model.model, outcome, model.outcomes[outcome], share))
    axes.set_yticks(range(len(models)), [model.model for model in models])
    axes.set_xlabel("trials (%)")
    axes.set_xlim(0, 100)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, handlelength=0.9, columnspacing=1.0, borderpad=0.2)
    return finished(
        figure,
        "outcomes",
        "What became of every trial",
        "All trials, none dropped.",
        ("model", "outcome", "trials", "percent"),
        rows,
    )


def _tools(models: Sequence[ModelAnalysis]) -> Picture | None:
    shown = [m for m in models if m.measures.scores is not None and len(m.measures.tools) <= MOST_TOOLS]
    if not shown:
        return None
    many = max(len(m.measures.tools) for m in shown)
    figure, grid = new_grid(len(shown), 3.3 if many <= 10 else 6.5, columns=2 if many <= 10 else 1)
    rows: list[tuple[object, ...]] = []
    for axes, model in zip(grid, shown, strict=False):
        counts = np.array(model.measures.confusion, dtype=float)
        used = [i for i in range(len(counts)) if counts[i].sum()]
        kept = [*(i for i in range(len(counts)) if counts[i].sum() or counts[:, i].sum()), len(counts)]
        names = [*model.measures.tools, "none"]
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        labels = [names[i] for i in kept]
        _heat(axes, shares[np.ix_(used, kept)], [names[i] for i in used], labels, model.model, tilt=True)
        rows += [(model.model, names[i], names[j], int(counts[i, j]), 100 * shares[i, j]) for i in used for j in kept]
        axes.set_xlabel("called")
        axes.set_ylabel("right")
    return finished(
        figure,
        "tools",
        "Which tool was taken for which",
        "Percent of the trials in which the tool of the row was right.",
        ("model", "right", "called", "trials", "percent"),
        rows,
    )


def _arms(models: Sequence[ModelAnalysis]) -> Picture | None:
    shown = [(model, arm) for model in models for arm in model.arms]
    if not shown:
        return None
    figure, axes = new_figure(1.0 + 0.42 * len(shown))
    for number, (model, arm) in enumerate(reversed(shown)):
        colour = COLOURS[models.index(model) % len(COLOURS)]
        axes.plot([arm.odds.low, arm.odds.high], [number, number], color=colour, lw=1.6)
        axes.plot(arm.odds.value, number, "o", color=colour, ms=6)
    labels = [f"{arm.arm}" + (f"  {model.model}" if len(models) > 1 else "") for model, arm in reversed(shown)]
    axes.set_yticks(range(len(shown)), labels)
    axes.axvline(1, color=MUTED, lw=0.8)
    axes.set_xscale("log")
    low = min(0.45, *(arm.odds.low for _, arm in shown))
    high = max(2.2, *(arm.odds.high for _, arm in shown))
    axes.set_xlim(low / 1.15, high * 1.15)
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low / 1.15 <= t <= high * 1.15]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("odds of being chosen, dressed against plain")
    rows = [
        (
            *(
                m.model,
                a.arm,
                a.about,
                a.tasks,
                a.trials,
                *percentages(a.before),
                *percentages(a.after),
                *percentages(a.change),
            ),
            *(a.odds.value, a.odds.low, a.odds.high, a.p_value, a.holm),
        )
        for m, a in shown
    ]
    return finished(
        figure,
        "attributes",
        "What dressing a tool does",
        "Odds ratios with 95 % intervals; each dressing is compared with the plain list in the same "
        "orders of the same tasks. Where all tools are renamed: odds of a right answer; for the duplicate: odds that "
        "the one of two equal tools is called that stands first.",
        (
            *("model", "arm", "about", "tasks", "trials", "before_percent", "before_low", "before_high"),
            *("after_percent", "after_low", "after_high", "change_pp", "change_low", "change_high"),
            *("odds_ratio", "odds_low", "odds_high", "p", "p_holm"),
        ),
        rows,
    )


def _remedies(models: Sequence[ModelAnalysis]) -> Picture | None:
    shown = [model for model in models if model.remedies]
    if not shown:
        return None
    figure, (left, right) = new_row(2, 3.1)
    names = [remedy.name for remedy in shown[0].remedies]
    step = 0.7 / len(shown)
    rows: list[tuple[object, ...]] = []
    for number, model in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        for remedy in model.remedies:
            if remedy.name not in names:
                continue
            y = len(names) - 1 - names.index(remedy.name) - (number - (len(shown) - 1) / 2) * step
            interval = [100 * remedy.accuracy.low, 100 * remedy.accuracy.high]
            left.plot(interval, [y, y], color=colour, lw=1.6)
            left.plot(100 * remedy.accuracy.value, y, "o", color=colour, label=model.model if y == number else None)
            right.barh(y, 100 * remedy.variation, height=step * 0.8, color=colour)
            rows.append(
                (
                    *(model.model, remedy.name, remedy.about, remedy.calls, *percentages(remedy.accuracy)),
                    *(*percentages(remedy.gain), 100 * remedy.variation),
                )
            )
    calls = {remedy.name: remedy.calls for remedy in shown[0].remedies}
    left.set_yticks(
        range(len(names)), [f"{name}\n{calls[name]:g} call{'s' * (calls[name] > 1)}" for name in names[::-1]]
    )
    right.set_yticks([])
    left.set_xlabel("accuracy (%)")
    right.set_xlabel("position bias left\n(total variation, %)")
    right.set_xlim(0, max(5.0, 1.15 * max(100 * remedy.variation for m in shown for remedy in m.remedies)))
    return finished(
        figure,
        "remedies",
        "Remedies: what each gains, and what it costs in calls",
        "Accuracy with 95 % intervals, and how unevenly the choices still fall on positions.",
        (
            *("model", "remedy", "about", "calls", "accuracy_percent", "accuracy_low", "accuracy_high"),
            *("gain_pp", "gain_low", "gain_high", "variation_percent"),
        ),
        rows,
    )


def _detect(models: Sequence[ModelAnalysis]) -> Picture | None:
    figure, axes = new_figure(3.0)
    rows: list[tuple[object, ...]] = []
    drawn = False
    for number, model in enumerate(models):
        spread = spread_of(model)
        own = model.measures.units
        if not np.isfinite(spread) or spread == 0 or own < 2:
            continue
        drawn = True
        per_unit = model.measures.trials / own
        units = sorted({*np.unique(np.geomspace(min(10, own), 1000 * own / model.measures.tasks, 40).astype(int)), own})
        found = [100 * detectable(spread, count) for count in units]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot([count * per_unit for count in units], found, color=colour, label=model.model)
        axes.plot(model.measures.trials, found[units.index(own)], "o", color=colour)
        tasks = model.measures.tasks / own
        rows += [
            (model.model, round(count * tasks), round(count * per_unit), value)
            for count, value in zip(units, found, strict=True)
        ]
    if not drawn:
        return None
    axes.set_xscale("log")
    axes.set_ylim(0)
    axes.set_xlabel("calls")
    axes.set_ylabel("smallest effect found\nin 4 of 5 experiments (pp)")
    draw_legend(axes)
    return finished(
        figure,
        "detectable",
        "What this experiment could have missed",
        "The smallest effect of a position that would be found with a chance of 80 % at this model's spread between "
        "tasks, by the number of calls. The dot is this experiment.",
        ("model", "tasks", "calls", "detectable_pp"),
        rows,
    )


def spread_of(model: ModelAnalysis) -> float:
    """Root mean square over positions of the standard deviation between sampling units."""
    spreads = [spread_in(effect.effect, model.measures.units) for effect in model.measures.effects]
    return float(np.sqrt(np.mean(np.square(spreads))))


def _heat(
    axes: "Axes", shares: np.ndarray, down: Sequence[str], across: Sequence[str], title: str, *, tilt: bool = False
) -> None:
    small = len(across) <= 12
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_title(title)
    axes.set_xticks(
        range(len(across)),
        across,
        rotation=90 if not small else 35 if tilt else 0,
        ha="right" if tilt and small else "center",
    )
    axes.set_yticks(range(len(down)), down)
    if not small:
        axes.tick_params(labelsize=6)
        return
    for i in range(shares.shape[0]):
        for j in range(shares.shape[1]):
            tone = "white" if shares[i, j] > 0.55 else INK
            axes.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", color=tone, fontsize=9)


def _positions(axes: "Axes", models: Sequence[ModelAnalysis]) -> None:
    places = max(model.measures.places for model in models)
    axes.set_xticks(range(1, places + 1))
    axes.set_xlim(0.4, places + 0.6)
    size = max(model.measures.widest for model in models)
    axes.set_xlabel(
        "position in the list of tools"
        if places == size
        else f"position in the list of {size} tools, in {places} groups"
    )
