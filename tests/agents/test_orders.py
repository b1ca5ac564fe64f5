import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.orders import as_given, named, permutation, shuffled
from agents.tool_host import Tool
from toolkit.core.errors import UsageError

TOOLS = [
    Tool("zip", "", {}, "files"),
    Tool("add", "", {}, "sums"),
    Tool("Read", "", {}),
    Tool("list", "", {}, "b"),
    Tool("edit", "", {}),
]


def names(order: str, seed: int = 0, step: int = 0) -> list[str]:
    return [tool.name for tool in named(order, seed=seed)(TOOLS, step)]


def test_fixed_orders() -> None:
    assert names("as-given") == ["zip", "add", "Read", "list", "edit"]
    assert names("alphabetical") == ["Read", "add", "edit", "list", "zip"]
    assert names("claude-code") == ["Read", "edit", "list", "zip", "add"]
    assert names("opencode") == ["Read", "list", "edit", "zip", "add"]
    assert names("4,3,2,1,0") == ["edit", "list", "Read", "add", "zip"]


def test_a_shuffle_is_the_same_for_a_seed_and_for_all_steps_unless_asked_for_each() -> None:
    assert names("shuffle", 7) == names("shuffle", 7, step=3)
    assert len({tuple(names("shuffle", seed)) for seed in range(20)}) > 10
    assert names("shuffle-each-step", 7, 1) == names("shuffle-each-step", 7, 1)
    assert len({tuple(names("shuffle-each-step", 7, step)) for step in range(20)}) > 10


def test_a_shuffle_of_a_seed_never_changes_between_versions() -> None:
    assert names("shuffle", 7) == ["edit", "Read", "add", "list", "zip"]


@given(st.lists(st.text(), unique=True), st.integers(), st.integers(min_value=0, max_value=50))
def test_every_order_keeps_every_tool(tool_names: list[str], seed: int, step: int) -> None:
    tools = [Tool(name, "", {}, name[:1]) for name in tool_names]
    for order in (
        as_given,
        named("alphabetical"),
        named("claude-code"),
        named("opencode"),
        shuffled(seed, each_step=True),
    ):
        assert sorted(order(tools, step), key=lambda tool: tool.name) == sorted(tools, key=lambda tool: tool.name)


@pytest.mark.parametrize("indices", [[0, 1], [0, 0, 1, 2, 3], [1, 2, 3, 4, 5]])
def test_a_permutation_that_does_not_fit_is_refused(indices: list[int]) -> None:
    with pytest.raises(UsageError, match="is not an order of 5 tools"):
        permutation(indices)(TOOLS)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no order named random"):
        named("random")
