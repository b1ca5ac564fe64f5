import socket
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from agents.chat_model import ModelError, OpenAIChatModel, Reply, ScriptedModel, ToolCall, Usage, calling
from tests.agents.scripted_endpoint import Answer, Endpoint, call, completion, delta, events

ASK = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
async def model(endpoint: Endpoint, waits: list[float]) -> AsyncIterator[OpenAIChatModel]:
    async def note(seconds: float) -> None:
        waits.append(seconds)

    async with OpenAIChatModel(endpoint.url + "/", "sk-1", "m", timeout=5, sleep=note) as made:
        yield made


async def streamed(endpoint: Endpoint) -> tuple[Reply, list[str]]:
    heard: list[str] = []
    async with OpenAIChatModel(endpoint.url, None, "m", on_text=heard.append, retries=0) as model:
        return await model.ask(ASK), heard


async def test_a_reply_holds_text_tool_calls_usage_and_the_document(endpoint: Endpoint, model: OpenAIChatModel) -> None:
    document = completion("hm", calls=[call("add", '{"a": 1}')])
    endpoint.will(document)
    reply = await model.ask(ASK, [TOOL], max_tokens=7, seed=3)
    assert (reply.text, reply.finish_reason) == ("hm", "tool_calls")
    assert reply.tool_calls == (ToolCall("call_a", "add", '{"a": 1}'),)
    assert reply.usage == Usage(10, 5, 0)
    assert reply.raw == document
    assert 0 < reply.latency < 5
    assert endpoint.asked == [
        {
            "model": "m",
            "messages": ASK,
            "tools": [TOOL],
            "tool_choice": "auto",
            "max_tokens": 7,
            "temperature": 0.0,
            "seed": 3,
        }
    ]
    assert endpoint.headers[0]["authorization"] == "Bearer sk-1"


async def test_without_tools_or_temperature_neither_is_sent(endpoint: Endpoint, model: OpenAIChatModel) -> None:
    endpoint.will(completion("x"))
    await model.ask(ASK, temperature=None)
    assert endpoint.asked == [{"model": "m", "messages": ASK}]


async def test_what_is_extra_goes_into_the_body(endpoint: Endpoint) -> None:
    endpoint.will(completion("x"))
    async with OpenAIChatModel(endpoint.url, None, "m", extra={"cache_prompt": False}) as model:
        await model.ask(ASK)
    assert endpoint.asked[0]["cache_prompt"] is False
    assert "authorization" not in endpoint.headers[0]


async def test_cached_tokens_come_from_usage_or_from_the_timings_of_llama_cpp(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}}
    timings = {"cache_n": 4, "prompt_n": 5, "predicted_n": 2}
    endpoint.will(completion("x", usage=usage), completion("x", timings=timings))
    endpoint.will(completion("x", usage=None, timings=timings))
    assert [(await model.ask(ASK)).usage for _ in range(3)] == [Usage(9, 1, 6), Usage(10, 5, 4), Usage(9, 2, 4)]


