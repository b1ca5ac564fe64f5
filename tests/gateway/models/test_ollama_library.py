"""Pulling and deriving tags at Ollama (a stand-in, see tests/gateway/upstreams/ollama_standin.py)."""

import pytest

from gateway.models import catalogue, ollama_library
from gateway.models.fit import Room
from tests.gateway.models.conftest import Listener
from tests.gateway.upstreams.ollama_standin import Tag, local_ollama
from toolkit.core.errors import ToolkitError


def test_a_pull_tells_how_much_has_come(watcher: Listener) -> None:
    with local_ollama() as ollama:
        ollama.library["gemma4:e4b"] = Tag()
        ollama_library.pull("gemma4:e4b", ollama.url, watcher)
        assert "gemma4:e4b" in ollama.tags
    assert watcher.done == 1000


def test_a_derived_tag_holds_the_context_that_was_asked_for() -> None:
    with local_ollama(gemma4__e4b=Tag()) as ollama:
        name = ollama_library.derive("gemma4:e4b", 65_536, ollama.url)
        assert name == "gemma4:e4b-64k"
        assert ollama.tags[name].parameters == {"num_ctx": 65_536}


def test_a_tag_that_does_not_exist_and_an_ollama_that_is_not_there_are_said(watcher: Listener) -> None:
    with local_ollama() as ollama, pytest.raises(ToolkitError, match="file does not exist"):
        ollama_library.pull("none:1", ollama.url, watcher)
    with pytest.raises(ToolkitError, match="Ollama does not answer at"):
        ollama_library.pull("none:1", "http://127.0.0.1:9", watcher)


def test_a_tag_too_large_for_this_machine_is_refused_with_the_context_that_fits() -> None:
    entry = catalogue.read().find("gemma-4-31b")
    here, gib = "http://127.0.0.1:11434", 2**30
    ollama_library.refuse_if_too_large("gemma-4-31b", entry, 65_536, Room(64 * gib), here)
    with pytest.raises(ToolkitError, match=r"a context of [1-9][0-9,]+ would fit") as caught:
        ollama_library.refuse_if_too_large("gemma-4-31b", entry, 65_536, Room(22 * gib), here)
    assert caught.value.hint
    assert caught.value.hint.startswith("toolkit models pull gemma-4-31b --via ollama --context ")
    with pytest.raises(ToolkitError, match="no context of it fits"):
        ollama_library.refuse_if_too_large("gemma-4-31b", entry, None, Room(8 * gib), here)
    ollama_library.refuse_if_too_large("gemma-4-31b", entry, None, Room(8 * gib), "http://192.0.2.1:11434")
