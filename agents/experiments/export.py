"""Trials as a flat table for other programs: CSV (here) or Parquet (needs the extra `parquet`)."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from agents.experiments.trials import Trial
from toolkit.core.errors import ToolkitError
from toolkit.core.paths import atomic_path

COLUMNS = [field.name for field in fields(Trial)]


def write_csv(trials: Sequence[Trial], file: TextIO) -> None:
    """One line a trial; orders and probabilities as JSON in their cells. Text that a spreadsheet would take for a
    formula is kept as text by a leading apostrophe."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for trial in trials:
        writer.writerow([_cell(value) for value in asdict(trial).values()])


def write_parquet(trials: Sequence[Trial], path: Path) -> None:
    """The same with typed columns. Raises ToolkitError without pyarrow."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ToolkitError(
            "writing Parquet needs pyarrow, which is not installed", hint="pip install 'local-llm-toolkit[parquet]'"
        ) from None
    rows = [asdict(trial) for trial in trials]
    with atomic_path(path) as temporary:
        parquet.write_table(arrow.Table.from_pylist(rows), temporary)


def _cell(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
