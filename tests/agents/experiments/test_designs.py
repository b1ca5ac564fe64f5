from collections import Counter
from functools import partial
from itertools import pairwise

import pytest

from agents.experiments.arms import ARMS, DUPLICATE, PLAIN, offer
from agents.experiments.designs import PRODUCTION, Cell, cells, groups_of, in_sequence, pool_size, williams
from agents.experiments.experiment import Design
from agents.experiments.suites import Suite, Task
from agents.experiments.table import table
from agents.experiments.trials import Trial
from agents.tool_host import Tool
from toolkit.core.errors import UsageError


def suite(size: int, tasks: int) -> tuple[Suite, dict[str, dict[str, Tool]]]:
    names = tuple(f"tool{number:02d}" for number in range(size))
    tools = {name: Tool(name, f"Does {name}. Well.", {"type": "object", "properties": {}}, "srv") for name in names}
    made = tuple(Task(f"t{number:03d}", f"ask {number}", names[number % size], names) for number in range(tasks))
    return Suite("s", "", (), {"": tuple(tools.values())}, made, "digest"), {"": tools}


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize("kind", ["rotation", "williams"])
def test_in_a_block_each_tool_stands_equally_often_everywhere(size: int, kind: str) -> None:
    made, sets = suite(size, 4)
    for task in made.tasks:
        block = [c for c in cells(made, sets, Design(kind=kind, repeats=0), [], 1) if c.task == task.id]
        counts = Counter((name, place) for cell in block for place, name in enumerate(cell.order))
        assert len(counts) == size * size
        assert len(set(counts.values())) == 1


@pytest.mark.parametrize("size", range(2, 10))
def test_in_a_williams_design_each_item_follows_each_other_equally_often(size: int) -> None:
    follows = Counter(pair for row in williams(size) for pair in pairwise(row))
    assert len(follows) == size * (size - 1)
    assert len(set(follows.values())) == 1


