"""`toolkit spend`: what was spent, by key, model, day or client."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Config, Json, Output

if TYPE_CHECKING:
    from gateway.keys.spend import Line
    from gateway.keys.virtual_key import VirtualKey

app = typer.Typer(rich_markup_mode=None)
BAR = 24  # columns of the longest bar; a third of that where more columns follow


@app.command()
def spend(
    by: Annotated[str, typer.Option(help="key, model, day or client.")] = "key",
    since: Annotated[str | None, typer.Option(help="How far back: 7d, 12h, or a day like 2027-01-31.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """What was spent, with a bar for each line; by key also what is left and when it resets."""
    from gateway.keys.spend import By, report
    from gateway.keys.store import open_store
    from gateway.settings import load_settings
    from toolkit.cli.keys import system_time_zone
    from toolkit.core.errors import UsageError

    out = Output(json=json)
    if csv and json:
        raise UsageError("--csv and --json exclude each other", hint="drop one of them")
    try:
        group = By(by)
    except ValueError:
        raise UsageError(f"spend is shown by key, model, day or client, not by {by}", hint="--by model") from None
    time_zone = system_time_zone()
    with open_store(load_settings(config).keys.url) as store:
        store.sweep()
        lines = report(store, by=group, since=_since(since, store.clock(), time_zone), time_zone=time_zone)
        keys = {key.name: key for key in store.all()} if group is By.KEY else {}
    if csv:
        _csv(group.value, lines)
        return
    out.result(
        {"by": group.value, "since": since, "lines": [_line(line, keys.get(line.name)) for line in lines]},
        human=_chart(out, group.value, lines, keys)
        if lines
        else f"nothing spent {f'since {since}' if since else 'yet'}",
    )


def _since(text: str | None, now: int, time_zone: str) -> int:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from toolkit.core.errors import UsageError
    from toolkit.core.units import parse_duration

    hint = "toolkit spend --since 7d, or --since 2026-01-31"
    if text is None:
        return 0
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        try:
            return max(0, now - round(parse_duration(text) * 1000))
        except UsageError:
            raise UsageError(f"{text!r} is neither a span of time nor a day", hint=hint) from None
    moment = round((day if day.tzinfo else day.replace(tzinfo=ZoneInfo(time_zone))).timestamp() * 1000)
    if moment > now:
        raise UsageError(f"{text} is still to come", hint=hint)
    return moment


def _line(line: "Line", key: "VirtualKey | None") -> dict[str, Any]:
    from gateway.keys.refusals import utc

    document = asdict(line)
    if key is not None:
        document["left_nano"], document["left_tokens"] = key.purse.nano, key.purse.tokens
        document["resets_at"] = None if key.period_end is None else utc(key.period_end)
    return document


def _chart(out: Output, by: str, lines: "list[Line]", keys: "dict[str, VirtualKey]") -> Any:
    from gateway.keys.spend import total
    from toolkit.core.units import format_count, format_money

    whole = total(lines)
    # A local model costs nothing: its bars are of tokens.
    weights = [line.cost_nano if whole.cost_nano else line.tokens for line in lines]
    largest = max(weights) or 1
    rows = []
    for line, weight in zip([*lines, whole], [*weights, None], strict=True):
        key = keys.get(line.name)
        row = [
            line.name,
            line.requests,
            format_count(line.prompt_tokens),
            format_count(line.completion_tokens),
            format_money(line.cost_nano),
            "" if weight is None else _bar(weight / largest, BAR // 3 if keys else BAR),
        ]
        if keys:
            row += _left(key) if key is not None and line is not whole else ["", ""]
        rows.append(row)
    columns = [by, "requests>", "in>", "out>", "spent>", ""] + (["left>", "resets"] if keys else [])
    return out.table(columns, rows)


def _left(key: "VirtualKey") -> list[str]:
    from toolkit.cli.keys import resets
    from toolkit.core.units import format_count, format_money

    purse = key.purse
    left = [] if purse.nano is None else [format_money(purse.nano)]
    left += [] if purse.tokens is None else [f"{format_count(purse.tokens)} tokens"]
    return [", ".join(left) or "no limit", resets(key)]


def _bar(share: float, longest: int) -> str:
    eighths = round(share * longest * 8)
    if share > 0 and eighths == 0:
        eighths = 1
    whole, rest = divmod(eighths, 8)
    return "█" * whole + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


def _csv(by: str, lines: "list[Line]") -> None:
    import csv
    from decimal import Decimal

    from toolkit.core.units import NANO

    writer = csv.writer(sys.stdout, lineterminator="\n")
    counts = ("requests", "prompt_tokens", "completion_tokens", "cache_read_tokens", "failed", "lost")
    writer.writerow([by, *counts, "dollars"])
    for line in lines:
        dollars = f"{Decimal(line.cost_nano) / NANO:f}"
        writer.writerow([line.name, *(getattr(line, count) for count in counts), dollars])
