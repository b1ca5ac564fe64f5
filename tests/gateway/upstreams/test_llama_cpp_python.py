"""llama-cpp-python as the server of a GGUF, on the built-in model: skipped where it is not installed."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.models import serving
from gateway.process import Child, free_port
from gateway.settings import Model, Settings
from gateway.upstreams import llamacpp
from gateway.upstreams.llama_cpp_python_server import offer
from gateway.upstreams.llamacpp import LlamaServerSpec, command, resolved, spec_for
from tests.gateway.upstreams.conftest import LlamaServer
from tests.gateway.upstreams.test_llamacpp import TOOLS, ask_weather
from toolkit.core.errors import ToolkitError

pytestmark = pytest.mark.usefixtures("llama_cpp_python")


@pytest.fixture(scope="module")
def server(llama_cpp_python: None, tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Iterator[LlamaServer]:
    spec = LlamaServerSpec(
        model_file, "tiny", context=1024, slots=4, threads=1, kv="q8_0", port=free_port(), engine="llama-cpp-python"
    )
    # Variables that the library would take for its own settings: a key, another address.
    strange = {"API_KEY": "x", "HOST": "0.0.0.0", "N_CTX": "64", "CONFIG_FILE": "/none"}
    child = Child("tiny", command(spec), log=tmp_path_factory.mktemp("python") / "tiny.log", env=strange)
    child.wait_until(f"http://127.0.0.1:{spec.port}/health", timeout=60)
    yield LlamaServer(resolved(spec), child)
    child.stop()


def chat(server: LlamaServer, body: dict[str, object]) -> dict[str, object]:
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()["choices"][0]
    return found


def streamed(server: LlamaServer, body: dict[str, object]) -> list[dict[str, object]]:
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body | {"stream": True}, timeout=60, trust_env=False) as answer:
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("choice", ["auto", "required", None])
def test_a_call_that_the_model_writes_is_given_as_a_call(server: LlamaServer, choice: str | None) -> None:
    found = chat(server, ask_weather(tool_choice=choice))
    message = found["message"]
    assert isinstance(message, dict)
    (call,) = message["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert "Paris" in json.loads(call["function"]["arguments"])["query"]
    assert found["finish_reason"] == "tool_calls"
    assert not message["content"]


def test_a_streamed_call_is_the_same_call_and_its_usage_comes_along(server: LlamaServer) -> None:
    body = ask_weather(tool_choice="auto")
    message = chat(server, body)["message"]
    assert isinstance(message, dict)
    chunks = streamed(server, body)
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]  # type: ignore[index]
    assert [call["function"] for call in calls] == [call["function"] for call in message["tool_calls"]]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"  # type: ignore[index]
    assert chunks[-1]["usage"]["completion_tokens"] > 5  # type: ignore[index]


def test_of_a_tool_that_is_named_it_alone_is_offered(server: LlamaServer) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    message = chat(server, ask_weather(tool_choice=named))["message"]
    assert isinstance(message, dict)
    (call,) = message["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"query": "Paris"}
    one = {"type": "function", "function": {"name": "only", "parameters": {}}}
    assert offer([one, *TOOLS], named) == [TOOLS[0]]
    assert offer(TOOLS, "none") == []
    assert offer(TOOLS, "required") == TOOLS


def test_a_result_of_a_tool_is_answered_in_words(server: LlamaServer) -> None:
    call = {
        "id": "abcdefghi",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"query": "Paris"}'},
    }
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "weather in Paris?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "sunny"},
    ]
    message = chat(server, ask_weather(messages=messages, tool_choice="auto"))["message"]
    assert isinstance(message, dict)
    assert "tool_calls" not in message


def test_without_tools_or_with_none_of_them_text_is_streamed_as_it_comes(server: LlamaServer) -> None:
    for body in (ask_weather(tools=None, tool_choice=None), ask_weather(tool_choice="none")):
        deltas = [chunk["choices"][0]["delta"] for chunk in streamed(server, body)]  # type: ignore[index]
        assert not any(delta.get("tool_calls") for delta in deltas)
        assert len(deltas) > 3


def test_it_tells_its_context_as_llama_cpp_does(server: LlamaServer) -> None:
    with httpx.Client(trust_env=False) as client:
        assert llamacpp.context_held(client, server.url) == 1024
        assert llamacpp.context_trained(client, server.url) == 4096
    assert server.spec.slots == 1


def test_requests_wait_for_each_other_and_are_not_broken_off(server: LlamaServer) -> None:
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": 200,
        "temperature": 0,
        "logit_bias": {"1": -100},
    }
    alone = len(streamed(server, body))
    lengths: list[int] = []
    threads = [threading.Thread(target=lambda: lengths.append(len(streamed(server, body)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert lengths == [alone] * 3


def test_more_than_the_context_is_refused_not_cut(server: LlamaServer) -> None:
    long = [{"role": "user", "content": "word " * 3000}]
    answer = server.post("/v1/chat/completions", {"messages": long, "max_tokens": 8})
    assert answer.status_code == 400
    assert "context" in answer.text


def test_a_port_that_is_taken_is_said(server: LlamaServer, tmp_path: Path) -> None:
    child = Child("twin", command(server.spec), log=tmp_path / "twin.log")
    with pytest.raises(ToolkitError, match="ended with code") as caught:
        child.wait_until(f"http://127.0.0.1:{free_port()}/health", timeout=60)
    assert "address already in use" in caught.value.message
    child.stop()


def test_a_model_of_the_settings_can_be_served_by_it_alone(model_file: Path) -> None:
    spec = spec_for(
        model_file, "x", Settings(), Model(name="x", gguf=model_file, engine="llama-cpp-python", slots=3, context=512)
    )
    assert "gateway.upstreams.llama_cpp_python_server" in command(spec)
    assert " ".join(command(spec)).count("--ctx-size 512 --parallel 1") == 1
    assert "gateway.upstreams.llama_cpp_python_server" not in command(spec_for(model_file, "x", Settings()))


def test_serve_starts_it_when_asked_to() -> None:
    spec = serving.spec("toolkit-tiny", Settings(), context=512, slots=1, kv=None, port=0, engine="llama-cpp-python")
    with serving.running(spec) as url:
        listed = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"]
    assert [one["owned_by"] for one in listed] == ["llama-cpp-python"]
