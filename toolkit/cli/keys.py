"""`toolkit keys`: make, show, change and check virtual keys."""

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Config, Json, Output, Quiet, Yes

if TYPE_CHECKING:
    from gateway.keys.store import KeyStore
    from gateway.keys.virtual_key import VirtualKey

_NO_LIMIT = {"none", "never", "unlimited"}
_LARGEST = {"budget_tokens": 10**15, "rpm": 2**31 - 1, "tpm": 2**31 - 1}  # what every database keeps
_LONGEST = 100 * 365 * 86_400  # seconds

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Virtual keys and their budgets")

Name = Annotated[str, typer.Argument(help="The key's name.", show_default=False)]
Budget = Annotated[str | None, typer.Option(help="Dollars it may spend in a period: 5usd, 0.25usd, none.")]
Tokens = Annotated[str | None, typer.Option(help="Tokens it may take in a period: 500k, 2M, none.")]
Reset = Annotated[str | None, typer.Option(help="When the budget starts anew: 1h, 1d, 7d, 30d, 1mo, never.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        help="A model it may use, a pattern like 'gemma-4-*', or an MCP server as mcp/NAME; repeatable. all: all."
    ),
]
Rpm = Annotated[str | None, typer.Option(help="Requests a minute, over all workers and gateways; none.")]
Tpm = Annotated[str | None, typer.Option(help="Tokens a minute: 100k, none.")]
Expires = Annotated[str | None, typer.Option(help="When it ends: 90d from now, 2027-01-31, never.")]
Zone = Annotated[str | None, typer.Option(help="Time zone of months and of times shown; the system's unless given.")]
WhenTight = Annotated[
    str | None,
    typer.Option(help="What happens to an answer that may cost more than is left: clip (shorten it) or refuse."),
]


def _limits(
    budget: Budget = None,
    tokens: Tokens = None,
    reset: Reset = None,
    models: Models = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    expires: Expires = None,
    when_tight: WhenTight = None,
    time_zone: Zone = None,
) -> dict[str, Any]:
    """What was typed, as the store's options; what was not typed is left out."""
    from gateway.keys.periods import parse_period, zone
    from gateway.keys.virtual_key import now_ms
    from toolkit.core.errors import UsageError
    from toolkit.core.units import parse_count, parse_money

    if when_tight not in (None, "clip", "refuse"):
        raise UsageError(f"--when-tight is clip or refuse, not {when_tight!r}", hint="--when-tight clip")
    given: dict[str, Any] = {}
    for option, text, parse in (
        ("budget_nano", budget, parse_money),
        ("budget_tokens", tokens, parse_count),
        ("rpm", rpm, parse_count),
        ("tpm", tpm, parse_count),
        ("period", reset, parse_period),
        ("expires", expires, lambda text: _moment(text, now_ms(), time_zone or system_time_zone())),
    ):
        if text is not None:
            given[option] = None if text.strip().lower() in _NO_LIMIT else parse(text)
    for option in ("rpm", "tpm"):
        if given.get(option) == 0:
            raise UsageError(
                f"--{option} 0 would let nothing through", hint="toolkit keys block NAME, or none for no limit"
            )
    for option, largest in _LARGEST.items():
        if (given.get(option) or 0) > largest:
            raise UsageError(f"{given[option]} is more than can be kept", hint="write none for no limit")
    if time_zone is not None:
        given["time_zone"] = zone(time_zone).key
    if when_tight is not None:
        given["when_tight"] = when_tight
    if models:
        if not all(models):
            raise UsageError("--models needs the name of a model, or a pattern", hint="--models 'gemma-4-*'")
        given["models"] = () if "all" in models else tuple(dict.fromkeys(models))
    return given


