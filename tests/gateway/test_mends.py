import copy
from typing import Any

import pytest

from gateway.mends import (
    MENDS,
    drop_refused_parameters,
    drop_thinking_blocks,
    fold_system_messages,
    mended,
    narrow_tool_choice,
    separate_calls,
    write_out_empty_inputs,
)


def user(*texts: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "42"}]}
NOTE = "<system-reminder>\nnote\n</system-reminder>"


def test_a_note_after_a_question_stands_before_it_and_the_question_stays_last() -> None:
    body = {"system": "be kind", "messages": [user("context", "question"), system("note")]}
    assert fold_system_messages(body) == {"system": "be kind", "messages": [user("context", NOTE, "question")]}


def test_a_note_after_a_question_of_plain_text_stands_before_it() -> None:
    body = {"messages": [system("be kind"), {"role": "user", "content": "question"}, system("note")]}
    assert fold_system_messages(body)["messages"][1:] == [{"role": "user", "content": f"{NOTE}\nquestion"}]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ({"system": "be kind"}, {"system": "be kind\n\nnote"}),
        (
            {"system": [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}]},
            {
                "system": [
                    {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}},
                    {"type": "text", "text": "note"},
                ]
            },
        ),
    ],
)
def test_a_note_after_the_result_of_a_tool_joins_the_system_prompt(
    prompt: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = {**prompt, "messages": [user("q"), {"role": "assistant", "content": "a"}, RESULT, system("note")]}
    assert fold_system_messages(body) == {**expected, "messages": body["messages"][:-1]}


def test_a_note_without_a_system_prompt_makes_one() -> None:
    tool = {"role": "tool", "tool_call_id": "t", "content": "42"}
    assert fold_system_messages({"messages": [user("q"), tool, system("note")]})["messages"] == [
        system("note"),
        user("q"),
        tool,
    ]
    body = {"messages": [system("be kind"), user("q"), tool, system("note")]}
    assert fold_system_messages(body)["messages"] == [system("be kind\n\nnote"), user("q"), tool]


def test_parameters_that_local_servers_refuse_are_left_out() -> None:
    body = {"model": "m", "messages": [], "max_tokens": 5, "thinking": {"type": "enabled"}, "reasoning_effort": "high"}
    assert drop_refused_parameters(body) == {"model": "m", "messages": [], "max_tokens": 5}


def test_thinking_of_earlier_turns_is_left_out() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = {"type": "text", "text": "yes"}
    body = {
        "messages": [
            user("q"),
            {"role": "assistant", "content": [thought, {"type": "redacted_thinking", "data": "x"}, said]},
            {"role": "assistant", "content": [thought]},
            {"role": "assistant", "content": "text", "thinking_blocks": [thought]},
        ]
    }
    assert drop_thinking_blocks(body)["messages"] == [
        user("q"),
        {"role": "assistant", "content": [said]},
        {"role": "assistant", "content": [{"type": "text", "text": "..."}]},
        {"role": "assistant", "content": "text"},
    ]


def test_calls_without_arguments_get_an_empty_object() -> None:
    def call(arguments: Any) -> dict[str, Any]:
        return {"id": "1", "type": "function", "function": {"name": "ls", "arguments": arguments}}

    use = {"type": "tool_use", "id": "1", "name": "ls"}
    body = {
        "messages": [
            {"role": "assistant", "content": None, "tool_calls": [call(""), call(None), call('{"a": 1}')]},
            {"role": "assistant", "content": [use, {**use, "input": ""}, {**use, "input": {"a": 1}}]},
        ]
    }
    assert write_out_empty_inputs(body)["messages"] == [
        {"role": "assistant", "content": None, "tool_calls": [call("{}"), call("{}"), call('{"a": 1}')]},
        {"role": "assistant", "content": [{**use, "input": {}}, {**use, "input": {}}, {**use, "input": {"a": 1}}]},
    ]


def test_calls_in_one_line_of_ollama_become_lines_with_one_each() -> None:
    def call(name: str, **more: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {}}, **more}

    whole = {"message": {"role": "assistant", "content": "so", "tool_calls": [call("ls"), call("now", id="mine")]}}
    words, first, second, end = separate_calls({**whole, "model": "m", "done": True, "eval_count": 9}, seen=3)
    assert words == {"model": "m", "done": False, "eval_count": 9, "message": {"role": "assistant", "content": "so"}}
    (one,), (two,) = first["message"]["tool_calls"], second["message"]["tool_calls"]
    assert one == call("ls", index=3, id=one["id"])
    assert two == call("now", index=4, id="mine")
    assert one["id"] not in ("", "mine")
    assert end == {"model": "m", "done": True, "eval_count": 9, "message": {"role": "assistant", "content": ""}}


@pytest.mark.parametrize(
    "answer", [{"error": "no tool_calls"}, {"message": None}, {"message": {"content": "a", "tool_calls": []}}]
)
def test_a_line_of_ollama_without_calls_stays_as_it_is(answer: dict[str, Any]) -> None:
    assert separate_calls(answer, seen=0) == [answer]


CLEAN = {
    "model": "m",
    "system": "be kind",
    "messages": [user("q"), {"role": "assistant", "content": [{"type": "text", "text": "a"}]}, RESULT],
    "tools": [],
    "stream": True,
}
ODD: list[dict[str, Any]] = [
    {},
    {"messages": None},
    {"messages": ["text", None, 5]},
    {"messages": [{"role": "assistant"}, {"role": "user"}, {"role": "system"}]},
    {"messages": [system("only")]},
    {"messages": [{"role": "assistant", "content": [None, "x"], "tool_calls": [None, {"function": "x"}]}]},
]


@pytest.mark.parametrize("mend", MENDS, ids=[mend.name for mend in MENDS])
def test_each_mend_leaves_a_sound_request_as_it_is_and_breaks_on_none(mend: Any) -> None:
    assert mend.apply(CLEAN) is CLEAN
    for body in ODD:
        before = copy.deepcopy(body)
        mend.apply(body)
        assert body == before


def test_all_mends_together() -> None:
    body = {**CLEAN, "thinking": {"type": "enabled"}, "messages": [user("q"), system("note")]}
    assert mended(body) == {**CLEAN, "messages": [user(NOTE, "q")]}
    assert len({mend.name for mend in MENDS}) == len(MENDS)


OPENAI = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("a", "b")]
ANTHROPIC = [{"name": name, "input_schema": {}} for name in ("a", "b")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"tools": OPENAI, "tool_choice": {"type": "function", "function": {"name": "b"}}},
            {"tools": OPENAI[1:], "tool_choice": "required"},
        ),
        (
            {"tools": ANTHROPIC, "tool_choice": {"type": "tool", "name": "b", "disable_parallel_tool_use": True}},
            {"tools": ANTHROPIC[1:], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        ),
        ({"tools": OPENAI, "tool_choice": "none"}, {}),
        ({"tools": ANTHROPIC, "tool_choice": {"type": "none"}}, {}),
    ],
)
def test_a_named_tool_is_offered_alone_and_none_where_none_may_be_called(
    body: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert narrow_tool_choice({"messages": [], **body}) == {"messages": [], **expected}


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "any"}, {"type": "tool", "name": "c"}, None, 7, []])
def test_any_other_tool_choice_goes_on_as_it_is(choice: Any) -> None:
    body = {"tools": ANTHROPIC, "tool_choice": choice}
    assert narrow_tool_choice(body) is body
