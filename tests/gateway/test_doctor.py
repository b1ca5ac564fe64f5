"""The doctor: what it makes of contexts that disagree, and of a real gateway."""

from pathlib import Path

import pytest

from gateway import doctor
from gateway.doctor import Contexts, compare
from gateway.models import store
from gateway.settings import LlamaServer, Settings
from tests.conftest import LiveGateway, only_builtin


def levels(**contexts: object) -> list[tuple[str, str]]:
    given = {"model": "m", "upstream": "llamacpp", "trained": 131_072, "held": 8192, "announced": 8192, **contexts}
    return [(found.level, found.mend) for found in compare(Contexts(**given))]  # type: ignore[arg-type]


AGAIN = "toolkit gateway down && toolkit gateway up"


def test_four_contexts_that_agree_are_well() -> None:
    assert levels(told={"opencode": 8192}) == [("ok", "")]


def test_a_server_that_holds_less_than_is_announced_is_wrong() -> None:
    assert levels(held=4096) == [("wrong", AGAIN)]


def test_an_ollama_that_holds_what_another_program_asked_for_is_noted_with_the_way_to_unload_it() -> None:
    assert levels(held=4096, upstream="ollama", tag="gemma4:e4b") == [("note", "ollama stop gemma4:e4b")]


def test_a_client_told_too_much_is_wrong_and_one_told_too_little_is_noted() -> None:
    assert levels(told={"claude-code": 200_000}) == [("wrong", "toolkit connect claude-code")]
    assert levels(told={"opencode": 4096}) == [("note", "toolkit connect opencode")]


def test_more_than_was_trained_is_wrong() -> None:
    assert [level for level, _ in levels(trained=4096)] == ["wrong"]


def test_a_context_nobody_knows_is_noted() -> None:
    assert [level for level, _ in levels(announced=None, held=None)] == ["note"]


def quiet_settings() -> Settings:
    names = {name.removeprefix("discover__"): value for name, value in only_builtin().items() if "discover" in name}
    return Settings.model_validate({"discover": names})


@pytest.mark.slow
def test_a_real_gateway_agrees_with_itself_and_a_client_told_too_much_is_found(gateway: LiveGateway) -> None:
    with gateway.environment():
        found = doctor.examine(quiet_settings())
        assert found.well, found.findings
        (tiny,) = [one for one in found.contexts if one.model == "toolkit-tiny"]
        assert tiny.trained == tiny.held == tiny.announced
        settings = Path.home() / ".config" / "opencode" / "opencode.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(
            '{"provider": {"toolkit": {"models": {"toolkit-tiny": {"limit": {"context": 99999, "output": 1}}}}}} // x'
        )
        try:
            found = doctor.examine(quiet_settings())
        finally:
            settings.unlink()
        assert [one.mend for one in found.findings if one.level == "wrong"] == ["toolkit connect opencode"]


def test_without_a_gateway_it_says_what_to_type() -> None:
    found = doctor.examine(quiet_settings())
    assert [one.mend for one in found.findings if one.area == "gateway"] == ["toolkit gateway up"]
    assert found.contexts == ()


def test_an_engine_that_gateway_yaml_asks_for_and_is_not_here_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = quiet_settings().model_copy(update={"llamacpp": LlamaServer(engine="llama-server")})
    monkeypatch.setattr(doctor.llamacpp.shutil, "which", lambda name: None)
    (wrong,) = [one for one in doctor.examine(asking).findings if one.level == "wrong"]
    assert (wrong.said, wrong.mend) == (
        "llama-server is not on PATH",
        "set llamacpp.engine: xllamacpp in gateway.yaml",
    )


def test_what_llama_cpp_python_cannot_do_is_said_where_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.llamacpp, "engines", lambda: ["xllamacpp", "llama-cpp-python"])

    def said(settings: Settings) -> list[str]:
        return [one.said for one in doctor.examine(settings).findings if one.area == "engine" and one.level == "note"]

    assert said(quiet_settings()) == []
    (note,) = said(quiet_settings().model_copy(update={"llamacpp": LlamaServer(engine="llama-cpp-python")}))
    assert "one request at a time" in note
    assert "forces no tool call" in note
    monkeypatch.setattr(doctor.llamacpp, "engines", lambda: ["llama-cpp-python"])
    assert len(said(quiet_settings())) == 1


def test_a_model_folder_without_a_receipt_is_wrong() -> None:
    folder = store.models_dir() / "half"
    folder.mkdir(parents=True)
    found = doctor.examine(quiet_settings())
    assert [one.mend for one in found.findings if one.level == "wrong"] == [f"rm -r {folder}"]
