import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.clients import jsonc
from gateway.keys.store import open_store
from gateway.settings import load_settings
from tests.gateway.clients.config_shapes import CLAUDE_CODE, OPENCODE
from toolkit.cli.main import run
from toolkit.core.paths import state_dir

URL = "http://127.0.0.1:4321"


def model(name: str, context: int | None, **more: Any) -> dict[str, Any]:
    basis = {"upstream": "llamacpp", "max_output": None, "api_base": None, "local": True, "note": ""}
    return {"name": name, "context": context, **basis, **more}


def announce(*models: dict[str, Any], url: str = URL) -> None:
    """Write the record that a running gateway leaves, in the name of this process: connect only reads it."""
    state_dir().mkdir(parents=True, exist_ok=True)
    record = {"pid": os.getpid(), "started": psutil.Process().create_time(), "url": url, "models": models}
    (state_dir() / "gateway.json").write_text(json.dumps(record | {"pids": {}, "log": ""}), encoding="utf-8")


@pytest.fixture(autouse=True)
def gateway_record(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CLAUDE_CONFIG_DIR", "OPENCODE_CONFIG", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    announce(
        model("gemma", 65_536), model("qwen", 32_768), model("tiny", 4096), model("claude-opus", None, local=False)
    )


def settings_file(home: Path) -> Path:
    return home / ".claude" / "settings.json"


def opencode_file(home: Path) -> Path:
    return home / ".config" / "opencode" / "opencode.json"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def parsed(path: Path) -> Any:
    return jsonc.parse(path.read_bytes().decode("utf-8")).value


FILES = [("claude-code", name, text) for name, text in CLAUDE_CODE.items()]
FILES += [("opencode", name, text) for name, text in OPENCODE.items()]


@pytest.mark.parametrize(("client", "text"), [(c, t) for c, _, t in FILES], ids=[f"{c}: {n}" for c, n, _ in FILES])
def test_undo_gives_back_every_byte_also_after_connecting_twice_and_lean(home: Path, client: str, text: str) -> None:
    path = written(settings_file(home) if client == "claude-code" else opencode_file(home), text)
    path.chmod(0o640)
    assert run(["connect", client, "--model", "gemma"]) == 0
    first = path.read_bytes()
    assert first != text.encode()
    assert "gemma" in json.dumps(parsed(path))
    assert run(["connect", client, "--model", "gemma"]) == 0
    assert path.read_bytes() == first
    assert run(["connect", client, "--model", "qwen", "--lean"]) == 0
    assert run(["connect", "undo", client]) == 0
    assert path.read_bytes() == text.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert run(["connect", "undo", client]) == 1


@pytest.mark.parametrize("client", ["claude-code", "opencode"])
def test_where_there_was_no_file_there_is_none_after_undo_and_no_folder(home: Path, client: str) -> None:
    before = sorted(path.name for path in home.iterdir())
    assert run(["connect", client, "--model", "gemma"]) == 0
    assert (settings_file(home) if client == "claude-code" else opencode_file(home)).exists()
    assert run(["connect", "undo", client]) == 0
    left = {path.name for path in home.iterdir()} - set(before)
    assert left <= {"toolkit", ".config"}
    assert not opencode_file(home).parent.exists()


def test_claude_code_gets_what_makes_local_models_work(home: Path) -> None:
    assert run(["connect", "claude-code", "--model", "gemma", "--small-model", "qwen", "--opus", "claude-opus"]) == 0
    settings = parsed(settings_file(home))
    key = Path(home, "toolkit", "data", "clients", "keys", "claude-code.key")
    assert settings["apiKeyHelper"] == f"cat {key}"
    assert settings["env"] == {
        "ANTHROPIC_BASE_URL": URL,
        "ANTHROPIC_MODEL": "gemma",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "claude-opus",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "gemma",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "qwen",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1",
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_DISABLE_THINKING": "1",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "32768",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "4096",
        "DISABLE_AUTO_COMPACT": "1",
    }
    assert "permissions" not in settings


