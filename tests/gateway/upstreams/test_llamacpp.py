"""The llama.cpp upstream, on a real server and the built-in model."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
import xllamacpp

from gateway.process import Child, free_port
from gateway.settings import Model, Settings
from gateway.upstreams import llamacpp
from gateway.upstreams.llamacpp import LlamaServerSpec, arguments, command, resolved, served, spec_for
from gateway.upstreams.server_options import parse
from gateway.upstreams.xllamacpp_server import parameters
from tests.gateway.upstreams.conftest import LlamaServer
from toolkit.core.errors import ToolkitError, UsageError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": about,
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
        },
    }
    for name, about in (("get_weather", "Get the current weather of a city"), ("send_mail", "Send an email"))
]


def ask_weather(**more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "weather in Paris?"}]
    return {"messages": messages, "tools": TOOLS, "tool_choice": "required", "max_tokens": 64, "temperature": 0, **more}


def test_a_request_with_tools_is_answered_by_a_valid_tool_call(llama_server: LlamaServer) -> None:
    answer = llama_server.post("/v1/chat/completions", ask_weather()).raise_for_status().json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] in {"get_weather", "send_mail"}
    assert isinstance(json.loads(call["function"]["arguments"])["query"], str)


def test_a_streamed_tool_call_adds_up_to_the_same_call(llama_server: LlamaServer) -> None:
    whole = llama_server.post("/v1/chat/completions", ask_weather()).json()["choices"][0]["message"]["tool_calls"][0]
    name, arguments = "", ""
    with httpx.stream(
        "POST",
        f"{llama_server.url}/v1/chat/completions",
        json=ask_weather(stream=True),
        timeout=60,
        trust_env=False,
    ) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                for call in json.loads(line[6:])["choices"][0]["delta"].get("tool_calls") or []:
                    name += call["function"].get("name") or ""
                    arguments += call["function"].get("arguments") or ""
    assert name == whole["function"]["name"]
    assert json.loads(arguments) == json.loads(whole["function"]["arguments"])


def test_each_slot_has_the_context_that_was_asked_for(llama_server: LlamaServer) -> None:
    slots = llama_server.get("/slots").json()
    assert len(slots) == llama_server.spec.slots == 2
    assert {slot["n_ctx"] for slot in slots} == {llama_server.spec.context}
    with httpx.Client() as client:
        assert llamacpp.context_held(client, llama_server.url) == llama_server.spec.context


def test_a_prompt_seen_before_comes_from_the_cache(llama_server: LlamaServer) -> None:
    body = ask_weather(messages=[{"role": "user", "content": "a question only this test asks"}], cache_prompt=True)
    llama_server.post("/v1/chat/completions", body)
    timings = llama_server.post("/v1/chat/completions", body).json()["timings"]
    assert timings["cache_n"] > 50
    assert timings["prompt_n"] < 5


def test_a_server_that_runs_already_is_found_with_its_context(llama_server: LlamaServer) -> None:
    settings = Settings.model_validate({"discover": {"llamacpp": llama_server.url}})
    with httpx.Client() as client:
        (model,) = llamacpp.discover(settings, client).models
    assert model == served(llama_server.spec, settings)


def test_a_server_ends_when_its_parent_is_killed(model_file: Path, tmp_path: Path) -> None:
    port = free_port()
    argv = command(LlamaServerSpec(model_file, "tiny", context=512, slots=1, threads=1, port=port))
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(60)\n",
            *argv,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 60
    with httpx.Client(trust_env=False) as client:
        while True:
            assert time.monotonic() < deadline
            try:
                if client.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert gone
    assert not alive


def test_a_port_that_is_taken_is_said_in_the_error(llama_server: LlamaServer, tmp_path: Path) -> None:
    child = Child("twin", command(llama_server.spec), log=tmp_path / "twin.log")
    with pytest.raises(ToolkitError, match="ended with code 1") as caught:
        # Health is asked of a port nobody serves: at the taken one the first server would answer.
        child.wait_until(f"http://127.0.0.1:{free_port()}/health", timeout=30)
    assert "bind" in caught.value.message
    child.stop()


def test_a_file_that_is_missing_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="there is no file") as caught:
        spec_for(tmp_path / "none.gguf", "x", Settings())
    assert caught.value.hint


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>404 this model has moved</html>")
    with pytest.raises(ToolkitError, match="is no GGUF file: it does not start with GGUF"):
        spec_for(path, "x", Settings())


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999999])
def test_a_file_cut_short_is_refused(model_file: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.gguf"
    whole = model_file.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ToolkitError, match="is cut short"):
        spec_for(path, "x", Settings())


def test_a_model_of_the_settings_overrides_the_general_section(model_file: Path) -> None:
    settings = Settings.model_validate(
        {"llamacpp": {"slots": 3, "kv": "q8_0", "context": 512, "flash_attention": "on"}}
    )
    spec = spec_for(model_file, "x", settings, Model(name="x", gguf=model_file, slots=1, context=1000))
    assert (spec.slots, spec.context, spec.kv, spec.flash_attention) == (1, 1000, "q8_0", "on")
    text = " ".join(command(replace(spec, port=1234)))
    assert "--ctx-size 1000 --parallel 1 --cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on" in text


def test_a_default_context_shrinks_to_the_trained_one_but_an_asked_for_one_is_refused(model_file: Path) -> None:
    trained = spec_for(model_file, "x", Settings.model_validate({"llamacpp": {"context": "1M"}})).context
    assert trained < 2**20
    with pytest.raises(UsageError, match=f"trained with {trained:,}"):
        spec_for(model_file, "x", Settings(), Model(name="x", gguf=model_file, context=trained + 1))


def test_a_native_server_on_path_is_used_under_a_lifeline(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = LlamaServerSpec(model_file, "x", port=1)
    assert "gateway.upstreams.xllamacpp_server" in command(spec)
    native = tmp_path / "llama-server"
    native.write_text("#!/bin/sh\n")
    native.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(native) if name == "llama-server" else None)
    argv = command(spec)
    assert argv[2:7] == ["-m", "gateway.lifeline", "--", str(native), "--model"]
    assert argv[-1] == "--no-warmup"
    assert "gateway.upstreams.xllamacpp_server" in command(replace(spec, engine="xllamacpp"))


@pytest.mark.parametrize(
    ("devices", "layers", "fits"), [(["CPU"], -1, False), (["CPU", "GPU"], -1, True), (["CPU", "GPU"], 12, False)]
)
def test_the_file_is_not_read_twice_where_no_gpu_has_layers_to_be_fitted_to(
    devices: list[str], layers: int, fits: bool, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = {name: getattr(xllamacpp.ggml_backend_dev_type, f"GGML_BACKEND_DEVICE_TYPE_{name}") for name in devices}
    monkeypatch.setattr(xllamacpp, "get_device_info", lambda: [{"name": n, "type": kind} for n, kind in types.items()])
    options = parse("test", arguments(LlamaServerSpec(model_file, "x", port=1, gpu_layers=layers)))
    found = parameters(options)
    assert (found.fit_params, found.warmup, found.n_gpu_layers) == (fits, False, layers)


def test_an_engine_that_is_asked_for_but_missing_is_said(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(llamacpp, "find_spec", lambda name: None)
    for engine, said in (("llama-server", "is not on PATH"), ("llama-cpp-python", "is not installed")):
        with pytest.raises(ToolkitError, match=f"{engine} {said}") as caught:
            command(LlamaServerSpec(model_file, "x", port=1, engine=engine))  # type: ignore[arg-type]
        assert caught.value.hint
    with pytest.raises(ToolkitError, match="there is no llama") as caught:
        command(LlamaServerSpec(model_file, "x", port=1))
    assert caught.value.hint == "pip install xllamacpp"


def test_llama_cpp_python_is_the_last_choice_and_has_one_slot(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(llamacpp, "find_spec", lambda name: object() if name == "llama_cpp" else None)
    found = resolved(LlamaServerSpec(model_file, "x", slots=4))
    assert (found.engine, found.slots) == ("llama-cpp-python", 1)
    monkeypatch.setattr(llamacpp, "find_spec", lambda name: object())
    assert resolved(LlamaServerSpec(model_file, "x", slots=4)).engine == "xllamacpp"
