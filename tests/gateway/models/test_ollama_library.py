"""Pulling and deriving tags at Ollama (a stand-in, see tests/gateway/upstreams/ollama_standin.py)."""

import pytest

from gateway.models import ollama_library
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


def test_what_is_loaded_is_what_ollama_says() -> None:
    with local_ollama(a__1=Tag(loaded=4096), b__1=Tag()) as ollama:
        assert [(one.tag, one.context) for one in ollama_library.loaded(ollama.url)] == [("a:1", 4096)]


def test_a_tag_that_does_not_exist_and_an_ollama_that_is_not_there_are_said(watcher: Listener) -> None:
    with local_ollama() as ollama, pytest.raises(ToolkitError, match="file does not exist"):
        ollama_library.pull("none:1", ollama.url, watcher)
    with pytest.raises(ToolkitError, match="Ollama does not answer at"):
        ollama_library.pull("none:1", "http://127.0.0.1:9", watcher)
