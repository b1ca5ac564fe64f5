import json
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from agents.experiments.analysis import analyse
from agents.experiments.attributes import arm_effects
from agents.experiments.compare import entries
from agents.experiments.designs import pool_size
from agents.experiments.inference import detectable, expected_spread
from agents.experiments.table import unit_of
from agents.experiments.trials import read_trials
from tests.agents.experiments.choosing_endpoint import by_chance, choosing
from toolkit.cli.main import run


def test_run_report_compare_and_export_in_a_row(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with choosing(by_chance([0.6, 0.2, 0.2])) as endpoint:
        common = ["--suite", str(suite), "--base-url", endpoint.url, "--out", str(out), "--json"]
        assert run(["bias", "run", "-m", "one", "-m", "two", "--arm", "cue", "--arm", "duplicate", *common]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [model["model"] for model in document["models"]] == ["one", "two"]
    assert document["models"][0]["trials"] == 18 * 3 + 18 + 18 * 3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert not any(mark in page for mark in ('src="', 'href="http', "@import", "<script"))
    assert {path.suffix for path in (out / "figures").iterdir()} == {".svg", ".png"}

    assert run(["bias", "report", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == document["models"]
    assert run(["bias", "compare", str(out), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert [row["measure"] for row in compared] == ["accuracy", "position 1", "position 2", "position 3"]
    assert all(row["difference"]["value"] == pytest.approx(0) for row in compared)  # the double is one model twice
    assert run(["bias", "export", str(out), "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(read_trials(out))


def test_parquet_holds_the_trials_with_their_types_and_without_pyarrow_the_missing_extra_is_named(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    out, file = tmp_path / "out", tmp_path / "trials.parquet"
    with choosing(by_chance([0.6, 0.2, 0.2])) as endpoint:
        assert run(["bias", "run", "-m", "m", "--suite", str(suite), "--base-url", endpoint.url, "-o", str(out)]) == 0
    assert run(["bias", "export", str(out), "--parquet", "--out", str(file)]) == 0
    rows = parquet.read_table(file).to_pylist()
    assert [(row["task"], tuple(row["order"]), row["latency"]) for row in rows] == [
        (trial.task, trial.order, trial.latency) for trial in read_trials(out)
    ]
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(["bias", "export", str(out), "--parquet", "--out", str(tmp_path / "none.parquet")]) == 1
    said = capsys.readouterr().err
    assert "needs pyarrow" in said
    assert "pip install 'local-llm-toolkit[parquet]'" in said
    assert not (tmp_path / "none.parquet").exists()


def test_from_repeats_an_experiment_with_the_same_orders(suite: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    with choosing(by_chance([0.6, 0.2, 0.2])) as endpoint:
        where = ["--base-url", endpoint.url, "--quiet"]
        assert run(["bias", "run", "-m", "m", "--suite", str(suite), "--seed", "5", "--out", str(first), *where]) == 0
        assert run(["bias", "run", "--from", str(first), "--out", str(second), *where]) == 0
    one, other = (sorted((t.key, t.order, t.chosen) for t in read_trials(tmp_path / name)) for name in "ab")
    assert one == other


@pytest.mark.parametrize(("more", "units"), [([], 18), (["--bases", "2"], 2)])
def test_a_report_says_what_its_intervals_take_as_the_unit(
    more: list[str], units: int, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    command = ["bias", "run", "-m", "m", "--suite", str(suite), "--out", str(out), "--quiet", "--arm", "cue", *more]
    with choosing(by_chance([0.6, 0.2, 0.2])) as endpoint:
        assert run([*command, "--base-url", endpoint.url]) == 0
    found = analyse(out)
    (model,) = found.models
    assert (model.measures.tasks, model.measures.units) == (18, units)
    page = (out / "report.html").read_text("utf-8")
    assert ("tasks share 2 sets of orders" in page) == (units == 2)
    assert re.findall(r"<th[^>]*>(Calls|Tokens|Cached|Cost)</th>", page) == ["Calls", "Tokens", "Cached"]  # it was free
    assert [entry.table.units for entry in entries([out, out])] == [units, units]
    trials = [trial for trial in read_trials(out) if not trial.repeat]
    plain = [trial for trial in trials if trial.arm == "plain"]
    shared = unit_of(plain, partial(pool_size, found.manifest.experiment.design))
    assert len(set(shared.values())) == units
    assert model.arms == arm_effects(plain, [trial for trial in trials if trial.arm == "cue"], shared)


def test_a_suite_that_was_changed_is_refused_in_the_same_folder(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with choosing(by_chance([0.6, 0.2, 0.2])) as endpoint:
        command = ["bias", "run", "-m", "m", "--suite", str(suite), "--out", str(tmp_path / "a"), "--quiet"]
        command += ["--base-url", endpoint.url]
        assert run(command) == 0
        asked = len(endpoint.asked)
        suite.write_text(suite.read_text(encoding="utf-8").replace("snow in Bern", "another"), encoding="utf-8")
        assert run(command) == 2
        assert "holds another experiment: the suite" in capsys.readouterr().err
        assert len(endpoint.asked) == asked
        again = ["bias", "run", "--from", str(tmp_path / "a"), "--out", str(tmp_path / "b")]
        assert run([*again, "--base-url", endpoint.url]) == 0
    assert "this is no exact repetition: the suite" in capsys.readouterr().err


def test_a_plan_counts_calls_and_asks_only_a_few(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with choosing(by_chance([0.6, 0.2, 0.2])) as endpoint:
        assert run(["bias", "plan", "-m", "m", "--suite", str(suite), "--base-url", endpoint.url, "--json"]) == 0
        assert len(endpoint.asked) == 3
    (bill,) = json.loads(capsys.readouterr().out)
    assert bill["calls"] == 18 * 3 + 18
    assert bill["prompt_tokens"] == 7200
    assert bill["evaluated"] < bill["prompt_tokens"]
    assert bill["seconds"] > 0


def test_a_plan_says_where_tasks_share_their_orders(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bias", "plan", "-m", "m", "--suite", str(suite), "--base-url", "http://127.0.0.1:9/v1", "--probe", "0"]
    bills = []
    for more in ([], ["--bases", "2"]):
        assert run([*command, *more, "--json"]) == 0
        bills += json.loads(capsys.readouterr().out)
    assert [(bill["tasks"], bill["units"]) for bill in bills] == [(18, 18), (18, 2)]
    # A unit is the mean of nine tasks, and two of them leave one degree of freedom.
    assert bills[1]["detectable"]["0.9"] == pytest.approx(detectable(expected_spread(0.9, 3) / 3, 2))
    assert run([*command, "--bases", "2"]) == 0
    assert "shared: 2 sampling units" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "no model is named"),
        (["run", "-m", "m", "--design", "spiral"], 2, "design.kind"),
        (["run", "-m", "m", "--suite", "nowhere"], 1, "no gateway is running"),
        (["run", "-m", "m", "--suite", "nowhere", "--base-url", "http://127.0.0.1:9/v1"], 2, "there is no suite named"),
        (["report", "nowhere"], 2, "holds no experiment"),
        (["export", "nowhere"], 2, "say --csv or --parquet"),
        (["compare", "nowhere"], 2, "holds no experiment"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bias", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_dead_endpoint_ends_the_run_with_a_hint_and_the_folder_can_be_gone_on_with(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = by_chance([0.6, 0.2, 0.2])
    asked = 0

    def dying(ask: str, names: list[str]) -> dict[str, object] | int:
        nonlocal asked
        asked += 1
        return usual(ask, names) if asked <= 20 else 401

    command = ["bias", "run", "-m", "m", "--suite", str(suite), "--out", str(tmp_path / "out")]
    with choosing(dying) as endpoint:
        assert run([*command, "--base-url", endpoint.url]) == 1
        assert "what was measured is kept" in capsys.readouterr().err
        endpoint.choose = usual
        assert run([*command, "--base-url", endpoint.url, "--quiet"]) == 0
    assert len(read_trials(tmp_path / "out")) == 18 * 3 + 18
