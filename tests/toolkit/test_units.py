"""Amounts as people write them."""

import pytest

from toolkit.core.errors import UsageError
from toolkit.core.units import (
    format_bytes,
    format_count,
    format_duration,
    format_money,
    parse_bytes,
    parse_context,
    parse_count,
    parse_duration,
    parse_money,
)


@pytest.mark.parametrize(
    ("text", "nano"),
    [("5usd", 5_000_000_000), ("$0.25", 250_000_000), ("0.000000001", 1), (" 1 USD ", 10**9), ("0", 0)],
)
def test_money_is_exact_to_the_nano_dollar(text: str, nano: int) -> None:
    assert parse_money(text) == nano


@pytest.mark.parametrize("text", ["", "five", "-1usd", "nan", "inf", "0.0000000001usd", "1e30", "5 eur"])
def test_what_is_no_amount_of_money_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_money(text)
    assert caught.value.hint


def test_money_keeps_the_digits_that_matter() -> None:
    assert format_money(5_000_000_000) == "$5.00"
    assert format_money(123_000) == "$0.000123"
    assert format_money(-1_500_000_000) == "-$1.50"
    assert format_money(1_234_560_000_000) == "$1,234.56"


def test_counts_are_decimal_and_contexts_binary() -> None:
    assert parse_count("100k") == 100_000
    assert parse_count("2M") == 2_000_000
    assert parse_context("64k") == 65_536
    assert parse_context("32768") == 32_768
    assert parse_bytes("1.5GiB") == 3 * 2**29
    assert parse_bytes("512M") == 512 * 2**20
    assert format_count(1500) == "1.5k"
    assert format_bytes(4_977_171_584) == "4.6 GiB"


@pytest.mark.parametrize("text", ["", "k", "1.5", "1x", "-5", "1e9"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_count(text)


def test_durations_need_a_unit() -> None:
    assert parse_duration("90s") == 90
    assert parse_duration("1.5h") == 5400
    assert parse_duration("250ms") == 0.25
    with pytest.raises(UsageError):
        parse_duration("30")
    assert format_duration(3 * 3600 + 300) == "3h 05m"
    assert format_duration(200) == "3m 20s"
    assert format_duration(59.7) == "1m 00s"