def _takes_limits(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every option of `_limits`; it gets those that were typed as `limits`."""
    options = signature(_limits).parameters
    name, *others = (each for each in signature(command).parameters.values() if each.name != "limits")

    @wraps(command)
    def with_options(**typed: Any) -> None:
        limits = _limits(**{option: typed.pop(option) for option in options})
        command(**typed, limits=limits)

    with_options.__signature__ = Signature([name, *options.values(), *others])  # type: ignore[attr-defined]
    return with_options


@app.command()
@_takes_limits
def create(name: Name, limits: dict[str, Any], json: Json = False, quiet: Quiet = False, config: Config = None) -> None:
    """Make a key. Its secret is shown once; only its hash is stored."""
    out = Output(json=json, quiet=quiet)
    _check_models(limits.get("models", ()), out)
    if limits.get("period") and limits.get("budget_nano") is None and limits.get("budget_tokens") is None:
        out.note(f"{name} has no budget that could reset: toolkit keys update {name} --budget 5usd")
    with _store(config) as store:
        made = store.create(name, **{"time_zone": system_time_zone(), **limits})
    out.note(f"The secret of {name}, shown this once:")
    out.result(_document(made.key) | {"secret": made.secret}, human=made.secret, quiet=made.secret)


@app.command()
@_takes_limits
def update(name: Name, limits: dict[str, Any], json: Json = False, config: Config = None) -> None:
    """Change a key's limits; what is not named stays. It counts from the next request on."""
    from toolkit.core.errors import UsageError

    out = Output(json=json)
    if not limits:
        raise UsageError("nothing to change was named", hint=f"toolkit keys update {name} --budget 10usd")
    _check_models(limits.get("models", ()), out)
    with _store(config) as store:
        key = store.update(name, **limits)
    out.result(_document(key), human=_sheet(key))


@app.command()
def rotate(
    name: Name,
    grace: Annotated[str, typer.Option(help="How long the old secret is still honoured: 1h, 7d.")] = "0s",
    json: Json = False,
    quiet: Quiet = False,
    config: Config = None,
) -> None:
    """Give a key a new secret. Its limits, spending and history stay."""
    out = Output(json=json, quiet=quiet)
    honoured = _milliseconds(grace)
    with _store(config) as store:
        made = store.rotate(name, grace=honoured)
    old = f"is honoured for {grace} more" if honoured else "is honoured no longer"
    out.note(f"The new secret of {name}, shown this once; the old one {old}:")
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
            resets(key),
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
    out = Output(json=json)
    with _store(config) as store:
        store.sweep()
        key = store.get(name)
    out.result(_document(key), human=_sheet(key))


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


@app.command()
def audit(json: Json = False, quiet: Quiet = False, config: Config = None) -> None:
    """Prove that every counter is the sum of its requests. Safe on a store in use; ends with 1 if not clean."""
    from gateway.keys.audit import audit as examine

    out = Output(json=json, quiet=quiet)
    with _store(config) as store:
        store.sweep()
        found = examine(store)
    lines = [f"{finding.key}: {finding.what}" for finding in found.findings]
    counts = f"{found.keys} keys, {found.requests} requests, {found.open} running, {found.lost} charged by a guess"
    if found.underestimated:
        lines.append(f"{found.underestimated} requests cost more than was reserved for them")
    out.result(
        {"clean": found.clean, **asdict(found)},
        human="\n".join([*lines, f"{'clean' if found.clean else 'NOT CLEAN'}: {counts}"]),
        quiet=lines,
    )
    if not found.clean:
        raise typer.Exit(1)


@app.command("migrate-store")
def migrate_store(
    target: Annotated[
        str, typer.Argument(help="Where to: postgresql://user@host/name, or a file.", show_default=False)
    ],
    json: Json = False,
    config: Config = None,
) -> None:
    """Copy the whole store to another database and prove the copy. The old store stays as it is."""
    from gateway.keys.audit import audit as examine
    from gateway.keys.store import open_store
    from gateway.keys.transfer import move
    from gateway.settings import Keys
    from toolkit.core.errors import ToolkitError

    out = Output(json=json)
    url = Keys(database=target).url
    with _store(config) as source, open_store(url) as copy:
        total = examine(source).requests
        with out.progress("copying", total, "rows") as bar:
            moved = move(source, copy, progress=lambda rows: bar.advance(rows))
        proof = examine(copy)
        if not proof.clean or proof.requests != total:
            raise ToolkitError("the copy does not add up; the old store is untouched", hint="toolkit keys audit")
    private = copy.engine.url.password is not None
    variable = ", with its address in KEYS_URL," if private else ","
    out.note(f"Now name it in gateway.yaml{variable} and start the gateway again:")
    human = f"keys:\n  database: {'env:KEYS_URL' if private else target}"
    out.result(asdict(moved) | {"clean": proof.clean}, human=human)


def _check_models(patterns: "tuple[str, ...]", out: Output) -> None:
    """Refuse a pattern that matches nothing the running gateway serves."""
    from gateway.keys.patterns import check_patterns
    from gateway.keys.routes import tool_model
    from gateway.supervisor import running

    if not patterns:
        return
    gateway = running()
    if gateway is None:
        out.note("The gateway is not running, so nobody checked that these models exist.")
        return
    check_patterns(patterns, [*(model.name for model in gateway.models), *map(tool_model, gateway.mcp)])


def _store(config: Path | None) -> "KeyStore":
    from gateway.keys.store import open_store
    from gateway.settings import load_settings

    return open_store(load_settings(config).keys.url)


def _document(key: "VirtualKey") -> dict[str, Any]:
    from gateway.keys.refusals import utc

    purse = key.purse
    return {
        "name": key.name,
        "secrets": [
            {"hint": secret.hint, "honoured_until": None if secret.expires_at is None else utc(secret.expires_at)}
            for secret in key.secrets
        ],
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


def _sheet(key: "VirtualKey") -> str:
    from toolkit.core.units import format_count, format_money

    purse = key.purse
    newest, *older = key.secrets or (None,)
    rows = [
        ("name", key.name),
        ("secret", newest.hint if newest else "none"),
        *(
            ("honoured still", f"{secret.hint} until {moment(secret.expires_at, key.time_zone)}")
            for secret in older
            if secret.expires_at is not None
        ),
        ("state", _state(key)),
        ("models", ", ".join(key.models) or "all"),
        ("budget", "none" if key.budget_nano is None else format_money(key.budget_nano)),
        ("spent", format_money(key.spent_nano)),
        ("held for running requests", format_money(key.reserved_nano)),
        ("left", "no limit" if purse.nano is None else format_money(purse.nano)),
        ("token budget", "none" if key.budget_tokens is None else format_count(key.budget_tokens)),
        ("tokens taken", format_count(key.spent_tokens)),
        ("tokens left", "no limit" if purse.tokens is None else format_count(purse.tokens)),
        ("period", key.period or "never resets"),
        ("next reset", "never" if key.period_end is None else moment(key.period_end, key.time_zone)),
        ("when an answer may cost more", "it is clipped" if key.when_tight == "clip" else "it is refused"),
        ("requests a minute", "no limit" if key.rpm is None else str(key.rpm)),
        ("tokens a minute", "no limit" if key.tpm is None else format_count(key.tpm)),
        ("expires", "never" if key.expires_at is None else moment(key.expires_at, key.time_zone)),
        ("made", moment(key.created_at, key.time_zone)),
        ("spent since it was made", f"{format_money(key.total_nano)}, {format_count(key.total_tokens)} tokens"),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def _state(key: "VirtualKey") -> str:
    from gateway.keys.virtual_key import now_ms

    if key.blocked:
        return "blocked"
    return "expired" if key.expired(now_ms()) else "active"


def resets(key: "VirtualKey") -> str:
    """When a key resets, for a column of a table: by the clock of who reads it."""
    if key.period_end is None:
        return "never"
    zone = system_time_zone()
    return moment(key.period_end, zone).removesuffix(f" {zone}")


def moment(at: int, time_zone: str) -> str:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    return f"{datetime.fromtimestamp(at / 1000, ZoneInfo(time_zone)):%Y-%m-%d %H:%M} {time_zone}"


def _moment(text: str, now: int, time_zone: str) -> int:
    """`90d` from now, or a day or time in the time zone, as milliseconds since 1970."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from toolkit.core.errors import UsageError

    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        span = _milliseconds(text)
        if not span:
            raise UsageError(f"{text} from now is over already", hint="write 90d from now, or never") from None
        return now + span
    moment = round((day if day.tzinfo else day.replace(tzinfo=ZoneInfo(time_zone))).timestamp() * 1000)
    if moment <= now:
        raise UsageError(f"{text} is over already", hint="write a time to come, or 90d from now")
    return moment


def _milliseconds(text: str) -> int:
    from toolkit.core.errors import UsageError
    from toolkit.core.units import parse_duration

    seconds = parse_duration(text)
    if seconds > _LONGEST:
        raise UsageError(f"{text!r} is longer than a hundred years", hint="write 90d, or never for no end")
    return round(seconds * 1000)


def system_time_zone() -> str:
    """The user's time zone by name; UTC where the system has none."""
    from tzlocal import get_localzone_name

    name = get_localzone_name() or "UTC"
    return "UTC" if name == "Etc/UTC" else name
