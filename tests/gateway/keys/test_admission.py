"""Admission as arithmetic: what is promised never exceeds what is left, and always covers what can be taken."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.keys.admission import (
    LEAST_ANSWER,
    Admission,
    Ask,
    Price,
    Purse,
    Reason,
    Shortage,
    admit,
    matches,
    too_fast,
)

PRICES = st.builds(
    Price,
    input=st.integers(0, 200_000_000_000),
    output=st.integers(0, 800_000_000_000),
    fixed=st.sampled_from([0, 0, 5_000_000]),
)
ASKS = st.builds(
    Ask,
    prompt=st.integers(0, 1_000_000),
    answer=st.none() | st.integers(1, 200_000),
    price=PRICES,
    copies=st.integers(1, 8),
    clippable=st.booleans(),
)
PURSES = st.builds(
    Purse,
    nano=st.none() | st.integers(-1_000, 100_000_000_000),
    tokens=st.none() | st.integers(-1_000, 5_000_000),
)


@given(ask=ASKS, purse=PURSES, clip=st.booleans())
def test_an_admission_never_promises_more_than_is_left(ask: Ask, purse: Purse, clip: bool) -> None:
    granted = admit(ask, purse, clip=clip)
    if isinstance(granted, Admission):
        assert purse.nano is None or granted.nano <= max(0, purse.nano)
        assert purse.tokens is None or granted.tokens <= max(0, purse.tokens)


@given(ask=ASKS, purse=PURSES, clip=st.booleans(), used=st.data())
def test_an_admission_covers_whatever_the_request_then_takes(
    ask: Ask, purse: Purse, clip: bool, used: st.DataObject
) -> None:
    granted = admit(ask, purse, clip=clip)
    assume(isinstance(granted, Admission))
    assert isinstance(granted, Admission)
    longest = granted.answer if granted.answer is not None else ask.answer or 200_000
    prompt = used.draw(st.integers(0, ask.prompt))
    answer = used.draw(st.integers(0, longest)) * ask.copies
    if purse.nano is not None:
        assert ask.price.cost(prompt, answer) <= granted.nano
    if purse.tokens is not None:
        assert prompt + answer <= granted.tokens


@given(ask=ASKS, purse=PURSES)
def test_clipping_admits_whatever_refusing_admits_and_never_lengthens_an_answer(ask: Ask, purse: Purse) -> None:
    strict, clipped = admit(ask, purse, clip=False), admit(ask, purse, clip=True)
    if isinstance(strict, Admission):
        assert isinstance(clipped, Admission)
    if isinstance(clipped, Admission) and clipped.answer is not None and ask.answer is not None:
        assert clipped.answer <= ask.answer


@given(ask=ASKS, nano=st.integers(0, 10**12))
def test_requests_one_after_the_other_on_one_purse_never_overdraw_it(ask: Ask, nano: int) -> None:
    left = nano
    for _ in range(12):
        granted = admit(ask, Purse(nano=left), clip=True)
        if isinstance(granted, Shortage):
            break
        left -= granted.nano
        assert left >= 0


def test_a_long_default_limit_leaves_half_to_the_others() -> None:
    long = Ask(prompt=0, answer=32_000, price=Price(0, 1_000_000))
    left = 10_000
    answers = []
    for _ in range(4):
        granted = admit(long, Purse(nano=left), clip=True)
        assert isinstance(granted, Admission)
        answers.append(granted.answer)
        left -= granted.nano
    assert answers == [5_000, 2_500, 1_250, 625]


def test_a_clipped_answer_is_never_uselessly_short() -> None:
    ask = Ask(prompt=0, answer=32_000, price=Price(0, 1_000_000))
    shortest = admit(ask, Purse(nano=LEAST_ANSWER), clip=True)
    assert shortest == Admission(LEAST_ANSWER, LEAST_ANSWER, LEAST_ANSWER)
    assert admit(ask, Purse(nano=LEAST_ANSWER - 1), clip=True) == Shortage(Reason.BUDGET, LEAST_ANSWER)


def test_a_request_for_less_than_the_least_useful_answer_gets_what_it_asked() -> None:
    ask = Ask(prompt=0, answer=5, price=Price(0, 1_000_000))
    assert admit(ask, Purse(nano=5), clip=True) == Admission(5, 5, 5)


def test_an_answer_without_a_bound_is_refused_only_where_its_length_costs() -> None:
    ask = Ask(prompt=10, answer=None, price=Price(0, 1_000_000))
    assert admit(ask, Purse(nano=100), clip=False) == Shortage(Reason.UNBOUNDED, 0)
    assert isinstance(admit(ask, Purse(nano=1_000), clip=True), Admission)
    assert isinstance(admit(ask, Purse(), clip=False), Admission)
    free = replace(ask, price=Price(0, 0))
    assert admit(free, Purse(nano=0), clip=False) == Admission(0, 10, None)
    assert admit(free, Purse(tokens=100), clip=False) == Shortage(Reason.UNBOUNDED, 0)


def test_costs_are_rounded_up_to_the_next_nano_dollar() -> None:
    assert Price(input=1, output=0).cost(1, 0) == 1
    assert Price(input=1_000_000, output=2_000_000, fixed=3).cost(5, 7) == 22


def test_rates_count_what_the_last_minute_held() -> None:
    ask = Ask(prompt=0, answer=1, price=Price(0, 0), expected=40)
    assert too_fast(ask, 10, None, requests=9, tokens=0) is None
    assert too_fast(ask, 10, None, requests=10, tokens=0) == Shortage(Reason.REQUEST_RATE, 1)
    assert too_fast(ask, None, 100, requests=5, tokens=60) is None
    assert too_fast(ask, None, 100, requests=5, tokens=61) == Shortage(Reason.TOKEN_RATE, 40)
    assert too_fast(replace(ask, expected=500), None, 100, requests=0, tokens=0) is None


@pytest.mark.parametrize(
    ("model", "patterns", "allowed"),
    [
        ("gemma-4-e4b", [], True),
        ("gemma-4-e4b", ["gemma-4-*"], True),
        ("Gemma-4-e4b", ["gemma-4-*"], False),
        ("gpt-5", ["gemma-4-*", "gpt-5"], True),
        ("gpt-5-mini", ["gpt-5"], False),
    ],
)
def test_models_match_by_name_or_pattern(model: str, patterns: list[str], allowed: bool) -> None:
    assert matches(model, patterns) is allowed
