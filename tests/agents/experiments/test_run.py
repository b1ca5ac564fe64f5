import json
from pathlib import Path

import pytest

from agents.experiments.experiment import Design, Experiment
from agents.experiments.run import Summary, at_once, run_experiment
from agents.experiments.trials import TRIALS, read_trials
from agents.tool_host import Tool
from tests.agents.experiments.choosing_endpoint import Choosing, by_chance, calls, choosing
from toolkit.core.errors import ToolkitError, UsageError

NAMES = ("web_search", "read_page", "run_python", "crypto_price", "query_spreadsheet")
TOOLS = [Tool(name, f"{name}.", {"type": "object", "properties": {}}) for name in NAMES]
FIRST = [0.4, 0.15, 0.15, 0.15, 0.15]


async def run(endpoint: Choosing, out: Path, **changes: object) -> Summary:
    experiment = Experiment.model_validate({"models": ["m"], "tasks": 20, **changes})
    return await run_experiment(experiment, base_url=endpoint.url, api_key=None, out=out, tools=TOOLS)


async def test_a_planted_preference_for_the_first_place_is_found(tmp_path: Path) -> None:
    with choosing(by_chance(FIRST)) as endpoint:
        found = (await run(endpoint, tmp_path / "out", tasks=60)).models[0]
    assert found.tasks == 60
    assert found.trials == found.calls == 60 * 5 + 60
    assert found.effects[0].low < 0.2 < found.effects[0].high
    assert found.p_value < 0.01
    assert found.headline is None
    assert (found.prompt_tokens, found.cached_tokens) == (36_000, 21_600)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["models"][0]["measures"]["tasks"] == 60


async def test_every_kind_of_failure_is_counted_and_the_headline_withdrawn(tmp_path: Path) -> None:
    def choose(ask: str, names: list[str]) -> dict[str, object]:
        turn = len(ask) % 5
        if turn == 0:
            return {"role": "assistant", "content": "I would rather not."}
        if turn == 1:
            return calls("no_such_tool")
        return calls(names[0], "{broken" if turn == 2 else "{}")

    with choosing(choose) as endpoint:
        found = (await run(endpoint, tmp_path / "out")).models[0]
    assert sum(found.outcomes.values()) == found.trials == 120
    assert all(found.outcomes[name] for name in ("right", "wrong", "invalid", "unknown_tool", "no_tool"))
    assert "hold no valid choice" in (found.headline or "")


async def test_a_finished_experiment_is_not_asked_again(tmp_path: Path) -> None:
    with choosing(by_chance(FIRST)) as endpoint:
        first = await run(endpoint, tmp_path / "out")
        asked = len(endpoint.asked)
        second = await run(endpoint, tmp_path / "out")
        assert len(endpoint.asked) == asked
    assert first == second


async def test_an_interrupted_experiment_goes_on_where_the_file_ends_even_in_the_middle_of_a_line(
    tmp_path: Path,
) -> None:
    with choosing(by_chance(FIRST)) as endpoint:
        whole = await run(endpoint, tmp_path / "whole")
        await run(endpoint, tmp_path / "cut")
        path = tmp_path / "cut" / TRIALS
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 5])
        kept = len(read_trials(tmp_path / "cut"))
        asked = len(endpoint.asked)
        again = await run(endpoint, tmp_path / "cut")
        assert len(endpoint.asked) - asked == 120 - kept
    assert kept < 60
    assert again.models[0].effects == whole.models[0].effects
    assert again.models[0].p_value == whole.models[0].p_value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "the setting seed was 1, now it is 2"),
        ({"temperature": 0.5}, "the setting temperature was 0.0, now it is 0.5"),
        ({"design": {"kind": "williams"}}, "the setting design was"),
    ],
)
async def test_another_experiment_in_the_same_folder_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with choosing(by_chance(FIRST)) as endpoint:
        await run(endpoint, tmp_path / "out")
        before = (tmp_path / "out" / TRIALS).read_bytes()
        with pytest.raises(UsageError) as error:
            await run(endpoint, tmp_path / "out", **change)
    assert message in error.value.message
    assert (tmp_path / "out" / TRIALS).read_bytes() == before