async def test_the_cost_comes_from_usage_or_the_header_and_else_is_unknown(
    endpoint: Endpoint, model: OpenAIChatModel
) -> None:
    endpoint.will(completion("x", usage={"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.00025}))
    endpoint.will(Answer(completion("x"), headers={"x-litellm-response-cost": "1.5e-06"}))
    endpoint.will(Answer(completion("x"), headers={"x-litellm-response-cost": "0"}))
    endpoint.will(completion("x"), Answer(completion("x"), headers={"x-litellm-response-cost": "None"}))
    assert [(await model.ask(ASK)).cost for _ in range(5)] == [250_000, 1500, 0, None, None]


async def test_a_free_model_costs_nothing_unless_a_cost_is_named(endpoint: Endpoint) -> None:
    endpoint.will(completion("x"), Answer(completion("x"), headers={"x-litellm-response-cost": "0.5"}))
    async with OpenAIChatModel(endpoint.url, None, "m", free=True) as model:
        assert [(await model.ask(ASK)).cost for _ in range(2)] == [0, 500_000_000]


async def test_shapes_that_servers_differ_in_are_understood(endpoint: Endpoint, model: OpenAIChatModel) -> None:
    endpoint.will(completion(None), completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]))  # type: ignore[arg-type]
    endpoint.will(completion(None, calls=[{"function": {"name": "add", "arguments": {"a": 1}}}]))
    replies = [await model.ask(ASK) for _ in range(3)]
    assert [reply.text for reply in replies] == ["", "ab", ""]
    assert replies[2].tool_calls == (ToolCall("call_0", "add", '{"a": 1}'),)


@pytest.mark.parametrize(
    ("status", "body", "sentence", "hint"),
    [
        (400, {"error": {"message": "Budget exceeded", "type": "x"}}, "Budget exceeded", None),
        (401, {"error": "Invalid API key"}, "Invalid API key", "toolkit keys"),
        (404, {"detail": {"error": "model `m` not found"}}, "model `m` not found", "/v1/models"),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required", None),
        (413, "too large", "too large", None),
        (400, "<html><h1>Bad</h1></html>", "Bad Request", None),
    ],
)
async def test_a_refusal_carries_the_server_s_sentence_and_status_and_is_not_tried_again(
    endpoint: Endpoint, model: OpenAIChatModel, status: int, body: Any, sentence: str, hint: str | None
) -> None:
    endpoint.will(Answer(body, status=status))
    with pytest.raises(ModelError) as refused:
        await model.ask(ASK)
    assert sentence in refused.value.message
    assert str(status) in refused.value.message
    assert refused.value.status == status
    assert (hint or "") in (refused.value.hint or "")
    assert len(endpoint.asked) == 1


async def test_what_may_pass_is_tried_again_with_growing_waits(
    endpoint: Endpoint, model: OpenAIChatModel, waits: list[float]
) -> None:
    endpoint.will(Answer({}, status=503), Answer(drop=True), Answer({}, status=429), completion("at last"))
    assert (await model.ask(ASK)).text == "at last"
    assert [low <= wait <= low * 1.25 for wait, low in zip(waits, (0.5, 1, 2), strict=True)] == [True] * 3


async def test_tries_are_bounded_and_the_last_failure_is_told(endpoint: Endpoint, model: OpenAIChatModel) -> None:
    endpoint.will(*[Answer({"error": {"message": "loading"}}, status=503) for _ in range(5)])
    with pytest.raises(ModelError, match="loading") as failed:
        await model.ask(ASK)
    assert failed.value.status == 503
    assert len(endpoint.asked) == 4


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        (lambda: {"Retry-After": "7"}, 7, 7),
        (lambda: {"retry-after-ms": "1500", "Retry-After": "9"}, 1.5, 1.5),
        (lambda: {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)}, 25, 30),
        (lambda: {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0, 0),
        (lambda: {"Retry-After": "soon"}, 0.5, 0.625),
    ],
)
async def test_the_server_s_wait_is_respected(
    endpoint: Endpoint,
    model: OpenAIChatModel,
    waits: list[float],
    headers: Callable[[], dict[str, str]],
    low: float,
    high: float,
) -> None:
    endpoint.will(Answer({}, status=429, headers=headers()), completion("x"))
    await model.ask(ASK)
    assert low <= waits[0] <= high


async def test_a_wait_that_is_too_long_is_refused_at_once(
    endpoint: Endpoint, model: OpenAIChatModel, waits: list[float]
) -> None:
    endpoint.will(Answer({"error": "quota"}, status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(ModelError, match="quota"):
        await model.ask(ASK)
    assert waits == []


async def test_a_dead_endpoint_is_named(waits: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with OpenAIChatModel(url, None, "m", retries=0) as model:
            with pytest.raises(ModelError, match=f"no answer from {url}"):
                await model.ask(ASK)


@pytest.mark.parametrize("url", ["127.0.0.1:4000", "ftp://localhost/v1", "http://[::1/v1"])
async def test_what_is_no_address_is_refused(url: str) -> None:
    async with OpenAIChatModel(url, None, "m", retries=0) as model:
        with pytest.raises(ModelError, match="address"):
            await model.ask(ASK)


async def test_a_silent_server_ends_in_a_clear_sentence(endpoint: Endpoint) -> None:
    answered = threading.Event()
    endpoint.will(Answer(completion("x"), wait=answered))
    async with OpenAIChatModel(endpoint.url, None, "m", timeout=0.1) as model:
        with pytest.raises(ModelError, match=r"said nothing for 0.1 seconds"):
            await model.ask(ASK)
    answered.set()
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "body", ["<html>hello</html>", "[]", '{"choices": []}', '{"choices": [{}]}', '{"error": "oom"}']
)
async def test_an_answer_that_is_no_completion_is_refused(
    endpoint: Endpoint, model: OpenAIChatModel, body: str
) -> None:
    endpoint.will(Answer(body))
    with pytest.raises(ModelError):
        await model.ask(ASK)


async def test_a_stream_is_heard_as_it_comes_and_put_together(endpoint: Endpoint) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.001}}
    endpoint.will(events(delta(role="assistant", content="He"), delta(content="llo"), delta("length"), usage))
    reply, heard = await streamed(endpoint)
    assert heard == ["He", "llo"]
    assert (reply.text, reply.finish_reason, reply.usage, reply.cost) == ("Hello", "length", Usage(3, 2), 1_000_000)
    assert endpoint.asked[0]["stream"] is True
    assert endpoint.asked[0]["stream_options"] == {"include_usage": True}


