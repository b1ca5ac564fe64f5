import re

import pytest

from training.catalogue import PLACEHOLDER
from training.conversation import Call, Sitting
from training.generator import AFTER_RESULT, NOTHING_FITS, Generator, Recipe, quote


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
                    # A question taken whole may have lost its mark.
                    said, text = decision.before.lower(), str(value).lower()
                    assert text in said or (text.endswith("?") and text[:-1] in said)


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


def test_a_kind_with_invented_words_still_shares_one_between_every_description_and_request() -> None:
    generator = Generator(6)
    replaced = 0
    for kind in generator.data.kinds:
        strange = generator.estranged(kind)
        if strange is kind:
            continue
        replaced += 1
        assert strange.arguments == kind.arguments
        texts = [PLACEHOLDER.sub(" ", text).lower() for text in (*strange.descriptions, *strange.requests)]
        words = [{word.rstrip("s") for word in re.findall(r"[a-z]{3,}", text)} for text in texts]
        assert set.intersection(*words) - {"the", "for", "and", "with"}, (
            kind.name,
            strange.descriptions,
            strange.requests,
        )
        for request in strange.requests:
            assert set(PLACEHOLDER.findall(request)) <= {name for r in kind.requests for name in PLACEHOLDER.findall(r)}
    assert replaced > 0.9 * len(generator.data.kinds)


def test_beside_a_search_engine_requests_to_act_stay_unserved() -> None:
    generator = Generator(7)
    chosen = [generator.data.by_name[name] for name in ("web_search", "crypto_price")]
    asked = [generator._unserved(chosen) for _ in range(200)]
    assert all(decision.right is None and decision.answer == NOTHING_FITS for decision in asked)
    verbs = {verb for group, _ in generator.data.acts for verb in group}
    acting = sum(any(f" {verb} " in decision.before.lower().replace("\n", " ") for verb in verbs) for decision in asked)
    assert acting > 100
