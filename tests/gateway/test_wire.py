"""What a client gets through the whole gateway: both APIs, streamed and not, tool calls, refusals."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.supervisor import running
from tests.conftest import LiveGateway

pytestmark = pytest.mark.slow

MODEL = "toolkit-tiny"
QUESTION = "How is the weather in Paris?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "Get the current weather for a city", "parameters": SCHEMA},
    }
]
ANTHROPIC_TOOLS = [{"name": "get_weather", "description": "Get the current weather for a city", "input_schema": SCHEMA}]


@pytest.fixture(scope="module")
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client(gateway.key("wire", budget_tokens=1_000_000)) as client:
        yield client


def openai(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64, **more}


def anthropic(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64, **more}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON data of a stream of server-sent events."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_the_openai_format_answers(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=openai()).raise_for_status().json()
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["prompt_tokens"] > 0


def test_the_openai_format_streams(client: httpx.Client) -> None:
    response = client.post("/v1/chat/completions", json=openai(stream=True)).raise_for_status()
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.rstrip().endswith("data: [DONE]")
    assert any(choice.get("finish_reason") for event in events(response) for choice in event["choices"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_openai_format_calls_a_tool(client: httpx.Client, stream: bool) -> None:
    body = openai(tools=OPENAI_TOOLS, tool_choice="required", stream=stream)
    response = client.post("/v1/chat/completions", json=body).raise_for_status()
    if stream:
        deltas = [choice["delta"] for event in events(response) for choice in event["choices"]]
        calls = [call["function"] for delta in deltas for call in delta.get("tool_calls") or []]
        name = "".join(call.get("name") or "" for call in calls)
        arguments = "".join(call.get("arguments") or "" for call in calls)
    else:
        call = response.json()["choices"][0]["message"]["tool_calls"][0]["function"]
        name, arguments = call["name"], call["arguments"]
    assert name == "get_weather"
    assert set(json.loads(arguments)) == {"city"}


def test_the_anthropic_format_answers(client: httpx.Client) -> None:
    answer = client.post("/v1/messages", json=anthropic()).raise_for_status().json()
    assert answer["type"] == "message"
    assert answer["usage"]["input_tokens"] > 0


def test_the_anthropic_format_streams(client: httpx.Client) -> None:
    kinds = [event["type"] for event in events(client.post("/v1/messages", json=anthropic(stream=True)))]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_anthropic_format_calls_a_tool(client: httpx.Client, stream: bool) -> None:
    body = anthropic(tools=ANTHROPIC_TOOLS, tool_choice={"type": "any"}, stream=stream)
    response = client.post("/v1/messages", json=body).raise_for_status()
    if stream:
        started = [e["content_block"] for e in events(response) if e["type"] == "content_block_start"]
        deltas = [e["delta"] for e in events(response) if e["type"] == "content_block_delta"]
        name = next(block["name"] for block in started if block["type"] == "tool_use")
        given = json.loads("".join(delta.get("partial_json", "") for delta in deltas))
    else:
        block = next(block for block in response.json()["content"] if block["type"] == "tool_use")
        name, given = block["name"], block["input"]
    assert name == "get_weather"
    assert set(given) == {"city"}


BOTH = ("get_weather", "send_letter")


@pytest.mark.parametrize("name", BOTH)
def test_a_named_tool_is_called_in_both_formats(client: httpx.Client, name: str) -> None:
    """Also where the model would choose the other one: llama.cpp itself takes a named choice for "auto"."""
    letter = json.loads(json.dumps(OPENAI_TOOLS[0]).replace("get_weather", "send_letter"))
    body = openai(tools=[*OPENAI_TOOLS, letter], tool_choice={"type": "function", "function": {"name": name}})
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert [call["function"]["name"] for call in answer["choices"][0]["message"]["tool_calls"]] == [name]
    tools = [*ANTHROPIC_TOOLS, ANTHROPIC_TOOLS[0] | {"name": "send_letter"}]
    body = anthropic(tools=tools, tool_choice={"type": "tool", "name": name})
    content = client.post("/v1/messages", json=body).raise_for_status().json()["content"]
    assert [block["name"] for block in content if block["type"] == "tool_use"] == [name]


def test_where_no_tool_may_be_called_the_answer_is_words_in_both_formats(client: httpx.Client) -> None:
    body = openai(tools=OPENAI_TOOLS, tool_choice="none")
    message = client.post("/v1/chat/completions", json=body).raise_for_status().json()["choices"][0]["message"]
    assert message["content"]
    assert "tool_call" not in message["content"]
    assert not message.get("tool_calls")
    body = anthropic(tools=ANTHROPIC_TOOLS, tool_choice={"type": "none"})
    content = client.post("/v1/messages", json=body).raise_for_status().json()["content"]
    assert [block["type"] for block in content] == ["text"]
    assert "tool_call" not in content[0]["text"]


def decoded(gateway: LiveGateway) -> float:
    """How many prompt tokens llama.cpp has taken in so far, by its own count."""
    with gateway.environment():
        found = running()
    assert found is not None
    model = found.model(MODEL)
    assert model is not None
    metrics = httpx.get(f"{str(model.api_base).removesuffix('/v1')}/metrics", trust_env=False, timeout=30).text
    lines = [line for line in metrics.splitlines() if line.startswith("llamacpp:prompt_tokens_total")]
    return float(lines[0].split()[1])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_over_budget_is_a_clear_refusal_that_the_upstream_never_sees(gateway: LiveGateway, path: str) -> None:
    key = gateway.key(f"spent-{path.rsplit('/', 1)[-1]}", budget_tokens=1)
    before = decoded(gateway)
    with gateway.client(key) as client:
        response = client.post(path, json=openai())
    assert response.status_code == 422  # what both clients show at once
    error = response.json()["error"]
    assert "budget" in error["message"]
    assert "traceback" not in response.text.lower()
    assert decoded(gateway) == before
    with gateway.client(gateway.key(f"fresh-{path.rsplit('/', 1)[-1]}")) as client:
        client.post(path, json=openai()).raise_for_status()
    assert decoded(gateway) > before


def test_an_unknown_key_is_refused(gateway: LiveGateway) -> None:
    with gateway.client("sk-nobody") as client:
        response = client.post("/v1/chat/completions", json=openai())
    assert response.status_code in (400, 401, 403)
    assert "key" in response.json()["error"]["message"].lower()


def test_an_unknown_model_is_refused_with_the_ones_there_are(client: httpx.Client) -> None:
    response = client.post("/v1/chat/completions", json=openai() | {"model": "qwen"})
    assert 400 <= response.status_code < 500
    assert "qwen" in response.json()["error"]["message"]
