import pytest

from training.conversation import Call, Sitting
from training.generator import AFTER_RESULT, Generator, Recipe, quote


def drawn(seed: int, recipe: Recipe, count: int = 300) -> list[Sitting]:
    generator = Generator(seed)
    return [generator.sitting(recipe) for _ in range(count)]


def test_the_same_seed_makes_the_same_sittings_and_another_seed_others() -> None:
    assert drawn(5, Recipe(), 40) == drawn(5, Recipe(), 40)
    assert drawn(5, Recipe(), 40) != drawn(6, Recipe(), 40)


def test_a_call_names_the_right_tool_and_only_its_parameters_with_all_that_are_required() -> None:
    calls = 0
    for sitting in drawn(1, Recipe()):
        for decision in sitting.decisions:
            if isinstance(decision.answer, Call):
                calls += 1
                assert decision.right is not None
                tool = sitting.tools[decision.right]
                assert decision.answer.name == tool.name
                assert set(decision.answer.arguments) <= {parameter.name for parameter in tool.parameters}
                assert {p.name for p in tool.parameters if p.required} <= set(decision.answer.arguments)
    assert calls > 1000


def test_every_argument_stands_in_the_conversation_as_the_user_wrote_it() -> None:
    for sitting in drawn(2, Recipe()):
        for decision in sitting.decisions:
            if isinstance(decision.answer, Call):
                for value in decision.answer.arguments.values():
                    assert str(value).lower() in decision.before.lower()


def test_no_two_tools_of_a_sitting_share_a_name_and_their_number_keeps_to_the_recipe() -> None:
    for sitting in drawn(3, Recipe(fewest=2, most=5, toolless=0)):
        assert len({tool.name for tool in sitting.tools}) == len(sitting.tools)
        assert 2 <= len(sitting.tools) <= 5


@pytest.mark.parametrize(("skew", "least", "most"), [(1.0, 0.4, 0.6), (0.2, 0.7, 1.0)])
def test_skew_puts_the_right_one_of_two_equivalent_tools_first(skew: float, least: float, most: float) -> None:
    generator = Generator(4)
    kind = generator.data.by_name["weather"]
    tools = [generator.tool(kind, 0.0, set()), generator.tool(kind, 1.0, set())]
    chosen = [generator._served([kind, kind], tools, skew).right for _ in range(400)]
    calls = [right for right in chosen if right is not None]
    assert least <= calls.count(0) / len(calls) <= most


def test_after_a_result_the_answer_quotes_its_first_line() -> None:
    quoted = [
        decision
        for sitting in drawn(5, Recipe())
        for decision in sitting.decisions
        if isinstance(decision.answer, str) and decision.answer.startswith(AFTER_RESULT)
    ]
    assert quoted
    for decision in quoted:
        assert isinstance(decision.answer, str)
        result = decision.before.rpartition("<|im_start|>tool\n")[2].removesuffix("<|im_end|>\n")
        assert decision.answer == AFTER_RESULT + quote(result)
