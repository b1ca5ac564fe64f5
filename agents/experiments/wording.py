"""The plain-language summary: what was found, in sentences that a person who knows no statistics can use."""

from agents.experiments.analysis import Analysis, ModelAnalysis
from agents.experiments.inference import Estimate

CERTAIN = 0.05


def points(estimate: Estimate) -> str:
    """`+3.1 points (+1.0 to +5.2)`."""
    return interval(estimate, "+.1f", " points", times=100)


def percent(estimate: Estimate) -> str:
    """`84 % (78 to 89)`."""
    return interval(estimate, ".0f", " %", times=100)


def interval(estimate: Estimate, form: str, unit: str = "", *, times: float = 1) -> str:
    """A value in its unit and its interval, in a format of Python's; what is not known is said, never `nan`."""
    value, low, high = (format(times * part, form) for part in (estimate.value, estimate.low, estimate.high))
    if estimate.value != estimate.value:
        return "unknown"
    return f"{value}{unit} ({low} to {high})" if estimate.low == estimate.low else f"{value}{unit} (interval unknown)"


def p_text(p: float) -> str:
    """`p = .03`, `p < .001`."""
    if p != p:
        return "p unknown"
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def ordinal(number: int) -> str:
    """1 -> `first`, 12 -> `12th`."""
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    return words[number - 1] if number <= len(words) else numbered(number)


def numbered(number: int) -> str:
    """1 -> `1st`, 12 -> `12th`."""
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{suffix}"


def verdict(model: ModelAnalysis, *, balanced: bool) -> str:
    """One sentence: does the order matter to this model, and how?"""
    measures = model.measures
    if not measures.tasks:
        return "No task has all of its trials yet."
    if not balanced:
        return "The orders are those that clients send; a position's own effect cannot be told from the tools' in them."
    if measures.headline is not None:
        return f"No result: {measures.headline}."
    strongest = max(measures.effects, key=lambda effect: abs(effect.effect.value))
    if measures.p_value >= CERTAIN:
        missed = max(effect.detectable for effect in measures.effects)
        return (
            f"No effect of the order can be told from chance ({p_text(measures.p_value)}). "
            f"An effect of {100 * missed:.1f} points or more would have been found in four of five such experiments."
        )
    direction = "likelier" if strongest.effect.value > 0 else "less likely"
    grouped = measures.places < measures.widest
    where = f"in the {ordinal(strongest.place + 1)} " + ("part of the list" if grouped else "place")
    size = f"{abs(100 * strongest.effect.value):.1f} points"
    return (
        f"The order matters ({p_text(measures.p_value)}): a tool {where} is {size} {direction} to be chosen than the "
        f"same tool in an average place."
    )


def sentences(model: ModelAnalysis, *, balanced: bool) -> list[str]:
    """The summary of one model, most important first."""
    measures = model.measures
    said = [verdict(model, balanced=balanced)]
    if measures.scores is not None:
        first = f"The right tool was called in {percent(measures.accuracy)} of the trials"
        always = f"; {100 * measures.always_right.value:.0f} % of the tasks were right in every order."
        said.append(first + always)
        if measures.gap == measures.gap and measures.p_value < CERTAIN and balanced and not measures.headline:
            said.append(
                f"Accuracy differs by {100 * measures.gap:.0f} points between the right tool's best and worst place "
                f"(chance alone gives {100 * measures.gap_floor:.0f})."
            )
    if measures.flips is not None:
        flips = measures.flips
        said.append(
            f"Another order changes the tool in {100 * flips.across.value:.0f} % of pairs of runs, the same order "
            f"asked again in {100 * flips.same.value:.0f} %: {points(flips.excess)} are due to order."
        )
    if measures.without_choice > 0.02 and measures.headline is None:
        said.append(
            f"{100 * measures.without_choice:.0f} % of the trials hold no valid choice; they count in every share."
        )
    for arm in model.arms:
        if arm.holm < CERTAIN:
            said.append(f"With {arm.arm} ({arm.about}): {points(arm.change)}.")
    if model.partial:
        said.append(f"{model.partial} tasks are incomplete and left out of the measures; the same command goes on.")
    return said


def title(analysis: Analysis) -> str:
    """The report's heading."""
    experiment = analysis.manifest.experiment
    return f"How {', '.join(experiment.models)} choose{'s' * (len(experiment.models) == 1)} tools"
