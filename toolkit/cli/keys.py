"""`toolkit keys`: make, show, change and check virtual keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Json, Output, Quiet, Yes

if TYPE_CHECKING:
    from gateway.keys.store import KeyStore
    from gateway.keys.virtual_key import VirtualKey

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Virtual keys and their budgets")

Name = Annotated[str, typer.Argument(help="The key's name.", show_default=False)]
Config = Annotated[Path | None, typer.Option("--config", help="Another gateway.yaml.", show_default=False)]


@app.command()
def create(
    name: Name,
    budget: Annotated[str | None, typer.Option(help="Dollars it may spend, for example 5usd.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens it may take, for example 2M.")] = None,
    reset: Annotated[str, typer.Option(help="When the budget starts anew: 1h, 1d, 7d, 30d, 1mo, never.")] = "never",
    models: Annotated[list[str] | None, typer.Option(help="A model it may use, or a pattern; repeatable.")] = None,
    rpm: Annotated[str | None, typer.Option(help="Requests a minute.")] = None,
    tpm: Annotated[str | None, typer.Option(help="Tokens a minute, for example 100k.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: 90d from now, or 2027-01-31.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    config: Config = None,
) -> None:
    """Make a key. Its secret is shown once and stored nowhere."""
    from gateway.keys.periods import parse_period
    from gateway.keys.virtual_key import now_ms
    from toolkit.core.units import parse_count, parse_money

    out = Output(json=json, quiet=quiet)
    with _store(config) as store:
        made = store.create(
            name,
            budget_nano=None if budget is None else parse_money(budget),
            budget_tokens=None if tokens is None else parse_count(tokens),
            period=parse_period(reset),
            time_zone=_time_zone(),
            models=models or (),
            rpm=None if rpm is None else parse_count(rpm),
            tpm=None if tpm is None else parse_count(tpm),
            expires=None if expires is None else _moment(expires, now_ms()),
        )
    out.note("This secret is shown once:")
    out.result(_document(made.key) | {"secret": made.secret}, human=made.secret, quiet=made.secret)


@app.command("list")
def list_(json: Json = False, quiet: Quiet = False, config: Config = None) -> None:
    """Every key with what it has spent and what is left."""
    from toolkit.core.units import format_count, format_money

    out = Output(json=json, quiet=quiet)
    with _store(config) as store:
        found = store.all()
    rows = [
        (
            key.name,
            _state(key),
            format_money(key.spent_nano),
            "" if key.budget_nano is None else format_money(key.budget_nano),
            format_count(key.spent_tokens),
            "" if key.budget_tokens is None else format_count(key.budget_tokens),
            _resets(key),
            ", ".join(key.models) or "all",
        )
        for key in found
    ]
    columns = ("name", "state", "spent>", "of>", "tokens>", "of>", "resets", "models")
    out.result(
        [_document(key) for key in found],
        human=out.table(columns, rows, empty="no keys yet; make one: toolkit keys create my-laptop --budget 5usd"),
        quiet=[key.name for key in found],
    )


@app.command()
def show(name: Name, json: Json = False, config: Config = None) -> None:
    """One key: its limits, what is spent, held and left, and when it resets."""
    from toolkit.core.units import format_count, format_money

    out = Output(json=json)
    with _store(config) as store:
        key = store.get(name)
    purse = key.purse
    rows: list[tuple[str, str]] = [
        ("name", key.name),
        ("secret", ", ".join(key.hints) or "none"),
        ("state", _state(key)),
        ("models", ", ".join(key.models) or "all"),
        ("budget", "none" if key.budget_nano is None else format_money(key.budget_nano)),
        ("spent", format_money(key.spent_nano)),
        ("held for running requests", format_money(key.reserved_nano)),
        ("left", "no limit" if purse.nano is None else format_money(purse.nano)),
        ("token budget", "none" if key.budget_tokens is None else format_count(key.budget_tokens)),
        ("tokens taken", format_count(key.spent_tokens)),
        ("tokens left", "no limit" if purse.tokens is None else format_count(purse.tokens)),
        ("resets", _resets(key)),
        ("requests a minute", "no limit" if key.rpm is None else str(key.rpm)),
        ("tokens a minute", "no limit" if key.tpm is None else format_count(key.tpm)),
        ("expires", "never" if key.expires_at is None else _at(key.expires_at, key.time_zone)),
        ("made", _at(key.created_at, key.time_zone)),
        ("spent since it was made", f"{format_money(key.total_nano)}, {format_count(key.total_tokens)} tokens"),
    ]
    out.result(_document(key), human=out.table(("", ""), rows))


@app.command()
def block(name: Name, json: Json = False, config: Config = None) -> None:
    """Refuse the key from its next request on."""
    out = Output(json=json)
    with _store(config) as store:
        key = store.block(name)
    out.result(_document(key), human=f"{name} is blocked")


@app.command()
def unblock(name: Name, json: Json = False, config: Config = None) -> None:
    """Let a blocked key in again."""
    out = Output(json=json)
    with _store(config) as store:
        key = store.block(name, blocked=False)
    out.result(_document(key), human=f"{name} is let in again")


@app.command()
def delete(name: Name, yes: Yes = False, json: Json = False, config: Config = None) -> None:
    """Delete a key for good. What it spent stays in the reports."""
    out = Output(json=json)
    with _store(config) as store:
        store.get(name)
        out.confirm(f"Delete the key {name}?", yes=yes)
        key = store.delete(name)
    out.result(_document(key), human=f"{name} is deleted")


def _store(config: Path | None) -> "KeyStore":
    from gateway.keys.store import open_store
    from gateway.settings import load_settings

    return open_store(load_settings(config).keys.url)


def _document(key: "VirtualKey") -> dict[str, Any]:
    from gateway.keys.refusals import utc

    purse = key.purse
    return {
        "name": key.name,
        "secret_hints": key.hints,
        "blocked": key.blocked,
        "models": key.models,
        "budget_nano": key.budget_nano,
        "spent_nano": key.spent_nano,
        "held_nano": key.reserved_nano,
        "left_nano": purse.nano,
        "budget_tokens": key.budget_tokens,
        "spent_tokens": key.spent_tokens,
        "held_tokens": key.reserved_tokens,
        "left_tokens": purse.tokens,
        "period": key.period,
        "time_zone": key.time_zone,
        "resets_at": None if key.period_end is None else utc(key.period_end),
        "rpm": key.rpm,
        "tpm": key.tpm,
        "expires_at": None if key.expires_at is None else utc(key.expires_at),
        "created_at": utc(key.created_at),
        "total_nano": key.total_nano,
        "total_tokens": key.total_tokens,
    }


def _state(key: "VirtualKey") -> str:
    from gateway.keys.virtual_key import now_ms

    if key.blocked:
        return "blocked"
    return "expired" if key.expired(now_ms()) else "active"


def _resets(key: "VirtualKey") -> str:
    return "never" if key.period_end is None else _at(key.period_end, key.time_zone)


def _at(moment: int, time_zone: str) -> str:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    return f"{datetime.fromtimestamp(moment / 1000, ZoneInfo(time_zone)):%Y-%m-%d %H:%M} {time_zone}"


def _moment(text: str, now: int) -> int:
    """`90d` from now, or a day or time in the user's time zone, as milliseconds."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from toolkit.core.errors import UsageError
    from toolkit.core.units import parse_duration

    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        return now + round(parse_duration(text) * 1000)
    moment = round((day if day.tzinfo else day.replace(tzinfo=ZoneInfo(_time_zone()))).timestamp() * 1000)
    if moment <= now:
        raise UsageError(f"{text} is over already", hint="write a time to come, or 90d from now")
    return moment


def _time_zone() -> str:
    """The user's time zone by name; UTC where the system has none."""
    from tzlocal import get_localzone_name

    return get_localzone_name() or "UTC"
