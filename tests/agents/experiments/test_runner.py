import asyncio

import pytest

from agents.chat_model import ModelError
from agents.experiments.runner import IN_A_ROW, Pace, Stretches, ask_all
from toolkit.core.errors import ToolkitError


def nothing(item: int, result: object) -> None:
    pass


def test_a_worker_keeps_to_its_own_stretch_and_helps_from_the_far_end_of_the_longest() -> None:
    stretches = Stretches(list(range(8)), 2)
    assert [stretches.next(0) for _ in range(4)] == [0, 1, 2, 3]
    assert stretches.next(0) == 6  # the far half of 4..7
    assert [stretches.next(1) for _ in range(2)] == [4, 5]
    assert stretches.next(0) == 7
    assert stretches.next(0) is None
    assert stretches.next(1) is None


async def test_every_item_is_asked_once_and_no_more_at_a_time_than_allowed() -> None:
    under_way = most = 0

    async def ask(item: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return item * 2

    found: dict[int, int] = {}
    await ask_all(range(50), ask, pace=Pace(4), done=found.__setitem__, failed=nothing)
    assert found == {item: item * 2 for item in range(50)}
    assert most == 4


async def test_a_server_that_asks_for_time_is_asked_half_as_much_and_then_slowly_more() -> None:
    pace = Pace(8)
    await asyncio.gather(*(pace.wait(0.0) for _ in range(3)))
    assert pace.limit in (1, 2, 4)
    before = pace.limit
    async with pace.turn():
        pass
    assert before < pace.limit < 8


async def test_several_told_at_the_same_time_halve_the_pace_once() -> None:
    pace = Pace(8, clock=lambda: 100.0)
    await asyncio.gather(*(pace.wait(0.01) for _ in range(5)))
    assert pace.limit == 4


async def test_single_failures_are_reported_and_the_rest_is_asked() -> None:
    failures: list[int] = []

    async def ask(item: int) -> int:
        if item % 7 == 3:
            raise ModelError("hiccup", status=500)
        return item

    done: list[int] = []
    await ask_all(
        range(30),
        ask,
        pace=Pace(2),
        done=lambda item, _: done.append(item),
        failed=lambda item, _: failures.append(item),
    )
    assert sorted(failures) == [3, 10, 17, 24]
    assert len(done) == 26


async def test_a_refusal_ends_the_run_at_once_and_says_how_to_go_on() -> None:
    asked: list[int] = []

    async def ask(item: int) -> int:
        asked.append(item)
        raise ModelError("over budget", "toolkit keys show me", status=403)

    with pytest.raises(ToolkitError, match="over budget; what was measured is kept") as error:
        await ask_all(range(100), ask, pace=Pace(1), done=nothing, failed=nothing)
    assert asked == [0]
    assert "then the same command goes on" in (error.value.hint or "")


async def test_failure_after_failure_ends_the_run() -> None:
    failures: list[int] = []

    async def ask(item: int) -> int:
        raise ModelError("no answer")

    with pytest.raises(ToolkitError, match="no answer"):
        await ask_all(range(100), ask, pace=Pace(1), done=nothing, failed=lambda item, _: failures.append(item))
    assert len(failures) == IN_A_ROW
