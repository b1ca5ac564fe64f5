"""`toolkit models` as it is typed: documents, exit codes, sentences for what cannot be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._made_models import KINDS, write
from toolkit.cli.main import run


@pytest.fixture(autouse=True)
def nothing_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine is asked but the built-in models."""
    for name in ("LLAMACPP", "OLLAMA", "LMSTUDIO", "VLLM"):
        monkeypatch.setenv(f"TOOLKIT_DISCOVER_{name}", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_list_gives_catalogue_and_installed_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"gemma-4-e4b", "mistral-small-3.2"} <= {row["name"] for row in document["catalogue"]}
    assert "toolkit-tiny" in {row["name"] for row in document["installed"]}
    assert document["machine"]["ram_total"] > 0


def test_fit_adds_up_and_says_by_exit_code_whether_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    run(["models", "fit", "gemma-4-e4b", "--context", "64k", "--json"])
    document = json.loads(capsys.readouterr().out)
    memory = document["memory"]
    assert memory["total"] == memory["weights"] + memory["projector"] + memory["kv"] + memory["compute"]
    assert document["context"] == 65_536
    assert run(["models", "fit", "gemma-4-31b", "--slots", "256", "--context", "256k", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["quiet"]["fits"] is False


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (["fit", "gema-4-e4b"], 2, "near: gemma-4-e4b"),
        (["fit", "gemma-4-e4b", "--context", "1M"], 2, "was trained with a context of 131,072"),
        (["fit", "gemma-4-e4b", "--kv", "q3"], 2, "no type of KV cache"),
        (["fit", "none.gguf"], 1, "there is no file"),
        (["show", "gemma"], 2, "there is no model named gemma"),
        (["verify", "x"], 2, "there is no model named x"),
        (["remove", "x", "--yes"], 2, "there is no model named x"),
        (["serve", "x"], 2, "there is no model named x"),
        (["serve", "toolkit-tiny", "--context", "1M"], 2, "was trained with"),
        (["pull", "gemma-4-e4b"], 1, "cannot be reached"),
        (["pull", "gemma-4-e4b", "--via", "torrent"], 2, "no way to pull"),
        (["pull", "ollama:gemma4:e4b"], 1, "Ollama does not answer"),
        (["pull", "none.gguf"], 1, "there is no file"),
        (["pull", "./none"], 1, "there is no file"),
        (["pull", "/"], 1, "is a folder"),
        (["pull", "ollama:"], 2, "names no model"),
        (["pull", "ollama:gemma4:e4b", "--quant", "Q8_0"], 2, "--quant is not for them"),
        (["pull", "gemma-4-e4b", "--context", "64k"], 2, "--context is for Ollama"),
        (["pull", "hf.co/owner"], 2, "names no repository"),
        (["fit", "gemma-4-e4b", "--context", "0"], 2, "too small to ask anything"),
        (["serve", "toolkit-tiny", "--context", "0"], 2, "too small to ask anything"),
        (["serve", "gemma-4-e4b"], 1, "in the catalogue and not pulled"),
        (["verify", "gemma-4-e4b"], 1, "in the catalogue and not pulled"),
        (["remove", "gemma-4-e4b:Q4_K_M", "--yes"], 1, "in the catalogue and not pulled"),
        (["remove", "toolkit-tiny", "--yes"], 2, "shipped with the toolkit"),
        (["serve", "toolkit-tiny", "--engine", "torch"], 2, "is no engine"),
        (["serve", "toolkit-tiny", "--kv", "q3"], 2, "no type of KV cache"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_a_hint(
    capsys: pytest.CaptureFixture[str], typed: list[str], code: int, said: str
) -> None:
    assert run(["models", *typed]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "hint: " in error


def test_a_file_is_taken_in_shown_verified_and_removed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(KINDS["llama"], tmp_path / "mine-F16.gguf")
    assert run(["models", "pull", str(path), "--quiet"]) == 0
    assert capsys.readouterr().out == "mine-f16\n"
    assert run(["models", "verify", "mine-f16"]) == 0
    assert run(["models", "show", "mine-f16", "--json"]) == 0
    assert "mine-f16" in capsys.readouterr().out
    assert run(["models", "remove", "mine-f16"]) == 2  # no terminal to ask on
    assert run(["models", "remove", "mine-f16", "--yes"]) == 0
    assert run(["models", "show", "mine-f16"]) == 2
    assert path.exists()


def test_verify_of_a_changed_file_fails_with_the_way_to_mend_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write(KINDS["llama"], tmp_path / "mine-F16.gguf")
    assert run(["models", "pull", str(path), "--quiet"]) == 0
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")  # the store holds a hard link to it
    assert run(["models", "verify", "mine-f16"]) == 1
    assert "other contents" in capsys.readouterr().err


def test_a_built_in_model_is_shown_with_its_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "toolkit-tiny"]) == 0
    shown = capsys.readouterr().out
    assert "shipped with the toolkit" in shown
    assert "4,096" in shown


def test_a_built_in_model_is_held_against_this_machine_and_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "fit", "toolkit-tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["known_from"] == "the file's header"
    assert run(["models", "verify", "toolkit-tiny"]) == 0
    assert "whole GGUF file" in capsys.readouterr().out


def test_a_model_of_the_catalogue_is_shown_with_all_that_is_known_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "gemma-4-26b-a4b"]) == 0
    shown = capsys.readouterr().out
    for what in (
        "Apache-2.0",
        "text, image",
        "coding",
        "262,144",
        "top_k 64",
        ":UD-Q4_K_M",
        "gemma4:26b",
        "unverified",
    ):
        assert what in shown
    assert run(["models", "show", "gemma-4-26b-a4b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["catalogue"]["sampling"]["top_p"] == 0.95


def test_a_server_that_needs_more_than_is_free_is_said_with_the_context_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    from gateway.models import machine, serving
    from gateway.settings import Settings

    spec = serving.spec("toolkit-tiny", Settings(), context=None, slots=1, kv=None, port=0)
    assert serving.shortage(spec) is None
    here = machine.look()
    need = 25 * 2**20  # the built-in model with all its context takes 30 MiB
    monkeypatch.setattr(machine, "look", lambda: replace(here, ram_free=machine.KEPT_FREE + need, gpus=()))
    said = serving.shortage(spec)
    assert said is not None
    assert "more than is free; a context of 3,072 would fit" in said
    monkeypatch.setattr(machine, "look", lambda: replace(here, ram_free=0, gpus=()))
    assert "no context would fit" in str(serving.shortage(spec))


def test_a_store_that_may_not_be_written_is_one_sentence_and_a_hint(home: Path, tmp_path: Path) -> None:
    may_all: list[str] = []
    if os.geteuid() == 0:  # root may write anywhere, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("root cannot be refused without setpriv")
        may_all = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    path = write(KINDS["llama"], tmp_path / "mine-F16.gguf")
    store = home / "toolkit" / "data" / "models"
    store.mkdir(parents=True)
    store.chmod(0o500)
    argv = [*may_all, sys.executable, "-P", "-m", "toolkit.cli.main", "models", "pull", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    store.chmod(0o700)
    assert done.returncode == 1
    assert "cannot be made: Permission denied" in done.stderr
    assert f"hint: ls -ld {store}" in done.stderr
