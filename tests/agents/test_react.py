import json

import pytest

from agents.chat_model import Reply, ScriptedModel, ToolCall, Usage, calling
from agents.limits import Ending
from agents.loop import run
from agents.react import ReActModel, as_text, understood
from tests.agents.test_loop import Sums

TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}


async def test_a_task_is_done_in_text_alone() -> None:
    model = ScriptedModel(
        [
            'Thought: I must add.\nAction: add\nAction Input: {"a": 1, "b": 2}\nObservation: 7\nFinal Answer: 7',
            "Thought: now I know.\nFinal Answer: It is 3.",
        ]
    )
    host = Sums()
    done = await run("1 + 2?", ReActModel(model), host)
    assert (done.answer, done.ending) == ("It is 3.", Ending.ANSWERED)
    assert host.calls == [("add", {"a": 1, "b": 2})]
    for messages, tools in model.asked:
        assert tools == []
        assert {message["role"] for message in messages} <= {"system", "user", "assistant"}
    assert model.asked[1][0][2:] == [
        {"role": "assistant", "content": 'Thought: I must add.\nAction: add\nAction Input: {"a": 1, "b": 2}'},
        {"role": "user", "content": "Observation: 3"},
    ]


def test_the_tools_stand_in_the_system_prompt() -> None:
    (system, user) = as_text([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}], [TOOL])
    assert system["content"].startswith("Be kind.\n\nYou can use tools.")
    assert '- add: Add. Arguments: {"type": "object"}' in system["content"]
    assert user == {"role": "user", "content": "hi"}
    (alone, _) = as_text([{"role": "user", "content": "hi"}], [TOOL])
    assert alone["role"] == "system"


def test_several_results_are_one_turn_of_the_user() -> None:
    reply = calling(("add", "{}"), ("sub", "{}"), text="Two.")
    results = [{"role": "tool", "tool_call_id": "", "content": text} for text in ("3", "4")]
    told = as_text([{"role": "user", "content": "go"}, reply.message(), *results], [])
    assert told[1]["content"] == "Two.\nAction: add\nAction Input: {}\nAction: sub\nAction Input: {}"
    assert told[2:] == [{"role": "user", "content": "Observation: 3\nObservation: 4"}]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('Action: add\nAction Input: {"a": 1}', [("add", '{"a": 1}')]),
        ('Action: `add`\n\nAction Input:\n```json\n{"a":\n 1}\n```', [("add", '{"a":\n 1}')]),
        ('Action: add\nAction Input: {"a": "x}"} so there', [("add", '{"a": "x}"}')]),
        ("Action: add\nAction Input: 1, 2", [("add", "1, 2")]),
        ('Action: add\nAction Input: {"a": 1', [("add", '{"a": 1')]),
        ("Action: a\nAction Input: {}\nAction: b\nAction Input: {}", [("a", "{}"), ("b", "{}")]),
        ('Action: a\nAction Input: {"t": "x"}\nFinal Answer: no', [("a", '{"t": "x"}')]),
        ("  Action:  add  \n  Action Input: {}", [("add", "{}")]),
    ],
)
def test_calls_are_found_in_text(text: str, calls: list[tuple[str, str]]) -> None:
    reply = understood(Reply(text))
    assert [(call.name, call.arguments) for call in reply.tool_calls] == calls
    assert reply.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thought: easy.\nFinal Answer: 42", "42"),
        ("Just words.", "Just words."),
        (
            "Final Answer: use it like this:\nAction: x\nAction Input: {}",
            "use it like this:\nAction: x\nAction Input: {}",
        ),
        ("Action: without input", "Action: without input"),
        ("Observation: made up", ""),
    ],
)
def test_answers_are_found_in_text(text: str, answer: str) -> None:
    reply = understood(Reply(text, (ToolCall("x", "y", "{}"),)))
    assert (reply.text, reply.tool_calls) == (answer, ())


def test_what_was_used_is_kept_and_calls_of_different_turns_differ() -> None:
    reply = Reply("Action: a\nAction Input: {}", (), "stop", Usage(3, 4), 1.5, {}, "", 7)
    first, second = understood(reply, turn=2), understood(reply, turn=4)
    assert (first.usage, first.latency, first.cost) == (Usage(3, 4), 1.5, 7)
    assert first.tool_calls[0].id != second.tool_calls[0].id


def test_a_call_written_as_text_is_understood_as_that_call() -> None:
    reply = calling(("add", {"a": "Action: b\nAction Input: {}", "b": '"}'}), text="Hm.")
    (told,) = as_text([reply.message()], [])
    (call,) = understood(Reply(told["content"])).tool_calls
    assert json.loads(call.arguments) == json.loads(reply.tool_calls[0].arguments)
