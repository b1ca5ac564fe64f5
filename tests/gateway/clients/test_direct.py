import json
from pathlib import Path

import pytest

from tests.gateway.clients.scripted_ollama import TAG, ollama
from tests.gateway.clients.scripted_upstream import Says
from toolkit.cli.main import run


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLAUDE_CONFIG_DIR", "OPENCODE_CONFIG", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_a_loaded_model_is_connected_with_what_it_was_loaded_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ollama(lambda body: Says("hi"), loaded_context=65_536) as server:
        monkeypatch.setenv("TOOLKIT_DISCOVER_OLLAMA", server.url)
        assert run(["connect", "claude-code", "--direct", "ollama"]) == 0
        assert run(["connect", "opencode", "--direct", "ollama"]) == 0
    settings = json.loads((home / ".claude" / "settings.json").read_text(encoding="utf-8"))
    assert "apiKeyHelper" not in settings
    assert settings["env"]["ANTHROPIC_BASE_URL"] == server.url
    assert settings["env"]["ANTHROPIC_MODEL"] == TAG
    assert settings["env"]["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "65536"
    config = json.loads((home / ".config" / "opencode" / "opencode.json").read_text(encoding="utf-8"))
    assert config["provider"]["toolkit"]["options"] == {"baseURL": f"{server.url}/v1", "apiKey": "none"}
    assert not (home / "toolkit" / "data" / "keys.db").exists()
    for client in ("claude-code", "opencode"):
        assert run(["connect", "undo", client]) == 0


def test_a_model_that_is_not_loaded_is_refused_with_the_way_to_load_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ollama(lambda body: Says("hi")) as server:
        monkeypatch.setenv("TOOLKIT_DISCOVER_OLLAMA", server.url)
        assert run(["connect", "claude-code", "--direct", "ollama"]) == 1
    assert f"hint: ollama run {TAG}" in capsys.readouterr().err
    assert not (home / ".claude").exists()


def test_a_server_that_does_not_run_is_named_with_the_way_to_start_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for server in ("ollama", "lmstudio"):
        monkeypatch.setenv(f"TOOLKIT_DISCOVER_{server.upper()}", "http://127.0.0.1:9")
        assert run(["connect", "opencode", "--direct", server]) == 1
        assert "no model was found at http://127.0.0.1:9" in capsys.readouterr().err
