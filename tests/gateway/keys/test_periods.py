"""Budget periods as arithmetic: every moment lies in exactly one period, whatever the calendar does."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.periods import BACK_TOLERANCE, Span, parse_period, span_at, turn, zone
from toolkit.core.errors import UsageError

HOUR = 3_600_000
MOMENTS = st.integers(0, 4_000_000_000_000)  # 1970 to 2096
PERIODS = st.sampled_from(["1h", "5h", "1d", "7d", "30d", "2w", "1mo", "3mo", "12mo", "7mo"])
# Half hours, quarters, southern summers, midnight that does not exist, a day that did not exist, months that jump.
ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "America/Sao_Paulo",
        "Asia/Beirut",
        "Pacific/Apia",
        "Asia/Gaza",
        "America/Asuncion",
        "Africa/Casablanca",
    ]
)


def ms(text: str, place: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(place)).timestamp() * 1000)


@given(now=MOMENTS, anchor=MOMENTS, period=PERIODS, place=ZONES)
def test_every_moment_lies_in_its_period_and_periods_meet_without_gap_or_overlap(
    now: int, anchor: int, period: str, place: str
) -> None:
    start, end = span_at(now, period, anchor=anchor, time_zone=place)
    assert end is not None
    assert start <= now < end
    assert span_at(start, period, anchor=anchor, time_zone=place) == (start, end)
    assert span_at(end - 1, period, anchor=anchor, time_zone=place) == (start, end)
    assert span_at(end, period, anchor=anchor, time_zone=place).start == end
    assert span_at(start - 1, period, anchor=anchor, time_zone=place).end == start


@given(now=MOMENTS, anchor=MOMENTS, period=st.sampled_from(["1h", "1d", "30d"]), place=ZONES)
def test_fixed_periods_are_equally_long_in_every_time_zone(now: int, anchor: int, period: str, place: str) -> None:
    start, end = span_at(now, period, anchor=anchor, time_zone=place)
    hours = {"1h": 1, "1d": 24, "30d": 720}[period]
    assert (end or 0) - start == hours * HOUR
    assert (start - anchor) % (hours * HOUR) == 0


@given(now=MOMENTS, place=ZONES)
def test_a_calendar_month_starts_on_the_first_in_the_time_zone(now: int, place: str) -> None:
    start, end = span_at(now, "1mo", anchor=0, time_zone=place)
    here = datetime.fromtimestamp(now // 1000, ZoneInfo(place))
    first = datetime.fromtimestamp(start / 1000, ZoneInfo(place))
    assert (first.year, first.month, first.day) == (here.year, here.month, 1)
    assert (first.hour, first.minute) in {(0, 0), (1, 0)}  # one o'clock where the clocks skip midnight
    assert 27 * 24 * HOUR < (end or 0) - start < 32 * 24 * HOUR


def test_february_of_a_leap_year_has_a_day_more() -> None:
    def length(moment: int) -> float:
        start, end = span_at(moment, "1mo", anchor=0, time_zone="UTC")
        return ((end or 0) - start) / (24 * HOUR)

    assert length(ms("2028-02-10")) == 29
    assert length(ms("2027-02-10")) == 28
    assert length(ms("2100-02-10")) == 28
    assert length(ms("2000-02-29")) == 29


def test_a_month_with_a_change_of_the_clocks_is_an_hour_shorter_or_longer() -> None:
    march = span_at(ms("2026-03-10"), "1mo", anchor=0, time_zone="Europe/Berlin")
    october = span_at(ms("2026-10-10"), "1mo", anchor=0, time_zone="Europe/Berlin")
    assert (march.end or 0) - march.start == (31 * 24 - 1) * HOUR
    assert (october.end or 0) - october.start == (31 * 24 + 1) * HOUR


def test_a_month_starts_at_the_first_moment_where_midnight_is_skipped() -> None:
    # In Asuncion the clocks went from 2017-10-01 00:00 to 01:00.
    start, _ = span_at(ms("2017-10-10"), "1mo", anchor=0, time_zone="America/Asuncion")
    assert datetime.fromtimestamp(start / 1000, UTC) == datetime(2017, 10, 1, 4, tzinfo=UTC)


@given(now=MOMENTS, anchor=MOMENTS, period=PERIODS, place=ZONES, later=st.integers(0, 400 * 24 * HOUR))
def test_a_clock_that_goes_forward_starts_a_new_period_exactly_when_the_old_one_ends(
    now: int, anchor: int, period: str, place: str, later: int
) -> None:
    span = span_at(now, period, anchor=anchor, time_zone=place)
    due = turn(now + later, span, period, time_zone=place)
    if now + later < (span.end or 0):
        assert due is None
    else:
        assert due is not None
        assert due.fresh
        assert due.span.start <= now + later < (due.span.end or 0)


@given(now=MOMENTS, period=PERIODS, place=ZONES, back=st.integers(1, 4 * 365 * 24 * HOUR))
def test_a_clock_that_goes_back_never_gives_a_budget_back(now: int, period: str, place: str, back: int) -> None:
    span = span_at(now, period, anchor=0, time_zone=place)
    due = turn(now - back, span, period, time_zone=place)
    if now - back >= span.start - BACK_TOLERANCE:
        assert due is None
    else:
        assert due is not None
        assert not due.fresh
        assert due.span.start <= now - back < (due.span.end or 0)


def test_two_clocks_that_differ_a_little_start_a_period_once() -> None:
    fast, slow = ms("2026-05-02 00:00:02"), ms("2026-05-01 23:59:58")
    old = Span(ms("2026-05-01"), ms("2026-05-02"))
    due = turn(fast, old, "1d", time_zone="UTC")
    assert due is not None
    assert turn(slow, due.span, "1d", time_zone="UTC") is None


def test_a_period_is_over_at_its_end_and_not_a_moment_before() -> None:
    span = Span(0, 24 * HOUR)
    assert turn(24 * HOUR - 1, span, "1d", time_zone="UTC") is None
    assert turn(24 * HOUR, span, "1d", time_zone="UTC") == (Span(24 * HOUR, 48 * HOUR), True)


def test_a_budget_that_never_resets_has_no_end() -> None:
    assert span_at(99, None, anchor=5, time_zone="UTC") == Span(5, None)
    assert turn(10**15, Span(5, None), None, time_zone="UTC") is None


@pytest.mark.parametrize(
    ("text", "name"), [("1H", "1h"), (" 30d", "30d"), ("1mo", "1mo"), ("never", None), ("2w", "2w")]
)
def test_periods_are_read_as_people_write_them(text: str, name: str | None) -> None:
    assert parse_period(text) == name


@pytest.mark.parametrize("text", ["", "d", "0d", "1.5h", "30", "1y", "99999d", "200mo", "-1d", "1m", "１d"])
def test_what_is_no_period_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_period(text)
    assert caught.value.hint


def test_an_unknown_time_zone_is_refused() -> None:
    for name in ("Mars/Olympus", "../../etc/passwd", ""):
        with pytest.raises(UsageError):
            zone(name)