def test_a_hosted_model_gets_no_more_than_it_needs(home: Path) -> None:
    announce(model("claude-opus", 200_000, local=False, max_output=64_000))
    assert run(["connect", "claude-code"]) == 0
    env = parsed(settings_file(home))["env"]
    assert not {"CLAUDE_CODE_DISABLE_THINKING", "CLAUDE_CODE_ATTRIBUTION_HEADER", "DISABLE_AUTO_COMPACT"} & set(env)
    assert env["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "16384"


def test_no_secret_is_written_but_into_a_file_only_the_user_can_read(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["connect", "claude-code", "--model", "gemma", "--budget", "5usd", "--reset", "30d"]) == 0
    assert run(["connect", "opencode", "--model", "gemma"]) == 0
    keys = {path.stem: path for path in Path(home, "toolkit", "data", "clients", "keys").iterdir()}
    assert set(keys) == {"claude-code", "opencode"}
    secrets = {name: path.read_text(encoding="utf-8").strip() for name, path in keys.items()}
    assert [stat.S_IMODE(path.stat().st_mode) for path in keys.values()] == [0o600, 0o600]
    said = "".join(capsys.readouterr())
    for path in [path for path in home.rglob("*") if path.is_file() and path not in keys.values()]:
        for secret in secrets.values():
            assert secret.encode() not in path.read_bytes(), path
            assert secret not in said
    assert parsed(opencode_file(home))["provider"]["toolkit"]["options"]["apiKey"] == f"{{file:{keys['opencode']}}}"
    with open_store(load_settings().keys.url) as store:
        found = store.authenticate(secrets["claude-code"])
    assert getattr(found, "budget_nano", None) == 5_000_000_000


def test_the_key_goes_with_the_last_connection(home: Path) -> None:
    run(["connect", "claude-code", "--model", "gemma"])
    run(["connect", "claude-code", "--model", "gemma", "--scope", "project"])
    key = Path(home, "toolkit", "data", "clients", "keys", "claude-code.key")
    assert run(["connect", "undo", "claude-code", "--scope", "project"]) == 0
    assert key.exists()
    assert run(["connect", "undo", "claude-code"]) == 0
    assert not key.exists()
    with open_store(load_settings().keys.url) as store:
        assert store.all() == []


def test_a_token_elsewhere_does_not_win_over_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-shell")
    path = written(settings_file(home), CLAUDE_CODE["a token in the env"])
    assert run(["connect", "claude-code", "--model", "gemma"]) == 0
    env = parsed(path)["env"]
    assert (env["ANTHROPIC_AUTH_TOKEN"], env["ANTHROPIC_API_KEY"]) == ("", "")


def test_opencode_gets_every_model_with_what_it_holds_and_a_new_one_at_the_next_time(home: Path) -> None:
    assert run(["connect", "opencode", "--model", "gemma", "--small-model", "qwen"]) == 0
    config = parsed(opencode_file(home))
    assert (config["model"], config["small_model"]) == ("toolkit/gemma", "toolkit/qwen")
    models = config["provider"]["toolkit"]["models"]
    assert {name: block.get("limit") for name, block in models.items()} == {
        "gemma": {"context": 65_536, "output": 8192},
        "qwen": {"context": 32_768, "output": 4096},
        "tiny": {"context": 4096, "output": 512},
        "claude-opus": None,
    }
    announce(model("gemma", 65_536), model("new", 40_000))
    assert run(["connect", "opencode", "--model", "new"]) == 0
    assert set(parsed(opencode_file(home))["provider"]["toolkit"]["models"]) == {"gemma", "new"}


def test_opencode_is_let_through_a_list_of_providers(home: Path) -> None:
    path = written(opencode_file(home), OPENCODE["a list of providers"])
    run(["connect", "opencode", "--model", "gemma"])
    assert parsed(path)["enabled_providers"] == ["anthropic", "openai", "toolkit"]


def test_what_was_edited_by_hand_since_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(settings_file(home), CLAUDE_CODE["comments"])
    run(["connect", "claude-code", "--model", "gemma"])
    edited = path.read_text(encoding="utf-8").replace('"dark", // at night', '"light", // by day')
    edited = edited.replace('"ANTHROPIC_MODEL": "gemma"', '"ANTHROPIC_MODEL": "mine"')
    path.write_text(edited, encoding="utf-8")
    assert run(["connect", "undo", "claude-code"]) == 0
    expected = CLAUDE_CODE["comments"].replace('"dark", // at night', '"light", // by day')
    assert parsed(path) == {**jsonc.parse(expected).value, "env": {"FOO": "1", "ANTHROPIC_MODEL": "mine"}}
    for comment in ("// mine", "// by day", "/* and\n     this */", "// foo"):
        assert comment in path.read_text(encoding="utf-8")
    assert "it stays: env.ANTHROPIC_MODEL" in capsys.readouterr().err


def test_a_server_is_connected_with_its_options(home: Path) -> None:
    assert run(["mcp", "connect", "opencode", "files", "--root", "/tmp", "--scope", "user", "--read-only"]) == 0
    command = parsed(opencode_file(home))["mcp"]["files"]["command"]
    assert command[-5:] == ["mcp_servers", "files", "--root", "/tmp", "--read-only"]


def test_two_things_in_one_file_are_taken_back_in_either_order(home: Path) -> None:
    for text in OPENCODE.values():
        for order in (("connect", "mcp"), ("mcp", "connect")):
            path = written(opencode_file(home), text)
            assert run(["connect", "opencode", "--model", "gemma"]) == 0
            assert run(["mcp", "connect", "opencode", "web", "python", "github"]) == 0
            assert set(parsed(path)["mcp"]) >= {"web", "python", "github"}
            for what in order:
                undo = ["connect", "undo", "opencode"] if what == "connect" else ["mcp", "disconnect", "opencode"]
                assert run(undo) == 0
            assert path.read_bytes() == text.encode()


@pytest.mark.parametrize(
    "text", ["<<<<<<< HEAD\n{}\n", '{"env": ', "not json", "[1, 2]", '{"env": "FOO=1"}', "\x00\x01"]
)
def test_a_file_that_cannot_be_parsed_is_refused_untouched_and_no_key_is_left_behind(
    home: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = written(settings_file(home), text)
    assert run(["connect", "claude-code", "--model", "gemma"]) == 1
    assert path.read_bytes() == text.encode()
    error = capsys.readouterr().err
    assert f"{path} cannot be edited" in error
    assert "it was left as it is" in error
    assert not Path(home, "toolkit", "data", "clients", "journal.json").exists()


def test_a_file_that_is_not_utf8_is_refused_untouched(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(settings_file(home), "")
    path.write_bytes('{"theme": "dark"}'.encode("utf-16"))
    assert run(["connect", "claude-code", "--model", "gemma"]) == 1
    assert "is not UTF-8 text" in capsys.readouterr().err
    assert path.read_bytes() == '{"theme": "dark"}'.encode("utf-16")


def test_a_read_only_file_is_refused_untouched(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(settings_file(home), "{}")
    path.chmod(0o444)
    assert run(["connect", "claude-code", "--model", "gemma"]) == 1
    assert f"hint: chmod u+w {path}" in capsys.readouterr().err
    assert path.read_bytes() == b"{}"


@pytest.mark.skipif(sys.platform == "win32", reason="symlinks need a privilege there")
def test_a_symlink_stays_one_and_its_target_is_edited(home: Path) -> None:
    target = written(home / "dotfiles" / "claude.json", CLAUDE_CODE["tabs"])
    link = settings_file(home)
    link.parent.mkdir()
    link.symlink_to(target)
    assert run(["connect", "claude-code", "--model", "gemma"]) == 0
    assert link.is_symlink()
    assert parsed(target)["env"]["ANTHROPIC_MODEL"] == "gemma"
    assert run(["connect", "undo", "claude-code"]) == 0
    assert link.is_symlink()
    assert target.read_bytes() == CLAUDE_CODE["tabs"].encode()


def test_a_dry_run_shows_the_diff_and_touches_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(settings_file(home), CLAUDE_CODE["comments"])
    before = sorted(str(file) for file in home.rglob("*") if "state" not in file.parts)
    assert run(["connect", "claude-code", "--model", "gemma", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert '+    "ANTHROPIC_MODEL": "gemma",' in said.err
    assert path.read_bytes() == CLAUDE_CODE["comments"].encode()
    assert sorted(str(file) for file in home.rglob("*") if "state" not in file.parts) == before


def test_the_backup_is_the_file_as_it_was(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(settings_file(home), CLAUDE_CODE["comments"])
    assert run(["connect", "claude-code", "--model", "gemma", "--json"]) == 0
    backup = Path(json.loads(capsys.readouterr().out)["backup"])
    assert backup.read_bytes() == CLAUDE_CODE["comments"].encode()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("client", "context", "needed", "lean"),
    [("claude-code", 16_384, "32,768", True), ("opencode", 4096, "16,384", False)],
)
def test_a_model_that_is_too_small_is_refused_with_the_number_and_the_way(
    home: Path, capsys: pytest.CaptureFixture[str], client: str, context: int, needed: str, lean: bool
) -> None:
    announce(model("small", context))
    assert run(["connect", client]) == 1
    said = capsys.readouterr().err
    assert f"small holds {context:,} tokens" in said
    assert f"needs {needed}" in said
    assert f"TOOLKIT_LLAMACPP_CONTEXT={needed.replace(',', '')} toolkit gateway up" in said
    assert ("--lean" in said) is lean
    assert not (home / ".claude").exists()
    assert not Path(home, "toolkit", "data").exists()
    assert run(["connect", client, "--lean"]) == (0 if lean else 1)


def test_a_model_trained_with_less_is_not_to_be_given_more(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce(model("toolkit-tiny", 4096, trained=4096))
    for lean in ([], ["--lean"]):
        assert run(["connect", "claude-code", *lean]) == 1
        said = capsys.readouterr().err
        assert "hint: toolkit models list  # toolkit-tiny was trained with 4,096" in said
        assert "TOOLKIT_LLAMACPP_CONTEXT" not in said


def test_the_way_to_more_context_fits_the_upstream(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce(model("gemma3:4b", 8192, upstream="ollama"))
    assert run(["connect", "claude-code"]) == 1
    assert "set the context of gemma3:4b to 32768 where it is served" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["claude-code", "--model", "gpt"], 1, "no model named gpt is served; served are gemma, qwen, tiny"),
        (["claude-code"], 1, "there are several models, name one"),
        (["claude-code", "--model", "gemma", "--haiku", "x"], 1, "no model named x is served"),
        (["claude-code", "--model", "gemma", "--scope", "galaxy"], 2, "--scope is user or project"),
        (["claude-code", "--model", "gemma", "--budget", "x"], 2, "is not an amount of money"),
        (["opencode", "--direct", "vllm"], 2, "--direct is ollama or lmstudio"),
        (["opencode", "--direct", "ollama", "--budget", "1usd"], 2, "without a gateway there is no budget"),
        (["undo", "cursor"], 2, "there is no client cursor"),
        (["undo", "opencode"], 1, "opencode is not connected"),
        (["env", "--shell", "csh"], 2, "--shell is sh, fish, powershell"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], home: Path, arguments: list[str], code: int, message: str
) -> None:
    assert run(["connect", *arguments]) == code
    assert message in capsys.readouterr().err
    assert not (home / ".claude").exists()


def test_without_a_gateway_the_way_to_one_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    (state_dir() / "gateway.json").unlink()
    for arguments in (["connect", "opencode"], ["connect", "env"]):
        assert run(arguments) == 1
        assert "hint: toolkit gateway up" in capsys.readouterr().err


def test_a_budget_for_a_key_that_is_there_changes_it_and_says_so(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def limits() -> tuple[int | None, str | None]:
        with open_store(load_settings().keys.url) as store:
            key = store.get("claude-code")
        return key.budget_nano, key.period

    connect = ["connect", "claude-code", "--model", "gemma"]
    assert run([*connect, "--budget", "5usd", "--reset", "30d"]) == 0
    assert "changed" not in capsys.readouterr().err
    assert run([*connect, "--budget", "9usd"]) == 0
    assert "the key claude-code was there already; changed: budget 9usd" in capsys.readouterr().err
    assert limits() == (9_000_000_000, "30d")
    assert run([*connect, "--reset", "never"]) == 0
    assert run(connect) == 0
    assert limits() == (9_000_000_000, None)


def test_folders_named_in_the_environment_are_respected(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "cc"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    run(["connect", "claude-code", "--model", "gemma"])
    run(["connect", "opencode", "--model", "gemma"])
    assert (tmp_path / "cc" / "settings.json").exists()
    assert (tmp_path / "xdg" / "opencode" / "opencode.json").exists()
    monkeypatch.setenv("OPENCODE_CONFIG", str(tmp_path / "mine.jsonc"))
    run(["connect", "opencode", "--model", "gemma"])
    assert (tmp_path / "mine.jsonc").exists()


def test_the_project_scope_writes_what_is_not_committed(home: Path) -> None:
    assert run(["connect", "claude-code", "--model", "gemma", "--scope", "project"]) == 0
    assert Path(".claude", "settings.local.json").exists()
    assert not settings_file(home).exists()
    written(Path("opencode.jsonc"), OPENCODE["commented"])
    assert run(["connect", "opencode", "--model", "gemma", "--scope", "project"]) == 0
    assert "toolkit/gemma" in Path("opencode.jsonc").read_text(encoding="utf-8")


def test_status_says_what_holds(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> str:
        assert run(["connect", "status", "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        return str(row["state"])

    run(["connect", "claude-code", "--model", "gemma"])
    capsys.readouterr()
    assert state() == "connected"
    announce(model("gemma", 65_536), url="http://127.0.0.1:9")
    assert "moved to http://127.0.0.1:9" in state()
    announce(model("other", 65_536))
    assert "no longer served" in state()
    (state_dir() / "gateway.json").unlink()
    assert "not running" in state()
    settings_file(home).write_text("{}", encoding="utf-8")
    assert state() == "changed since by hand"


def test_the_exports_read_the_key_when_they_are_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["connect", "env", "--model", "gemma"]) == 0
    lines = capsys.readouterr().out
    key = Path(home, "toolkit", "data", "clients", "keys", "env.key").read_text(encoding="utf-8").strip()
    assert key not in lines
    shell = subprocess.run(
        ["sh", "-c", f'{lines}\necho "$OPENAI_BASE_URL $OPENAI_API_KEY $ANTHROPIC_BASE_URL $ANTHROPIC_MODEL"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == f"{URL}/v1 {key} {URL} gemma\n"


def test_a_damaged_record_is_told_and_nothing_is_touched(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["connect", "claude-code", "--model", "gemma"])
    journal = Path(home, "toolkit", "data", "clients", "journal.json")
    journal.write_text('[{"client": ', encoding="utf-8")
    before = settings_file(home).read_bytes()
    assert run(["connect", "undo", "claude-code"]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert settings_file(home).read_bytes() == before
