"""Several GGUF files behind one address, on real llama.cpp servers of made models."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._made_models import KINDS, write
from gateway.models import pull
from gateway.process import Child, free_port
from gateway.settings import Settings
from gateway.upstreams.discovery import command_of, discover_all, served_by
from gateway.upstreams.llamacpp import spec_for
from gateway.upstreams.router import Resident, RouterSpec, _Model, router_command, to_unload
from tests.gateway.models.conftest import Listener


def test_the_least_recently_used_goes_first_and_no_more_than_needed() -> None:
    there = [Resident("a", 4, 3.0, 0), Resident("b", 4, 1.0, 0), Resident("c", 4, 2.0, 0)]
    assert to_unload(there, 4, 16) == []
    assert to_unload(there, 4, 12) == ["b"]
    assert to_unload(there, 8, 12) == ["b", "c"]


def test_a_busy_model_stays() -> None:
    there = [Resident("a", 4, 1.0, 1), Resident("b", 4, 2.0, 0)]
    assert to_unload(there, 4, 8) == ["b"]
    assert to_unload(there, 8, 8) is None


@given(
    residents=st.lists(
        st.builds(Resident, st.uuids().map(str), st.integers(1, 9), st.floats(0, 9), st.integers(0, 1)), max_size=6
    ),
    need=st.integers(1, 20),
    budget=st.integers(1, 40),
)
def test_what_stays_fits_and_nothing_busy_goes(residents: list[Resident], need: int, budget: int) -> None:
    gone = to_unload(residents, need, budget)
    if gone is None:
        assert sum(one.size for one in residents if one.active) + need > budget
        return
    assert sum(one.size for one in residents if one.name not in gone) + need <= budget
    assert all(one.active == 0 for one in residents if one.name in gone)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A router over three models with room for two."""
    folder = tmp_path_factory.mktemp("router")
    kinds = ("llama", "gemma3", "moe")
    settings = Settings.model_validate({"llamacpp": {"context": 2048, "slots": 1, "threads": 1}})
    specs = tuple(spec_for(write(KINDS[kind], folder / f"{kind}.gguf"), f"{kind}:f16", settings) for kind in kinds)
    needs = sorted(_Model(spec).need for spec in specs)
    port = free_port()
    argv = router_command(RouterSpec(specs, port=port))
    argv[-1:-1] = ["--budget", str(needs[-1] + needs[-2])]
    child = Child("router", argv, log=folder / "router.log")
    child.wait_until(f"http://127.0.0.1:{port}/health", timeout=60)
    yield f"http://127.0.0.1:{port}"
    child.stop()


def ask(router: str, model: str, **more: object) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0, **more}
    return httpx.post(f"{router}/{model}--f16/v1/chat/completions", json=body, timeout=120, trust_env=False)


def loaded(router: str) -> set[str]:
    listed = httpx.get(f"{router}/v1/models", trust_env=False).json()["data"]
    return {model["id"].partition(":")[0] for model in listed if model["loaded"]}


@pytest.mark.slow
def test_models_are_loaded_when_asked_and_the_least_recently_used_makes_room(router: str) -> None:
    assert loaded(router) == set()
    assert httpx.get(f"{router}/llama--f16/props", trust_env=False).status_code == 503
    for model, then in (
        ("llama", {"llama"}),
        ("gemma3", {"llama", "gemma3"}),
        ("llama", {"llama", "gemma3"}),
        ("moe", {"llama", "moe"}),
    ):
        answer = ask(router, model)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] > 0
        assert loaded(router) == then
    props = httpx.get(f"{router}/moe--f16/props", trust_env=False).json()
    assert props["default_generation_settings"]["n_ctx"] == 2048


@pytest.mark.slow
def test_a_stream_passes_through_and_requests_for_all_models_at_once_are_all_answered(router: str) -> None:
    assert "data: [DONE]" in ask(router, "llama", stream=True).text
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda model=model: answers.append(ask(router, model, max_tokens=32).status_code))
        for model in ("llama", "gemma3", "moe", "llama", "moe", "gemma3")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    assert answers == [200] * 6


def test_a_path_that_is_no_model_is_said(router: str) -> None:
    answer = httpx.post(f"{router}/none/v1/chat/completions", json={}, trust_env=False)
    assert answer.status_code == 404
    assert "no model at /none" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_a_router_that_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    settings = Settings.model_validate({"llamacpp": {"context": 512, "slots": 1, "threads": 1}})
    spec = spec_for(write(KINDS["llama"], tmp_path / "a.gguf"), "a:f16", settings)
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        router = subprocess.Popen(
            router_command(RouterSpec((spec,), port=port)), stdin=subprocess.PIPE, stdout=log, stderr=log
        )
        child = Child.__new__(Child)  # only its waiting is wanted, for a process that the test itself kills
        child.name, child.log, child._popen = "router", tmp_path / "log", router
        child.wait_until(f"http://127.0.0.1:{port}/health", timeout=60)
        assert ask(f"http://127.0.0.1:{port}", "a").status_code == 200
        family = psutil.Process(router.pid).children(recursive=True)
        assert family
        router.send_signal(signal.SIGKILL)
        router.wait()
        assert router.stdin is not None
        router.stdin.close()
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive


def test_pulled_models_come_behind_a_router_and_a_single_one_alone(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "discover": {"builtin": False, "llamacpp": False, "ollama": False, "lmstudio": False, "vllm": False},
            "llamacpp": {"context": 2048},
        }
    )
    pull.adopt(write(KINDS["llama"], tmp_path / "one-F16.gguf"), Listener())
    (alone,) = discover_all(settings).to_start
    assert alone.name == "one-f16"
    pull.adopt(write(KINDS["moe"], tmp_path / "two-F16.gguf"), Listener())
    (router,) = discover_all(settings).to_start
    assert isinstance(router, RouterSpec)
    models = served_by(replace(router, port=1234), settings)
    assert {model.litellm_params["api_base"] for model in models} == {
        "http://127.0.0.1:1234/one-f16/v1",
        "http://127.0.0.1:1234/two-f16/v1",
    }
    assert {model.context for model in models} == {2048}
    assert "gateway.upstreams.router" in command_of(router)
    assert not discover_all(
        settings.model_copy(update={"discover": settings.discover.model_copy(update={"gguf": False})})
    ).to_start