def piece(index: int | None, identity: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    made: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    return made | ({} if index is None else {"index": index}) | ({} if identity is None else {"id": identity})


@pytest.mark.parametrize(
    "pieces",
    [
        [
            [piece(0, "a", "add", "")],
            [piece(0, None, None, '{"x"')],
            [piece(0, None, None, ":1}")],
            [piece(1, "b", "sub", "{}")],
        ],
        [[piece(0, "a", "add", '{"x":1}'), piece(1, "b", "sub", "{}")]],
        [[piece(0, "a", "add", '{"x":1}')], [piece(0, "b", "sub", "{}")]],
        [[piece(None, "a", "add", '{"x":1}')], [piece(None, "b", "sub", "{}")]],
        [[piece(0, "a", "add", '{"x"')], [piece(0, "a", "add", ":1}")], [piece(1, "b", "sub", "{}")]],
    ],
)
async def test_streamed_calls_are_put_together_however_the_server_splits_them(
    endpoint: Endpoint, pieces: list[list[dict[str, Any]]]
) -> None:
    endpoint.will(events(*[delta(tool_calls=group) for group in pieces], delta("tool_calls")))
    reply, _ = await streamed(endpoint)
    assert reply.tool_calls == (ToolCall("a", "add", '{"x":1}'), ToolCall("b", "sub", "{}"))
    assert reply.finish_reason == "tool_calls"


async def test_a_character_that_a_stream_cuts_in_two_is_whole_again_and_half_a_one_is_replaced(
    endpoint: Endpoint,
) -> None:
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "add", "arguments": text}} for text in ('"\ud83d', '\ude00"')
    ]
    endpoint.will(
        events(delta(content="x \ud83d"), delta(content="\ude00 \ud800"), *(delta(tool_calls=[p]) for p in pieces))
    )
    reply, _ = await streamed(endpoint)
    assert reply.text == "x \N{GRINNING FACE} \N{REPLACEMENT CHARACTER}"
    assert reply.tool_calls[0].arguments == '"\N{GRINNING FACE}"'


async def test_an_error_inside_a_stream_is_told(endpoint: Endpoint) -> None:
    endpoint.will(events(delta(content="He"), {"error": {"message": "slot lost", "code": 500}}))
    with pytest.raises(ModelError, match="slot lost"):
        await streamed(endpoint)


async def test_a_stream_that_says_nothing_is_an_error(endpoint: Endpoint) -> None:
    endpoint.will(events())
    with pytest.raises(ModelError, match="before the model said anything"):
        await streamed(endpoint)


async def test_a_stream_that_breaks_off_after_text_is_not_said_twice(endpoint: Endpoint) -> None:
    broken = events(delta(content="He"))
    broken.drop = True
    broken.body = broken.body.replace("data: [DONE]\n\n", "")
    endpoint.will(broken, completion("again"))
    heard: list[str] = []
    async with OpenAIChatModel(endpoint.url, None, "m", on_text=heard.append) as model:
        with pytest.raises(ModelError, match="no answer"):
            await model.ask(ASK)
    assert heard == ["He"]
    assert len(endpoint.asked) == 1


async def test_a_server_that_does_not_stream_when_asked_to_is_understood(endpoint: Endpoint) -> None:
    endpoint.will(completion("whole"))
    reply, _ = await streamed(endpoint)
    assert reply.text == "whole"


async def test_a_scripted_model_replies_in_turn_and_ends_with_its_script() -> None:
    model = ScriptedModel(
        ["one", calling(("add", {"a": 1})), lambda messages, tools: str(len(messages)), ValueError("x")]
    )
    assert (await model.ask(ASK)).text == "one"
    assert (await model.ask(ASK)).tool_calls == (ToolCall("call_0", "add", '{"a": 1}'),)
    assert (await model.ask(ASK * 3)).text == "3"
    with pytest.raises(ValueError, match="x"):
        await model.ask(ASK)
    with pytest.raises(ModelError, match="only 4 replies"):
        await model.ask(ASK)
    assert [len(messages) for messages, _ in model.asked] == [1, 1, 3, 1, 1]


def test_a_reply_becomes_the_assistant_s_message() -> None:
    assert Reply("hi").message() == {"role": "assistant", "content": "hi"}
    assert calling(("add", "{}"), text="t").message()["tool_calls"] == [call("add", "{}", "call_0")]
