"""One self-contained HTML page, and its pictures as SVG and PNG beside it: what every report looks like. Knows nothing
of what it reports.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agents.experiments.drawing import WIDE, Picture
from toolkit.core.paths import write_bytes, write_text

REPORT = "report.html"
FULL = 48.0  # rem, of a picture as wide as the page


@dataclass(frozen=True)
class Said:
    """Sentences about one thing, the most important first. `warn` where they are no result."""

    name: str
    sentences: Sequence[str]
    warn: bool = False


@dataclass(frozen=True)
class Shown:
    """A table; all columns but the first are figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A report. `tables` stand before the pictures, `more` behind them; `again` is the command that repeats it, and
    `data` a document that is one click away, with its name."""

    title: str
    subtitle: str
    said: Sequence[Said]
    tables: Sequence[Shown]
    pictures: Sequence[Picture]
    method: Sequence[str]
    facts: Sequence[tuple[str, str]]
    again: str
    data: tuple[str, str]
    more: Sequence[Shown] = ()


def write_page(folder: Path, page: Page) -> Path:
    """Write `report.html` and `figures/` into the folder; the report's path."""
    for picture in page.pictures:
        write_text(folder / "figures" / f"{picture.name}.svg", picture.svg)
        write_bytes(folder / "figures" / f"{picture.name}.png", picture.png)
    path = folder / REPORT
    write_text(path, html(page))
    return path


def html(page: Page) -> str:
    """The page. Everything that came from outside is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = files("agents.experiments").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(page=page, pictures=[_shown(picture) for picture in page.pictures])


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
