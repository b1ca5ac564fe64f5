import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from agents.approval import Asking, auto, never
from agents.chat_model import ModelError, Reply, ScriptedModel, Usage, calling
from agents.limits import Ending, Limits
from agents.loop import cut, run
from agents.orders import alphabetical, shuffled
from agents.tool_host import Tool, ToolResult
from agents.trace import MemoryTrace

NUMBER = {"type": "integer"}
SUM = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}


class Sums:
    """A tool host in this process: adds, echoes, and meets."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self._met = asyncio.Event()

    def tools(self) -> list[Tool]:
        schemas = {"echo": {"type": "object"}, "add": SUM, "meet": {"type": "object"}, "hang": {"type": "object"}}
        return [Tool(name, "", schema, "sums") for name, schema in schemas.items()]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        self.calls.append((name, arguments))
        if name == "add":
            return ToolResult(str(arguments["a"] + arguments["b"]))
        if name == "meet":
            if len([called for called, _ in self.calls if called == "meet"]) == 2:
                self._met.set()
            await asyncio.wait_for(self._met.wait(), 5)
            return ToolResult(f"met {arguments['who']}")
        if name == "hang":
            await asyncio.Event().wait()
        return ToolResult(str(arguments.get("text", "")))


ADD = calling(("add", {"a": 1, "b": 2}))


async def test_the_loop_asks_calls_appends_and_asks_again_until_the_model_answers() -> None:
    model, host = ScriptedModel([ADD, "3"]), Sums()
    done = await run("1 + 2?", model, host)
    assert (done.answer, done.ending, done.steps) == ("3", Ending.ANSWERED, 2)
    assert host.calls == [("add", {"a": 1, "b": 2})]
    first, second = (messages for messages, _ in model.asked)
    assert [message["role"] for message in first] == ["system", "user"]
    assert second[2:] == [
        ADD.message(),
        {"role": "tool", "tool_call_id": "call_0", "name": "add", "content": "3"},
    ]


async def test_parallel_calls_are_made_at_once_and_answered_in_their_order() -> None:
    model = ScriptedModel([calling(("meet", {"who": "x"}), ("meet", {"who": "y"})), "done"])
    await run("meet", model, Sums())
    assert [message["content"] for message in model.asked[1][0][3:]] == ["met x", "met y"]


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("ad", "{}", "there is no tool named 'ad'; did you mean add? tools: echo, add, meet, hang"),
        ("add", '{"a": 1', "not valid JSON"),
        ("add", "[1, 2]", "must be a JSON object"),
        ("add", '{"a": 1}', "do not fit its schema: 'b' is a required property"),
        ("add", '{"a": "x", "b": 2}', "a: 'x' is not of type 'integer'"),
        ("add", "[" * 100_000, "not valid JSON"),
        ("echo", '{"text": "\\ud800"}', "half of a surrogate pair"),
    ],
)
async def test_a_bad_call_goes_back_to_the_model_as_an_error(name: str, arguments: str, told: str) -> None:
    model, host = ScriptedModel([calling((name, arguments)), "sorry"]), Sums()
    done = await run("x", model, host)
    assert told in model.asked[1][0][-1]["content"]
    assert host.calls == []
    assert done.ending is Ending.ANSWERED


async def test_bad_calls_in_a_row_are_bounded_and_a_good_one_starts_the_count_anew() -> None:
    bad = calling(("nothing", "{}"))
    done = await run("x", ScriptedModel([bad, bad, ADD, bad, bad, bad, "late"]), Sums(), limits=Limits(bad_calls=3))
    assert (done.ending, done.steps) == (Ending.BAD_CALLS, 6)
    assert done.reason == "3 calls in a row could not be made"


async def test_no_arguments_at_all_are_an_empty_object() -> None:
    host = Sums()
    await run("x", ScriptedModel([calling(("echo", "")), "done"]), host)
    assert host.calls == [("echo", {})]


@pytest.mark.parametrize(
    "schema", [{"type": 5}, {"$ref": "http://127.0.0.1:9/schema.json"}, {"$schema": "http://example.org/none"}]
)
async def test_a_schema_that_is_itself_broken_judges_nothing_and_fetches_nothing(schema: dict[str, Any]) -> None:
    class Odd(Sums):
        def tools(self) -> list[Tool]:
            return [Tool("echo", "", schema)]

    host = Odd()
    await run("x", ScriptedModel([calling(("echo", {"text": "t"})), "done"]), host)
    assert host.calls == [("echo", {"text": "t"})]


async def test_steps_are_limited() -> None:
    done = await run("x", ScriptedModel([ADD, ADD, "late"]), Sums(), limits=Limits(steps=2))
    assert (done.ending, done.steps, done.answer) == (Ending.STEPS, 2, "")
    assert "2 steps" in done.reason


async def test_tokens_are_limited_and_what_is_left_is_the_longest_reply() -> None:
    asked: list[int | None] = []

    class Counted(ScriptedModel):
        async def ask(self, *arguments: Any, max_tokens: int | None = None, **more: Any) -> Reply:
            asked.append(max_tokens)
            return await super().ask(*arguments, **more)

    costly = Reply("", ADD.tool_calls, usage=Usage(40, 20))
    done = await run("x", Counted([costly, costly, "late"]), Sums(), limits=Limits(tokens=100))
    assert (done.ending, done.usage.total_tokens) == (Ending.TOKENS, 120)
    assert asked == [100, 40]


async def test_money_is_limited() -> None:
    costly = Reply("", ADD.tool_calls, cost=600)
    done = await run("x", ScriptedModel([costly, costly, "late"]), Sums(), limits=Limits(cost=1000))
    assert (done.ending, done.cost) == (Ending.MONEY, 1200)


async def test_a_budget_of_nothing_allows_what_costs_nothing_and_ends_after_what_does() -> None:
    free = Reply("", ADD.tool_calls, cost=0)
    done = await run("x", ScriptedModel([free, Reply("free", cost=0)]), Sums(), limits=Limits(cost=0))
    assert (done.ending, done.cost) == (Ending.ANSWERED, 0)
    done = await run("x", ScriptedModel([Reply("", ADD.tool_calls, cost=1), "late"]), Sums(), limits=Limits(cost=0))
    assert done.ending is Ending.MONEY


async def test_a_budget_that_cannot_be_kept_ends_the_run_rather_than_be_ignored() -> None:
    done = await run("x", ScriptedModel([ADD, "late"]), Sums(), limits=Limits(cost=1000))
    assert (done.ending, done.cost) == (Ending.MONEY, None)
    assert "does not say what a request costs" in done.reason


async def test_time_is_limited_also_inside_a_call() -> None:
    done = await run("x", ScriptedModel([calling(("hang", {})), "late"]), Sums(), limits=Limits(seconds=0.1))
    assert done.ending is Ending.TIME
    assert "0.1s" in done.reason


async def test_a_reply_cut_off_at_its_length_is_no_answer() -> None:
    done = await run("x", ScriptedModel([Reply("Once upon", finish_reason="length")]), Sums())
    assert (done.ending, done.answer) == (Ending.CUT_OFF, "Once upon")


async def test_a_failure_of_the_model_is_raised_and_stands_in_the_trace() -> None:
    trace = MemoryTrace()
    with pytest.raises(ModelError, match="over budget"):
        await run("x", ScriptedModel([ADD, ModelError("over budget", status=400)]), Sums(), trace=trace)
    assert trace.events[-1]["event"] == "end"
    assert (trace.events[-1]["ending"], trace.events[-1]["reason"]) == ("failed", "over budget")


@pytest.mark.parametrize("fault", [TimeoutError(), RuntimeError("a defect")])
async def test_a_defect_is_raised_and_not_taken_for_the_limit_of_time(fault: Exception) -> None:
    trace = MemoryTrace()
    with pytest.raises(type(fault)):
        await run("x", ScriptedModel([fault]), Sums(), limits=Limits(seconds=60), trace=trace)
    assert (trace.events[-1]["event"], trace.events[-1]["ending"]) == ("end", "failed")


async def test_an_interrupted_run_ends_its_trace_and_stays_interrupted() -> None:
    trace = MemoryTrace()
    task = asyncio.create_task(run("x", ScriptedModel([calling(("hang", {}))]), Sums(), trace=trace))
    while not any(event["event"] == "call" for event in trace.events):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert trace.events[-1]["ending"] == "interrupted"


async def test_nothing_is_called_without_approval_and_the_model_is_told() -> None:
    model, host = ScriptedModel([ADD, "I may not"]), Sums()
    await run("x", model, host, approval=never)
    assert host.calls == []
    assert model.asked[1][0][-1]["content"] == "the user did not allow this call"


async def test_a_person_is_asked_for_each_call_until_they_say_always() -> None:
    answers, asked = iter(["no", "yes", "always"]), []

    def question(tool: Tool, arguments: Mapping[str, Any]) -> str:
        asked.append((tool.name, arguments["a"]))
        return next(answers)

    host = Sums()
    script = [calling(*[("add", {"a": number, "b": 0}) for number in range(5)]), "done"]
    await run("x", ScriptedModel(script), host, approval=Asking(question))
    assert asked == [("add", 0), ("add", 1), ("add", 2)]
    assert [arguments["a"] for _, arguments in host.calls] == [1, 2, 3, 4]


async def test_a_bad_call_is_not_put_before_a_person() -> None:
    def question(tool: Tool, arguments: Mapping[str, Any]) -> str:
        raise AssertionError("asked")

    await run("x", ScriptedModel([calling(("add", "{")), "done"]), Sums(), approval=Asking(question))


async def test_long_output_is_cut_with_a_note() -> None:
    model = ScriptedModel([calling(("echo", {"text": "a" * 500 + "z" * 500})), "done"])
    await run("x", model, Sums(), limits=Limits(output=100))
    content = model.asked[1][0][-1]["content"]
    assert content == "a" * 75 + "\n[900 of 1000 characters left out here]\n" + "z" * 25


def test_short_output_is_not_cut() -> None:
    assert cut("abc", 3) == "abc"


async def test_the_order_of_tools_is_what_the_model_sees_and_what_the_trace_says() -> None:
    model, trace = ScriptedModel([ADD, "3"]), MemoryTrace()
    await run("x", model, Sums(), order=alphabetical, trace=trace)
    for _, tools in model.asked:
        assert [tool["function"]["name"] for tool in tools] == ["add", "echo", "hang", "meet"]
    assert [event["order"] for event in trace.events if event["event"] == "ask"] == [
        ["add", "echo", "hang", "meet"]
    ] * 2


async def test_an_order_of_each_step_is_drawn_anew() -> None:
    model = ScriptedModel([ADD] * 9 + ["3"])
    await run("x", model, Sums(), order=shuffled(1, each_step=True))
    assert len({tuple(tool["function"]["name"] for tool in tools) for _, tools in model.asked}) > 3


async def test_the_trace_holds_all_that_is_needed_to_say_what_happened() -> None:
    trace = MemoryTrace()
    reply = Reply("so", ADD.tool_calls, "tool_calls", Usage(7, 2, 5), 0.25, {"x": 1}, "why", 9)
    await run("1 + 2?", ScriptedModel([reply, "3"], name="m"), Sums(), trace=trace, seed=4, limits=Limits(steps=3))
    assert [event["event"] for event in trace.events] == [
        *("start", "messages", "ask", "reply", "call", "result", "ask", "reply", "end")
    ]
    start, messages, _, said, call, result, _, _, end = trace.events
    assert (start["task"], start["model"], start["seed"], start["limits"]["steps"]) == ("1 + 2?", "m", 4, 3)
    assert start["tools"][1] == {"name": "add", "description": "", "parameters": SUM, "server": "sums"}
    assert {"python", "local-llm-toolkit", "mcp"} <= set(start["versions"])
    assert [message["role"] for message in messages["messages"]] == ["system", "user"]
    assert said["tool_calls"] == [{"id": "call_0", "name": "add", "arguments": '{"a": 1, "b": 2}'}]
    assert (said["usage"]["cached_tokens"], said["latency"], said["cost"], said["reasoning"]) == (5, 0.25, 9, "why")
    assert (call["name"], call["arguments"]) == ("add", '{"a": 1, "b": 2}')
    assert (result["id"], result["text"], result["is_error"]) == ("call_0", "3", False)
    assert (end["answer"], end["ending"], end["usage"]["prompt_tokens"]) == ("3", "answered", 7)


async def test_a_task_without_tools_is_just_answered() -> None:
    class Bare(Sums):
        def tools(self) -> list[Tool]:
            return []

    model = ScriptedModel([ADD, "fine"])
    done = await run("hi", model, Bare(), approval=auto)
    assert done.answer == "fine"
    assert "there is no tool named 'add'; tools: none" in model.asked[1][0][-1]["content"]
