"""`toolkit keys` and `toolkit spend` as a person types them."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.keys.admission import Ask, Price
from gateway.keys.store import Call, Refused, Usage, open_store
from gateway.settings import load_settings
from toolkit.cli.main import run


def toolkit(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the command printed on stdout; its exit code is checked."""
    capsys.readouterr()
    assert run(list(arguments)) == code
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(toolkit(capsys, *arguments, "--json"))


def spend(name: str, nano: int, *, model: str = "m", client: str = "c") -> None:
    with open_store(load_settings().keys.url) as store:
        key = store.get(name)
        call = f"{name}-{nano}-{model}-{client}"
        store.admit(key.id, Call(call, model, client=client), Ask(0, nano, Price(0, 1_000_000)), store.register())
        store.settle(call, Usage(cost_nano=nano, prompt_tokens=10, completion_tokens=5))


def test_a_new_keys_secret_is_alone_on_stdout_and_opens_the_store(capsys: pytest.CaptureFixture[str]) -> None:
    secret = toolkit(capsys, "keys", "create", "opencode", "--budget", "5usd", "--reset", "30d").strip()
    assert secret.startswith("sk-toolkit-")
    with open_store(load_settings().keys.url) as store:
        found = store.authenticate(secret)
    assert not isinstance(found, Refused)
    assert (found.name, found.budget_nano, found.period) == ("opencode", 5_000_000_000, "30d")
    assert secret not in toolkit(capsys, "keys", "show", "opencode")
    assert secret not in toolkit(capsys, "keys", "list", "--json")


def test_every_limit_can_be_set_changed_and_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    limits = [
        "--budget",
        "5usd",
        "--tokens",
        "2M",
        "--rpm",
        "60",
        "--tpm",
        "100k",
        "--expires",
        "90d",
        "--reset",
        "1mo",
    ]
    patterns = ["--models", "gemma-4-*", "--models", "mistral-small", "--time-zone", "Europe/Berlin"]
    made = document(capsys, "keys", "create", "opencode", *limits, *patterns)
    assert (made["budget_nano"], made["budget_tokens"], made["rpm"], made["tpm"]) == (5 * 10**9, 2 * 10**6, 60, 100_000)
    assert made["models"] == ["gemma-4-*", "mistral-small"]
    assert made["resets_at"].endswith(("T22:00:00+00:00", "T23:00:00+00:00"))
    none = [part for option in ("--budget", "--tokens", "--rpm", "--tpm") for part in (option, "none")]
    changed = document(
        capsys, "keys", "update", "opencode", *none, "--expires", "never", "--reset", "never", "--models", "all"
    )
    for limit in ("budget_nano", "budget_tokens", "rpm", "tpm", "expires_at", "resets_at", "period"):
        assert changed[limit] is None
    assert changed["models"] == []


def test_show_says_what_is_left_and_when_it_resets(capsys: pytest.CaptureFixture[str]) -> None:
    toolkit(capsys, "keys", "create", "opencode", "--budget", "5usd", "--reset", "1mo", "--time-zone", "UTC")
    spend("opencode", 1_250_000_000)
    shown = toolkit(capsys, "keys", "show", "opencode")
    assert "$3.75" in shown
    assert "-01 00:00 UTC" in shown
    left = document(capsys, "keys", "show", "opencode")
    assert (left["spent_nano"], left["left_nano"], left["held_nano"]) == (1_250_000_000, 3_750_000_000, 0)


