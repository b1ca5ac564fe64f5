import pytest

from agents.chat_model import ToolCall
from agents.experiments.scoring import Verdict, verdict
from agents.experiments.suites import ANY, NONE

NAMES = {"web_search": "web_search", "web_search_b": "web_search#copy", "read_page": "read_page"}
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
SCHEMAS = dict.fromkeys(NAMES, SCHEMA)


def scored(name: str, arguments: str = '{"q": "x"}', right: str = "web_search") -> Verdict:
    return verdict(ToolCall("1", name, arguments), NAMES, SCHEMAS, right)


def test_the_right_name_is_right_and_another_is_wrong() -> None:
    assert scored("web_search") == Verdict("right", "web_search", True)
    assert scored("read_page") == Verdict("wrong", "read_page", True)


@pytest.mark.parametrize("name", ["web", "Web_Search", "web_search ", "search", "", "web_search_c"])
def test_a_name_that_is_not_exactly_one_of_those_offered_is_unknown(name: str) -> None:
    assert scored(name) == Verdict("unknown_tool")


@pytest.mark.parametrize("arguments", ["{", "[]", "3", '"x"', "null"])
def test_arguments_that_are_no_object_make_an_invalid_call(arguments: str) -> None:
    assert scored("web_search", arguments) == Verdict("invalid")


def test_arguments_that_miss_the_schema_are_noted_and_the_choice_stands() -> None:
    assert scored("web_search", "{}") == Verdict("right", "web_search", False)
    assert scored("web_search", "") == Verdict("right", "web_search", False)


def test_text_is_no_tool_unless_none_fits() -> None:
    assert verdict(None, NAMES, SCHEMAS, "web_search") == Verdict("no_tool")
    assert verdict(None, NAMES, SCHEMAS, NONE) == Verdict("right")
    assert scored("read_page", right=NONE).outcome == "wrong"


def test_any_tool_is_right_where_any_would_do_and_a_copy_of_the_right_one_too() -> None:
    assert scored("read_page", right=ANY).outcome == "right"
    assert scored("web_search_b").outcome == "right"
