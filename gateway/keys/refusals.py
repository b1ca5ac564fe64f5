"""What a refused caller is told: one sentence on what was asked and what is left, one on what to do. Pure.

The status is 422: Claude Code and OpenCode show it at once, where 401, 403, 429 and 5xx are retried in silence for
minutes by one or the other. An unknown, blocked or expired key outside the Anthropic format is a 401, which OpenCode
and every OpenAI client show at once.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from gateway.keys.admission import Reason
from gateway.keys.store import Refused
from gateway.keys.virtual_key import VirtualKey
from toolkit.core.units import format_count, format_duration, format_money

_ABOUT_THE_KEY = {Reason.UNKNOWN_KEY, Reason.BLOCKED, Reason.EXPIRED}


def status(reason: Reason, *, anthropic: bool) -> int:
    """The HTTP status of a refusal in the caller's format."""
    if reason is Reason.STORE:
        return 503
    return 401 if reason in _ABOUT_THE_KEY and not anthropic else 422


def sentence(refused: Refused, *, model: str = "", now: int) -> str:
    """What is wrong and what to do about it."""
    key = refused.key
    if key is None or refused.reason is Reason.UNKNOWN_KEY:
        return (
            "This gateway knows no such key. Use one made by `toolkit keys create`; "
            "`toolkit keys list` shows the keys there are."
        )
    name, reason = key.name, refused.reason
    if reason is Reason.BLOCKED:
        return f"The key {name} is blocked. `toolkit keys unblock {name}` lets it in again."
    if reason is Reason.EXPIRED:
        when = _moment(key.expires_at, key)
        return f"The key {name} expired {when}. `toolkit keys update {name} --expires 30d` extends it."
    if reason is Reason.MODEL:
        return (
            f"The key {name} may not use the model {model}; it may use {', '.join(key.models)}. "
            f"`toolkit keys update {name} {' '.join(f'--models {each!r}' for each in (*key.models, model))}` adds it."
        )
    if reason is Reason.UNKNOWN_MODEL:
        return (
            f"This gateway serves no model named {model}. `GET /v1/models` lists those that the key {name} may use; "
            "`toolkit gateway status` shows where each of them runs."
        )
    if reason is Reason.BUDGET:
        left = max(0, (key.purse.nano or 0))
        return (
            f"The budget of the key {name} does not cover this request: it can cost {format_money(refused.needed)}, "
            f"and {format_money(left)} of {format_money(key.budget_nano or 0)} is left"
            f"{_held(format_money(key.reserved_nano), key.reserved_nano)}. {_reset(key)} "
            f"Wait, ask for less (a shorter prompt or max_tokens), or `toolkit keys update {name} --budget ...`."
        )
    if reason is Reason.TOKENS:
        left, budget = max(0, (key.purse.tokens or 0)), key.budget_tokens or 0
        return (
            f"The token budget of the key {name} does not cover this request: it can take "
            f"{format_count(refused.needed)} tokens, and {format_count(left)} of {format_count(budget)} "
            f"are left{_held(format_count(key.reserved_tokens), key.reserved_tokens)}. {_reset(key)} "
            f"Wait, ask for less (a shorter prompt or max_tokens), or `toolkit keys update {name} --tokens ...`."
        )
    if reason is Reason.REQUEST_RATE:
        return (
            f"The key {name} may make {key.rpm} requests a minute and made {refused.used} in the last one. "
            f"Try again in a minute, or `toolkit keys update {name} --rpm ...`."
        )
    if reason is Reason.TOKEN_RATE:
        return (
            f"The key {name} may take {format_count(key.tpm or 0)} tokens a minute; the last minute took "
            f"{format_count(refused.used)} and this request needs about {format_count(refused.needed)}. "
            f"Try again in a minute, or `toolkit keys update {name} --tpm ...`."
        )
    if reason is Reason.UNPRICED:
        return (
            f"The model {model} has no known price, so the budget of the key {name} cannot cover it. "
            "Give it a price in gateway.yaml (models: price:), or set keys.unknown_price: free."
        )
    if reason is Reason.UNBOUNDED:
        return (
            f"What this request can cost has no bound, so the budget of the key {name} cannot cover it. "
            "Set max_tokens, and send files as text."
        )
    return f"The key {name} may not send this: the request is not accepted."


def not_settable(name: str) -> str:
    """What a caller is told that sets a field, or sends a header, by which it would get around the gateway."""
    return (
        f"A request may not set {name}: what answers, where, at what price and how often it is tried is the gateway's "
        f"to say, in its gateway.yaml. Leave {name} out."
    )


def _held(amount: str, held: int) -> str:
    return f" ({amount} more is held for requests that are running)" if held else ""


def _reset(key: VirtualKey) -> str:
    if key.period_end is None:
        return "It does not reset."
    return f"It resets {_moment(key.period_end, key)}."


def _moment(at: int | None, key: VirtualKey) -> str:
    if at is None:
        return "never"
    local = datetime.fromtimestamp(at / 1000, ZoneInfo(key.time_zone))
    return f"on {local:%Y-%m-%d at %H:%M} {key.time_zone}"


def in_words(milliseconds: int) -> str:
    """A span of time for people."""
    return format_duration(milliseconds / 1000)


def utc(at: int) -> datetime:
    """A stored time as a datetime in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC)
