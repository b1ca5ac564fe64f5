"""Which endpoint a command asks, decided before anything is asked."""

import pytest

from gateway import supervisor
from gateway.supervisor import Running, RunningModel
from toolkit.cli.endpoint import Endpoint, endpoint
from toolkit.core.errors import ToolkitError, UsageError


def serves(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A gateway that runs here; models named `far-...` are hosted."""
    models = tuple(
        RunningModel(name, "llamacpp", 4096, None, f"http://{name}/v1", local=not name.startswith("far"), note="")
        for name in names
    )
    found = Running(pid=1, started=0, url="http://gateway", models=models, pids={}, log="")
    monkeypatch.setattr(supervisor, "running", lambda: found)
    monkeypatch.setenv("TOOLKIT_KEY", "sk-1")


def test_the_only_model_of_the_gateway_need_not_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    serves(monkeypatch, "a")
    assert endpoint(None, None, []) == Endpoint("http://gateway/v1", "sk-1", ["a"], {"a": "http://a"}, free=True)


def test_what_is_hosted_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    serves(monkeypatch, "a", "far-b")
    assert endpoint(None, None, ["a"]).free
    assert not endpoint(None, None, ["a", "far-b"]).free
    assert not endpoint("http://elsewhere/v1", None, ["a"]).free


@pytest.mark.parametrize(
    ("models", "says"),
    [([], "name a model; it serves a, b"), (["c"], "the gateway serves no model named c; it serves a, b")],
)
def test_a_model_that_is_not_meant_or_not_there_is_told(
    models: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serves(monkeypatch, "a", "b")
    with pytest.raises(UsageError, match=says):
        endpoint(None, None, models)


def test_the_key_that_is_missing_is_named_for_its_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    serves(monkeypatch, "a")
    monkeypatch.delenv("TOOLKIT_KEY")
    with pytest.raises(UsageError) as raised:
        endpoint(None, None, [], purpose="agent")
    assert raised.value.hint == "export TOOLKIT_KEY=$(toolkit keys create agent --quiet)"


def test_without_a_gateway_and_without_an_address_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "running", lambda: None)
    with pytest.raises(ToolkitError, match="no gateway is running"):
        endpoint(None, None, ["a"])
    with pytest.raises(UsageError, match="--base-url needs --model"):
        endpoint("http://elsewhere/v1", None, [])