async def test_a_changed_model_file_is_refused(tmp_path: Path) -> None:
    experiment = Experiment(models=["m"], tasks=5)
    with choosing(by_chance(FIRST)) as endpoint:
        for digest in ("sha256:a", "sha256:a"):
            await run_experiment(
                experiment,
                base_url=endpoint.url,
                api_key=None,
                out=tmp_path / "out",
                tools=TOOLS,
                identities={"m": digest},
            )
        with pytest.raises(UsageError, match="the file of m was sha256:a"):
            await run_experiment(
                experiment,
                base_url=endpoint.url,
                api_key=None,
                out=tmp_path / "out",
                tools=TOOLS,
                identities={"m": "sha256:b"},
            )


async def test_changed_tools_are_refused(tmp_path: Path) -> None:
    experiment = Experiment(models=["m"], tasks=5)
    with choosing(by_chance(FIRST)) as endpoint:
        await run_experiment(experiment, base_url=endpoint.url, api_key=None, out=tmp_path / "out", tools=TOOLS)
        other = [Tool(tool.name, "Now different.", tool.parameters) for tool in TOOLS]
        with pytest.raises(UsageError, match="what the tools say of themselves"):
            await run_experiment(experiment, base_url=endpoint.url, api_key=None, out=tmp_path / "out", tools=other)


async def test_a_refused_key_stops_the_run_and_what_was_measured_is_kept_for_the_next(tmp_path: Path) -> None:
    usual = by_chance(FIRST)
    count = 0

    def choose(ask: str, names: list[str]) -> dict[str, object] | int:
        nonlocal count
        count += 1
        return 403 if count > 50 else usual(ask, names)

    with choosing(choose) as endpoint:
        with pytest.raises(ToolkitError, match="refused \\(403\\)"):
            await run(endpoint, tmp_path / "out")
        kept = read_trials(tmp_path / "out")
        assert 45 <= len(kept) <= 50
        assert {trial.outcome for trial in kept} <= {"right", "wrong"}
        endpoint.choose = usual
        found = await run(endpoint, tmp_path / "out")
    assert found.models[0].trials == 120


async def test_an_error_is_an_outcome_and_is_asked_again_the_next_time(tmp_path: Path) -> None:
    usual = by_chance(FIRST)

    def choose(ask: str, names: list[str]) -> dict[str, object] | int:
        return 400 if len(ask) % 9 == 0 and names[0] == "run_python" else usual(ask, names)

    with choosing(choose) as endpoint:
        found = (await run(endpoint, tmp_path / "out")).models[0]
        assert found.outcomes["error"] > 0
        assert found.trials == 120
        endpoint.choose = usual
        assert (await run(endpoint, tmp_path / "out")).models[0].outcomes["error"] == 0


def test_a_llama_cpp_is_asked_as_many_questions_at_once_as_it_has_slots(llama: str) -> None:
    assert at_once(None, llama) == 2
    assert at_once(7, llama) == 7
    assert at_once(None, None) == at_once(None, "http://127.0.0.1:9") == 4


async def test_react_mode_offers_tools_in_text_and_reads_the_action(tmp_path: Path) -> None:
    def choose(ask: str, names: list[str]) -> dict[str, object]:
        assert names == []
        return {"role": "assistant", "content": "Thought: hm\nAction: run_python\nAction Input: {}"}

    with choosing(choose) as endpoint:
        found = (await run(endpoint, tmp_path / "out", mode="react")).models[0]
    assert found.accuracy.value == pytest.approx(0.2)
    assert found.p_value > 0.5


async def test_logprob_mode_needs_the_server_itself(tmp_path: Path) -> None:
    with choosing(by_chance(FIRST)) as endpoint, pytest.raises(UsageError, match="talks to llama"):
        await run(endpoint, tmp_path / "out", mode="logprob", design=Design(repeats=0))
