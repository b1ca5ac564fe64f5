"""Calls of tools in a model's text."""

import json

import pytest

from gateway.upstreams.tool_calls import as_chunks, read, with_calls, with_objects, with_text

NAMES = {"get_weather", "send_mail"}


def found(text: str) -> list[tuple[str, object]]:
    calls = read(text, NAMES).calls
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def marked(text: str) -> str:
    return f"<tool_call>\n{text}\n</tool_call>"


CALL = '{"name": "get_weather", "arguments": {"city": "Zürich", "note": "a } in </text>"}}'
PARIS = ("get_weather", {"city": "Zürich", "note": "a } in </text>"})


@pytest.mark.parametrize(
    "text",
    [
        marked(CALL),
        CALL,
        f"  {CALL}\n",
        f"<tool_call>{CALL}",  # the end of the text is the end of the call, as where its mark is not printed
        f"I will look.\n{marked(CALL)}",
        CALL.replace("arguments", "parameters"),
        marked(json.dumps({"name": PARIS[0], "arguments": json.dumps(PARIS[1])})),
    ],
)
def test_a_call_is_found_in_each_way_it_is_written(text: str) -> None:
    assert found(text) == [PARIS]


def test_several_calls_keep_their_order_and_the_text_beside_them_stays() -> None:
    mail = '{"name": "send_mail"}'
    text = f"First {marked(CALL)} then {marked(mail)}"
    assert found(text) == [PARIS, ("send_mail", {})]
    assert read(text, NAMES).content == "First  then"
    ids = [call["id"] for call in read(text, NAMES).calls]
    assert len(set(ids)) == 2
    assert {len(one) for one in ids} == {9}


@pytest.mark.parametrize(
    "text",
    [
        "It is sunny.",
        "",
        marked('{"name": "rm_rf", "arguments": {}}'),  # a tool that nobody offered
        marked('{"name": "get_weather", "arguments": {"city": '),
        marked('{"name": "get_weather", "arguments": [1]}'),
        f"For example {CALL}",  # only marked, or alone
        '["get_weather"]',
        '{"name": ["get_weather"], "arguments": {}}',
    ],
)
def test_what_is_no_call_of_an_offered_tool_stays_text(text: str) -> None:
    assert read(text, NAMES) == (text, ())


def completion(text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {"id": "c", "created": 1, "model": "m", "choices": [choice], "usage": {"total_tokens": 3}}


def test_a_completion_with_a_call_ends_for_its_sake_and_streams_to_the_same() -> None:
    answer = with_calls(completion(f"Wait. {marked(CALL)}"), NAMES)
    (choice,) = answer["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Wait.")
    chunks = list(as_chunks(answer))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "Wait."
    assert [call for delta in deltas for call in delta.get("tool_calls", ())] == [
        {"index": 0, **choice["message"]["tool_calls"][0]}
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "tool_calls"]
    assert chunks[-1]["usage"] == {"total_tokens": 3}


def test_a_completion_without_a_call_is_left_as_it_is() -> None:
    assert with_calls(completion("Sunny."), NAMES) == completion("Sunny.")


def test_a_template_gets_text_and_objects() -> None:
    asked = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    broken = {"id": "2", "type": "function", "function": {"name": "f", "arguments": "{"}}
    mended = with_objects(with_text([asked, {"role": "assistant", "content": None, "tool_calls": [call, broken]}]))
    assert mended[0]["content"] == "a\nb"
    assert mended[1]["content"] == ""
    assert [one["function"]["arguments"] for one in mended[1]["tool_calls"]] == [{"x": 1}, "{"]
