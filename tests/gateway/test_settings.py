"""Settings: defaults, file, environment, flags; what cannot be meant is refused by its path."""

import re
from pathlib import Path

import pytest
import yaml

from gateway.settings import Settings, load_settings
from mcp_servers.catalogue import SERVERS
from toolkit.core.errors import UsageError
from toolkit.core.paths import bundled, config_dir


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_there_are_defaults() -> None:
    assert load_settings() == Settings()


def test_the_example_holds_every_option_with_its_default() -> None:
    example = bundled("gateway.example.yaml")
    assert load_settings(example) == Settings()
    written = yaml.safe_load(example.read_text(encoding="utf-8"))
    for section, values in Settings().model_dump().items():
        assert section in written
        if isinstance(values, dict):
            assert set(written[section]) == set(values), section


def test_the_commented_models_of_the_example_are_valid_and_name_every_option() -> None:
    text = bundled("gateway.example.yaml").read_text(encoding="utf-8")
    block = text[text.index("models: []") : text.index("\nkeys:")].replace("models: []", "models:")
    uncommented = re.sub(r"^  # (?=[- ] )", "  ", block, flags=re.MULTILINE)
    models = yaml.safe_load(uncommented)["models"]
    settings = Settings.model_validate({"models": models})
    named = {key for model in models for key in model}
    assert named | {"engine", "threads", "gpu_layers", "kv", "flash_attention"} == set(
        type(settings.models[0]).model_fields
    )


def test_file_then_environment_then_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "gateway: {port: 4100, workers: 2}")
    assert load_settings(path).gateway.port == 4100
    monkeypatch.setenv("TOOLKIT_GATEWAY_PORT", "4200")
    assert load_settings(path).gateway.port == 4200
    assert load_settings(path, gateway__port=4300).gateway.port == 4300
    assert load_settings(path, gateway__port=None).gateway.workers == 2


def test_the_users_own_file_is_found(home: Path) -> None:
    config_dir().mkdir(parents=True)
    (config_dir() / "gateway.yaml").write_text("gateway: {port: 4555}", encoding="utf-8")
    assert load_settings().gateway.port == 4555


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gateway: {prot: 4000}", "gateway.prot: did you mean port?"),
        ("gatway: {}", "gatway: did you mean gateway?"),
        ("models: [{name: a, gguf: x, contxt: 8k}]", "models[0].contxt: did you mean context?"),
        ("gateway: {port: 70000}", "gateway.port"),
        ("gateway: {host: 0.0.0.0}", "expose: true"),
        ("gateway: {request_timeout: 10}", "gateway.request_timeout"),
        ("gateway: [", "line 1"),
        ("- a", "must be a mapping"),
        ("models: [{name: a}]", "exactly one of"),
        ("models: [{name: a, gguf: x, ollama: y}]", "exactly one of"),
        ("models: [{name: a, gguf: x}, {name: a, gguf: y}]", "two models are named a"),
        ("models: [{name: a, url: 'http://x', api_key: sk-123}]", "env:MY_KEY"),
        ("models: [{name: 'a b', gguf: x}]", "models[0].name"),
        ("llamacpp: {context: many}", "not a context length"),
        ("discover: {ollama: 'file:///etc/passwd'}", "discover.ollama"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_path(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(write(tmp_path, text))
    assert says in caught.value.message
    assert caught.value.hint


def test_a_bare_on_or_off_is_flash_attention_and_not_the_truth_that_yaml_makes_of_it(tmp_path: Path) -> None:
    text = "llamacpp: {flash_attention: off}\nmodels: [{name: a, gguf: x, flash_attention: on}, {name: b, gguf: x}]"
    found = load_settings(write(tmp_path, text))
    assert found.llamacpp.flash_attention == "off"
    assert [model.flash_attention for model in found.models] == ["on", None]


def test_a_missing_or_binary_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_settings(tmp_path / "none.yaml")
    path = tmp_path / "gateway.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_settings(path)


def test_the_commented_mcp_servers_of_the_example_are_all_there_are() -> None:
    text = bundled("gateway.example.yaml").read_text(encoding="utf-8")
    block = text[text.index("\nmcp: {}") :].replace("mcp: {}", "mcp:")
    servers = yaml.safe_load(re.sub(r"^  # ", "  ", block, flags=re.MULTILINE))["mcp"]
    assert set(Settings.model_validate({"mcp": servers}).mcp) == set(SERVERS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mcp: {fils: []}", "mcp.fils"),
        ("mcp: {files: []}", "files needs the folder that it may touch: [--root, FOLDER]"),
        ("mcp: {spreadsheet: [--read-only]}", "spreadsheet needs the folder"),
        ("mcp: {python: [--http, '1']}", "leave out --http"),
    ],
)
def test_mcp_servers_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        load_settings(write(tmp_path, text))
