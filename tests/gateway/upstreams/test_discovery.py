"""What is found: by the settings, running, by keys. Ollama, LM Studio and vLLM are stand-ins with their wire format."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import LlamaServer, Settings
from gateway.upstreams import hosted, llamacpp
from gateway.upstreams.discovery import discover_all
from gateway.upstreams.served import Price
from tests.gateway.upstreams.ollama_standin import Tag, local_ollama
from tests.loopback import JsonHandler, on_loopback
from toolkit.core.errors import ToolkitError, UsageError

NOTHING: dict[str, Any] = {
    "builtin": False,
    "gguf": False,
    "llamacpp": False,
    "ollama": False,
    "lmstudio": False,
    "vllm": False,
}


def settings(models: list[dict[str, Any]] | None = None, **discover: object) -> Settings:
    return Settings.model_validate({"discover": {**NOTHING, **discover}, "models": models or []})


@contextmanager
def answering(answers: dict[str, object]) -> Iterator[str]:
    """A server that answers GETs of these paths with these documents (bytes as they are), else 404."""

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            self.send(answer, 404 if answer is None else 200)

    with on_loopback(Handler) as url:
        yield url


def test_nothing_there_is_no_note() -> None:
    found = discover_all(settings(llamacpp="http://127.0.0.1:9", ollama="http://127.0.0.1:9"))
    assert (found.models, found.to_start, found.notes) == ((), (), ())


def test_ollama_models_get_their_own_context_and_it_is_asked_with_every_request() -> None:
    with local_ollama(
        tuned__64k=Tag({"num_ctx": 65_536}), running__1=Tag(loaded=4096), plain__1=Tag(), small__1=Tag(trained=2048)
    ) as ollama:
        found = discover_all(settings(ollama=ollama.url))
    contexts = {model.name: model.context for model in found.models}
    assert contexts == {"tuned:64k": 65_536, "running:1": 4096, "plain:1": 8192, "small:1": 2048}
    for model in found.models:
        assert model.litellm_params["model"] == f"ollama_chat/{model.name}"
        assert model.litellm_params["num_ctx"] == model.context
        assert model.litellm_params["api_base"]


def test_an_embedding_model_at_ollama_is_left_out() -> None:
    with local_ollama(embed__1=Tag(capabilities=("embedding",))) as ollama:
        assert discover_all(settings(ollama=ollama.url)).models == ()


def test_lm_studio_models_come_with_the_loaded_context() -> None:
    answer = {
        "data": [
            {"id": "gemma-4-e4b", "type": "llm", "state": "loaded", "loaded_context_length": 16_384},
            {"id": "qwen", "type": "vlm", "state": "not-loaded", "max_context_length": 32_768},
            {"id": "embed", "type": "embeddings"},
        ]
    }
    with answering({"/api/v0/models": answer}) as url:
        found = discover_all(settings(lmstudio=url))
    assert [(model.name, model.context) for model in found.models] == [("gemma-4-e4b", 16_384), ("qwen", None)]
    assert found.models[0].litellm_params["model"] == "lm_studio/gemma-4-e4b"


def test_vllm_models_come_with_the_length_they_are_served_with() -> None:
    answer = {"data": [{"id": "org/model", "owned_by": "vllm", "max_model_len": 40_960}]}
    with answering({"/v1/models": answer}) as url:
        (model,) = discover_all(settings(vllm=f"{url}/v1/")).models
    assert (model.name, model.context) == ("org/model", 40_960)
    assert model.litellm_params == {"model": "hosted_vllm/org/model", "api_base": f"{url}/v1", "api_key": "none"}


@pytest.mark.parametrize(
    "answer", [b"<html>", {"data": "x"}, {"data": [1, {"id": 5}]}, [], b"\xff\xfe", {"data": [{}]}]
)
def test_a_stranger_at_a_usual_port_is_left_out_without_harm(answer: object) -> None:
    paths = ("/v1/models", "/api/tags", "/api/ps", "/api/v0/models", "/props")
    with answering(dict.fromkeys(paths, answer)) as url:
        found = discover_all(settings(llamacpp=url, ollama=url, lmstudio=url, vllm=url))
    assert found.models == ()


def test_a_name_two_servers_offer_is_served_under_both() -> None:
    studio = {"data": [{"id": "gemma4:e4b", "type": "llm"}]}
    with local_ollama(gemma4__e4b=Tag()) as ollama, answering({"/api/v0/models": studio}) as url:
        found = discover_all(settings(ollama=ollama.url, lmstudio=url))
    assert [model.name for model in found.models] == ["gemma4:e4b", "lmstudio/gemma4:e4b"]


def test_a_name_that_litellm_would_take_for_a_pattern_is_left_out() -> None:
    with answering({"/v1/models": {"data": [{"id": "*", "max_model_len": 1}]}}) as url:
        found = discover_all(settings(vllm=url))
    assert found.models == ()
    assert "left out" in found.notes[0]


def test_a_key_in_the_environment_brings_the_providers_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    found = discover_all(settings())
    assert {model.upstream for model in found.models} == {"anthropic"}
    assert all(model.litellm_params["api_key"] == "os.environ/ANTHROPIC_API_KEY" for model in found.models)
    assert all(model.price is None and not model.local and model.context for model in found.models)
    assert "sk-secret" not in repr(found)


def test_a_provider_without_known_prices_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "x")
    found = discover_all(settings())
    assert found.models == ()
    assert "openrouter" in found.notes[0]


def test_every_listed_hosted_model_is_priced_and_current() -> None:
    for provider, names in hosted.MODELS.items():
        for name in names:
            known = hosted.price_table()[hosted.litellm_name(provider, name)]
            assert known["input_cost_per_token"] > 0
            assert known["supports_function_calling"]
            until = known.get("deprecation_date")
            assert until is None or date.fromisoformat(until) > date(2026, 12, 1), name


def test_models_of_the_settings_come_as_they_are_written(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", "secret")
    entries = [
        {"name": "mine", "gguf": str(model_file), "slots": 3},
        {"name": "team", "url": "https://models.example.com/v1", "upstream_name": "big", "api_key": "env:TEAM_KEY"},
        {"name": "near", "url": "http://127.0.0.1:9999/v1"},
        {
            "name": "hosted",
            "litellm": "anthropic/claude-opus-5-5",
            "api_key": "env:TEAM_KEY",
            "price": {"input": "1usd"},
        },
    ]
    found = discover_all(settings(entries))
    (spec,) = found.to_start
    assert (spec.name, spec.slots) == ("mine", 3)
    team, near, paid = found.models
    assert team.litellm_params == {
        "model": "hosted_vllm/big",
        "api_base": "https://models.example.com/v1",
        "api_key": "os.environ/TEAM_KEY",
    }
    assert (team.local, team.price) == (False, None)
    assert (near.local, near.price) == (True, Price())
    assert paid.price is not None
    assert (paid.price.input, paid.context) == (10**9, 1_000_000)


def test_an_ollama_model_of_the_settings_asks_for_its_context() -> None:
    with local_ollama(gemma4__e4b=Tag()) as ollama:
        entry = {"name": "gemma", "ollama": "gemma4:e4b", "context": "32k"}
        model = discover_all(settings([entry], ollama=ollama.url)).models[0]
        assert (model.name, model.context, model.litellm_params["num_ctx"]) == ("gemma", 32_768, 32_768)
        with pytest.raises(ToolkitError, match="was trained with 131,072"):
            discover_all(settings([entry | {"context": "256k"}], ollama=ollama.url))
        absent = discover_all(settings([entry | {"ollama": "none:1"}], ollama=ollama.url)).models[0]
        assert "ollama pull none:1" in absent.note


def test_a_model_of_the_settings_whose_key_is_not_set_is_refused() -> None:
    with pytest.raises(UsageError, match="refers to NO_SUCH_KEY, which is not set"):
        discover_all(settings([{"name": "x", "litellm": "openai/gpt-6-sol", "api_key": "env:NO_SUCH_KEY"}]))


def test_a_model_of_the_settings_whose_file_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="there is no file"):
        discover_all(settings([{"name": "x", "gguf": str(tmp_path / "gone.gguf")}]))


def test_an_engine_that_is_not_installed_is_said_before_anything_starts(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llamacpp.shutil, "which", lambda name: None)
    one = settings([{"name": "x", "gguf": str(model_file), "engine": "llama-server"}])
    for asking in (one, settings().model_copy(update={"llamacpp": LlamaServer(engine="llama-server")})):
        with pytest.raises(ToolkitError, match="llama-server is not on PATH"):
            discover_all(asking)
