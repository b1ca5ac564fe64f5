"""What every test gets: a home folder of its own, and no way to reach the user's real one."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home folder; every path of the toolkit and of the clients lies below it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.setenv("TOOLKIT_HOME", str(folder / "toolkit"))
    for name in (
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "XDG_CACHE_HOME",
        "TOOLKIT_CONFIG",
        "NO_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)
    for provider in ("OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL", "OPENROUTER"):
        monkeypatch.delenv(f"{provider}_API_KEY", raising=False)
    return folder