def test_forty_tools_are_balanced_over_eight_groups_of_positions() -> None:
    made, sets = suite(40, 40)
    planned = cells(made, sets, Design(repeats=0), [], 1)
    for task in made.tasks:
        block = [cell for cell in planned if cell.task == task.id]
        assert len(block) == 8
        for name in made.tasks[0].tools:
            assert sorted(cell.order.index(name) * cell.groups // 40 for cell in block) == list(range(8))


def test_a_number_of_groups_that_cannot_be_balanced_is_refused_with_one_that_can() -> None:
    with pytest.raises(UsageError) as error:
        groups_of(40, 7)
    assert error.value.hint == "--positions 5"


def test_each_task_has_a_base_order_of_its_own_and_the_seed_decides_it() -> None:
    made, sets = suite(5, 60)
    one, same, other = (cells(made, sets, Design(repeats=0), [], seed) for seed in (1, 1, 2))
    assert one == same
    assert {cell.order for cell in one} != {cell.order for cell in other}
    assert len({cell.order for cell in one}) > 80


def test_a_task_keeps_its_orders_when_others_are_left_out() -> None:
    made, sets = suite(5, 20)
    few = Suite(made.name, "", (), made.tools, made.tasks[:5], "digest")
    all_orders = {(cell.task, cell.step): cell.order for cell in cells(made, sets, Design(repeats=0), [], 1)}
    assert all(all_orders[c.task, c.step] == c.order for c in cells(few, sets, Design(repeats=0), [], 1))


def test_with_many_tools_base_orders_come_from_a_pool_that_is_dealt_out_evenly() -> None:
    made, sets = suite(16, 32)
    planned = cells(made, sets, Design(repeats=0), [], 1)
    firsts = Counter(cell.order for cell in planned if cell.step == "0")
    assert len(firsts) == 8
    assert set(firsts.values()) == {4}


@pytest.mark.parametrize(
    ("design", "tools", "pool"),
    [
        (Design(), 5, None),
        (Design(), 16, 8),
        (Design(bases=3), 5, 3),
        (Design(kind="williams"), 8, 8),
        (Design(kind="random"), 16, None),
        (Design(kind="production"), 16, None),
    ],
)
def test_tasks_are_one_sampling_unit_where_they_share_their_orders(
    design: Design, tools: int, pool: int | None
) -> None:
    made, sets = suite(tools, 48)
    planned = [cell for cell in cells(made, sets, design, [], 1) if not cell.repeat]
    assert pool_size(design, tools) == pool
    orders: dict[str, set[tuple[str, ...]]] = {}
    for cell in planned:
        orders.setdefault(cell.task, set()).add(cell.order)
    held = table([trial_of(cell, made) for cell in planned], partial(pool_size, design))
    assert held.units == (pool or 48)
    if held.unit is not None:
        same = {number: {frozenset(orders[t]) for t, n in zip(held.tasks, held.unit, strict=True) if n == number}
                for number in range(held.units)}  # fmt: skip
        assert all(len(own) == 1 for own in same.values())


def trial_of(cell: Cell, made: Suite) -> Trial:
    right = next(task.right for task in made.tasks if task.id == cell.task)
    return Trial(
        model="m", task=cell.task, arm=cell.arm, step=cell.step, repeat=cell.repeat, order=cell.order,
        groups=cell.groups, target=None, right=right, right_index=cell.order.index(right), chosen=right,
        chosen_index=cell.order.index(right), outcome="right", fits=None, calls=1, called=right, text="",
        prompt_tokens=0, completion_tokens=0, cached_tokens=0, cost=0, latency=0.0, requests=1, probabilities=None,
        opening=None, time="",
    )  # fmt: skip


def test_random_orders_are_seeded_and_as_many_as_asked_for() -> None:
    made, sets = suite(5, 3)
    planned = cells(made, sets, Design(kind="random", n=10, repeats=0), [], 1)
    assert len(planned) == 30
    assert planned == cells(made, sets, Design(kind="random", n=10, repeats=0), [], 1)


def test_production_orders_are_those_of_the_clients() -> None:
    made, sets = suite(3, 1)
    planned = cells(made, sets, Design(kind="production", repeats=0), [], 1)
    assert {cell.step for cell in planned} == set(PRODUCTION)


def test_too_many_permutations_are_refused() -> None:
    made, sets = suite(7, 1)
    with pytest.raises(UsageError, match="5,040 orders"):
        cells(made, sets, Design(kind="permutations"), [], 1)


def test_each_task_is_asked_again_under_one_of_its_own_orders_at_the_end() -> None:
    made, sets = suite(5, 10)
    planned = cells(made, sets, Design(repeats=0.2), [], 1)
    again = [cell for cell in planned if cell.repeat == 1]
    assert sorted(cell.task for cell in again) == [task.id for task in made.tasks]
    assert planned[-10:] == again
    first = {(cell.task, cell.step): cell.order for cell in planned if cell.repeat == 0}
    assert all(first[cell.task, cell.step] == cell.order for cell in again)


def test_the_sequence_keeps_equal_orders_together() -> None:
    made, sets = suite(16, 64)
    planned = cells(made, sets, Design(repeats=0), [], 1)
    changes = sum(one.order != other.order for one, other in pairwise(planned))
    assert changes == len({cell.order for cell in planned}) - 1
    assert in_sequence(list(reversed(planned))) == planned


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in (DUPLICATE, "neutral-names")])
def test_an_arm_changes_its_target_only_and_in_every_position(arm: str) -> None:
    made, sets = suite(5, 5)
    planned = [cell for cell in cells(made, sets, Design(repeats=0), [arm], 1) if cell.arm == arm]
    assert len({cell.target for cell in planned}) == 5
    for cell in planned:
        shown = offer(cell.order, sets[""], arm, cell.target)
        changed = [tool.name for tool in shown.tools if tool != sets[""][tool.name]]
        assert changed == [cell.target]
    for task in made.tasks:
        places = [cell.order.index(cell.target or "") for cell in planned if cell.task == task.id]
        assert sorted(places) == [0, 1, 2, 3, 4]


def test_neutral_names_hide_the_tools_and_can_be_read_back() -> None:
    _, sets = suite(3, 1)
    shown = offer(("tool02", "tool00", "tool01"), sets[""], "neutral-names", None)
    assert [tool.name for tool in shown.tools] == ["tool_3", "tool_1", "tool_2"]
    assert shown.meaning == {"tool_3": "tool02", "tool_1": "tool00", "tool_2": "tool01"}


@pytest.mark.parametrize("size", [4, 5])
def test_of_two_equal_tools_each_stands_first_equally_often(size: int) -> None:
    made, sets = suite(size, 2 * size)
    planned = [cell for cell in cells(made, sets, Design(repeats=0), [DUPLICATE], 1) if cell.arm == DUPLICATE]
    first = Counter(next(n for n in cell.order if n.split("#")[0] == cell.target) == cell.target for cell in planned)
    assert first[True] == first[False]
    shown = offer(planned[0].order, sets[""], DUPLICATE, planned[0].target)
    twins = [tool for tool in shown.tools if shown.meaning[tool.name].split("#")[0] == planned[0].target]
    assert len(twins) == 2
    assert twins[0].description == twins[1].description
    assert len({tool.name for tool in shown.tools}) == size + 1


def test_an_arm_nobody_knows_is_refused() -> None:
    made, sets = suite(3, 2)
    with pytest.raises(UsageError, match="no arm named loud"):
        cells(made, sets, Design(), ["loud"], 1)


def test_plain_cells_are_asked_whatever_the_arms() -> None:
    made, sets = suite(5, 4)
    planned = cells(made, sets, Design(repeats=0), ["cue"], 1)
    plain = {(c.task, c.step): c.order for c in planned if c.arm == PLAIN}
    assert {(c.task, c.step): c.order for c in planned if c.arm == "cue"} == plain