def test_block_rotate_and_delete_do_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    first = toolkit(capsys, "keys", "create", "opencode", "--quiet").strip()
    assert document(capsys, "keys", "block", "opencode")["blocked"] is True
    assert document(capsys, "keys", "unblock", "opencode")["blocked"] is False
    second = toolkit(capsys, "keys", "rotate", "opencode", "--grace", "1h", "--quiet").strip()
    assert second != first
    newest, old = document(capsys, "keys", "show", "opencode")["secrets"]
    assert (newest["hint"][-4:], newest["honoured_until"]) == (second[-4:], None)
    assert old["hint"].endswith(first[-4:])
    assert datetime.fromisoformat(old["honoured_until"]) - datetime.now(UTC) < timedelta(hours=1)
    shown = toolkit(capsys, "keys", "show", "opencode")
    assert re.search(rf"\nhonoured still +{re.escape(old['hint'])} until 20\d\d-", shown)
    assert run(["keys", "delete", "opencode"]) == 2  # no terminal to ask on
    toolkit(capsys, "keys", "delete", "opencode", "--yes")
    assert document(capsys, "keys", "list") == []


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["create", "a b"], "no name for a key", "toolkit keys create"),
        (["create", "x", "--budget", "much"], "not an amount of money", "5usd"),
        (["create", "x", "--reset", "1y"], "not a period", "30d"),
        (["create", "x", "--expires", "2001-01-01"], "over already", "90d"),
        (["create", "x", "--expires", "0d"], "over already", "90d"),
        (["create", "x", "--rpm", "0"], "nothing through", "block"),
        (["create", "x", "--time-zone", "Mars"], "no time zone", "Europe/Berlin"),
        (["create", "x", "--when-tight", "cut"], "clip or refuse", "clip"),
        (["create", "x", "--rpm", "5G"], "more than can be kept", "none"),
        (["create", "x", "--models", ""], "name of a model", "--models"),
        (["update", "there", "--time-zone", "none"], "no time zone", "Europe/Berlin"),
        (["update", "there", "--expires", "99999999999d"], "a hundred years", "never"),
        (["rotate", "there", "--grace", "99999999999d"], "a hundred years", "90d"),
        (["update", "there"], "nothing to change", "--budget"),
        (["create", "there"], "already a key named there", "toolkit keys show there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_ends_with_2_a_sentence_and_a_hint(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str, hint: str
) -> None:
    toolkit(capsys, "keys", "create", "there")
    capsys.readouterr()
    assert run(["keys", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert hint in error.partition("hint: ")[2]


def test_an_unknown_key_ends_with_1_and_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    toolkit(capsys, "keys", "create", "opencode")
    capsys.readouterr()
    assert run(["keys", "show", "opencoed"]) == 1
    assert "opencode" in capsys.readouterr().err


def test_spend_shows_groups_bars_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing spent yet" in toolkit(capsys, "spend")
    toolkit(capsys, "keys", "create", "one", "--budget", "5usd", "--reset", "30d")
    toolkit(capsys, "keys", "create", "two")
    spend("one", 1_000_000_000, model="a", client="opencode")
    spend("two", 250_000_000, model="b", client="claude-code")
    shown = toolkit(capsys, "spend")
    assert "█" in shown
    assert "$4.00" in shown
    lines = document(capsys, "spend", "--by", "client")["lines"]
    assert [(line["name"], line["cost_nano"]) for line in lines] == [("opencode", 10**9), ("claude-code", 250_000_000)]
    rows = list(csv.DictReader(io.StringIO(toolkit(capsys, "spend", "--by", "model", "--csv", "--since", "1d"))))
    assert [(row["model"], row["dollars"], row["requests"]) for row in rows] == [("a", "1", "1"), ("b", "0.25", "1")]
    [day] = document(capsys, "spend", "--by", "day")["lines"]
    assert day["cost_nano"] == 1_250_000_000
    assert "nothing spent since 0s" in toolkit(capsys, "spend", "--since", "0s")
    for never in ("2999-01-01", "soon"):
        assert run(["spend", "--since", never]) == 2
        assert "hint: toolkit spend --since 7d" in capsys.readouterr().err
    assert len(document(capsys, "spend", "--since", "99999999999999d")["lines"]) == 2
    assert run(["spend", "--by", "colour"]) == 2


def test_audit_ends_with_1_when_the_books_do_not_balance(capsys: pytest.CaptureFixture[str]) -> None:
    toolkit(capsys, "keys", "create", "one")
    spend("one", 5)
    assert toolkit(capsys, "keys", "audit").startswith("clean: 1 keys, 1 requests")
    with open_store(load_settings().keys.url) as store, store.writing() as connection:
        connection.exec_driver_sql("update keys set spent_nano = 6")
    shown = toolkit(capsys, "keys", "audit", code=1)
    assert "one: spent_nano is 6, its requests add up to 5" in shown
    assert "NOT CLEAN" in shown


def test_a_store_moves_to_another_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    toolkit(capsys, "keys", "create", "one", "--budget", "5usd")
    with open_store(load_settings().keys.url) as store, store.writing() as connection:
        connection.exec_driver_sql("delete from owners")
    target = tmp_path / "other.db"
    assert f"database: {target}" in toolkit(capsys, "keys", "migrate-store", str(target))
    with open_store(f"sqlite:///{target}") as copy:
        assert [key.name for key in copy.all()] == ["one"]
    assert run(["keys", "migrate-store", str(target)]) == 1
    assert run(["keys", "migrate-store", str(target / "below" / "a-file.db")]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_a_pattern_is_checked_against_what_the_gateway_serves() -> None:
    from gateway.keys.patterns import check_patterns
    from toolkit.core.errors import UsageError

    served = ["gemma-4-e4b", "mistral-small", "toolkit-tiny"]
    check_patterns(["gemma-4-*", "mistral-small"], served)
    with pytest.raises(UsageError) as caught:
        check_patterns(["gemma-4-*", "mistral-smal"], served)
    assert "'mistral-smal'" in caught.value.message
    assert "mistral-small" in (caught.value.hint or "")


def test_a_list_in_a_narrow_terminal_keeps_names_and_numbers_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ["--budget", "25.75usd", "--reset", "1mo", "--models", "gemma-4-*", "--models", "mistral-small"]
    toolkit(capsys, "keys", "create", "my-laptop-claude-code", *limits)
    monkeypatch.setenv("COLUMNS", "80")
    shown = toolkit(capsys, "keys", "list")
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"^my-laptop-claude-code +active +\$0\.00 +\$25\.75 +0 ", shown, re.MULTILINE)
