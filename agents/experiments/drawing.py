"""How every picture of a report is drawn: its colours and sizes, dots with intervals, and the finished file. Knows
nothing of what is shown.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agents.experiments.inference import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, BAND = "#1b1f24", "#5c6670", "#d5dae0", "#e6e9ed"
COLOURS = ("#0b62a4", "#c2410c", "#15803d", "#7c3aed", "#b91c1c", "#0e7490", "#a16207", "#be185d")
WIDE = 7.2  # inches; the page scales them
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, selectable, sharp
    "svg.hashsalt": "toolkit",  # the same numbers give the same file
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Picture:
    """A figure drawn, and the table of numbers behind it."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
    width: float  # inches
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def percentages(estimate: Estimate) -> tuple[float, float, float]:
    return 100 * estimate.value, 100 * estimate.low, 100 * estimate.high


def new_figure(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, height))
    return figure, figure.subplots()


def new_row(columns: int, height: float) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, height))
    return figure, list(figure.subplots(1, columns, width_ratios=[3, 2]))


def new_grid(count: int, height: float, columns: int = 2) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    across = min(columns, count)
    down = -(-count // across)
    figure = Figure(figsize=(WIDE if across > 1 or height > 5 else 4.6, height * down))
    grid = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid


def draw_dot(axes: "Axes", x: float, estimate: Estimate, colour: str, label: str | None, *, scale: float = 100) -> None:
    axes.plot([x, x], [scale * estimate.low, scale * estimate.high], color=colour, lw=1.6, zorder=3)
    axes.plot(x, scale * estimate.value, "o", color=colour, ms=6, zorder=4, label=label)


def draw_legend(axes: "Axes") -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handlelength=1.2, borderpad=0.2)


def finished(
    figure: "Figure",
    name: str,
    title: str,
    caption: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
) -> Picture:
    vector, pixels = io.StringIO(), io.BytesIO()
    figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(pixels, format="png", dpi=160, metadata={"Software": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", vector.getvalue(), flags=re.DOTALL)
    return Picture(
        name,
        title,
        caption,
        svg[svg.index("<svg") :],
        pixels.getvalue(),
        float(figure.get_figwidth()),
        columns,
        tuple(rows),
    )
