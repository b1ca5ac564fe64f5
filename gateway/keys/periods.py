"""Budget periods: when one starts and ends, as pure arithmetic on times. Knows neither a clock nor a store.

A fixed period (`1h`, `1d`, `7d`, `30d`, any whole number of hours, days or weeks) counts from an anchor in steps of
equal length. A calendar period (`1mo`, or several) starts at midnight on the first of a month in a time zone.
"""

import re
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from toolkit.core.errors import UsageError

_STEP = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = 3_660  # days
_NEVER = {"never", "none"}


class Span(NamedTuple):
    """From `start` up to, and without, `end`: milliseconds since 1970 in UTC. `end` None: it never ends."""

    start: int
    end: int | None


def parse_period(text: str) -> str | None:
    """`30d`, `1h`, `2w`, `1mo` as a canonical name; `never` as None. Raises UsageError."""
    cleaned = text.strip().lower()
    if cleaned in _NEVER:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,4})(mo|[hdw])", cleaned)
    if match is None:
        raise UsageError(f"{text!r} is not a period", hint="write it as 1h, 1d, 7d, 30d, 1mo or never")
    count, unit = int(match[1]), match[2]
    days = count * 31 if unit == "mo" else count * _STEP[unit] / timedelta(days=1)
    if days > _LONGEST:
        raise UsageError(f"{text!r} is longer than ten years", hint="write never if the budget should not reset")
    return f"{count}{unit}"


def zone(name: str) -> ZoneInfo:
    """The time zone called `name`, for example Europe/Berlin. Raises UsageError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"there is no time zone {name!r}", hint="write it like Europe/Berlin or UTC") from None


def span_at(now: int, period: str | None, *, anchor: int, time_zone: str) -> Span:
    """The period that contains the moment `now`.

    `anchor` is the start of any one fixed period (the key's creation); calendar months ignore it.
    """
    if period is None:
        return Span(anchor, None)
    match = re.fullmatch(r"([0-9]+)(mo|[hdw])", period)
    if match is None:
        raise ValueError(f"not a canonical period: {period!r}")
    count, unit = int(match[1]), match[2]
    if unit == "mo":
        return _months(now, count, zone(time_zone))
    length = count * round(_STEP[unit] / timedelta(milliseconds=1))
    start = anchor + (now - anchor) // length * length
    return Span(start, start + length)


class Turn(NamedTuple):
    """A key's period must become `span`; `fresh`: a new period, whose spending starts at nothing."""

    span: Span
    fresh: bool


# A clock that is set back by less than this only makes the running period longer. Gateways whose clocks differ a
# little must never take turns at starting the same period.
BACK_TOLERANCE = 24 * 3_600_000


def turn(now: int, current: Span, period: str | None, *, time_zone: str) -> Turn | None:
    """What must happen to a key's period at the moment `now`; None: nothing.

    A clock that jumps back far before the period's start moves the period to where the clock is, and keeps what was
    spent: a wrong clock may give a budget back early once, never twice.
    """
    if period is None or current.end is None:
        return None
    if now >= current.end:
        return Turn(span_at(now, period, anchor=current.start, time_zone=time_zone), fresh=True)
    if now < current.start - BACK_TOLERANCE:
        return Turn(span_at(now, period, anchor=current.start, time_zone=time_zone), fresh=False)
    return None


def _months(now: int, count: int, place: ZoneInfo) -> Span:
    local = datetime.fromtimestamp(now // 1000, place)
    month = local.year * 12 + local.month - 1
    first = month - month % count
    start, end = _midnight(first, place), _midnight(first + count, place)
    return Span(start, end)


def _midnight(month: int, place: ZoneInfo) -> int:
    """The first moment of a month (counted from year 0). Where clocks skip midnight, the first one after it."""
    naive = datetime(month // 12, month % 12 + 1, 1, tzinfo=place)
    return round(naive.timestamp() * 1000)
