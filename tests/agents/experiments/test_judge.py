import re
from pathlib import Path
from typing import Any

import pytest

from agents.experiments.inference import Estimate
from agents.experiments.judge import Pair, Verdict, load_pairs, run_judge, understood
from agents.experiments.judge_report import sentences, write_judge_report
from agents.experiments.wording import interval, percent, points
from tests.agents.experiments.choosing_endpoint import Choose, choosing
from toolkit.core.errors import UsageError

PAIRS = load_pairs(None)


async def judged(choose: Choose, out: Path, pairs: list[Pair] | None = None) -> Verdict:
    with choosing(choose) as endpoint:
        found = await run_judge(["m"], pairs or PAIRS, base_url=endpoint.url, api_key=None, out=out)
    return found[0]


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def fair(ask: str, names: list[str]) -> dict[str, Any]:
    """Gives the reference, whichever answer stands first."""
    for pair in PAIRS:
        if f"Question: {pair.ask}\n" in ask:
            straight = f"Answer 1: {pair.first}\n" in ask
            score = pair.reference if straight else 10 - pair.reference
            if "with the number only" in ask:
                return says(str(score))
            return says("1" if score < 5 or (score == 5 and straight) else "2")
    raise AssertionError(ask)


async def test_a_judge_that_gives_the_reference_agrees_and_has_no_favourite_place(tmp_path: Path) -> None:
    found = await judged(fair, tmp_path)
    assert found.judgements == 4 * len(PAIRS)
    assert found.invalid == 0
    assert found.first_score.value == 0
    assert (found.exact.value, found.consistent.value, found.mirrored.value) == (1, 1, 1)
    assert found.rank == pytest.approx(1)
    assert abs(found.first_choice.value) < 0.2


async def test_a_judge_that_always_prefers_the_first_is_found_out(tmp_path: Path) -> None:
    found = await judged(lambda ask, names: says("2" if "number only" in ask else "1"), tmp_path)
    assert found.first_score.value == 3
    assert found.first_score_p < 1e-9
    assert found.first_choice.value == 0.5
    assert found.consistent.value == 0
    assert found.consistent_choice.value == 0
    assert found.scores[2] == 2 * len(PAIRS)


async def test_replies_without_a_verdict_are_counted(tmp_path: Path) -> None:
    found = await judged(lambda ask, names: says("Both have merits."), tmp_path)
    assert found.invalid == found.judgements == 4 * len(PAIRS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        (" 7.", 7),
        ("Rating: 7/9", 7),
        ("**3**", 3),
        ("Answer 1 is a bit better than Answer 2. Score: 4", 4),
        ("10", None),
        ("4.5", None),
        ("3 or 4", None),
        ("none", None),
        ("0", None),
    ],
)
def test_a_score_is_read_only_where_it_is_plain(text: str, value: int | None) -> None:
    assert understood(text, "score") == value


def test_a_choice_beyond_two_is_none() -> None:
    assert understood("3", "choice") is None
    assert understood("2", "choice") == 2


async def test_judging_goes_on_where_it_stopped_and_refuses_other_pairs(tmp_path: Path) -> None:
    with choosing(fair) as endpoint:
        first = await run_judge(["m"], PAIRS, base_url=endpoint.url, api_key=None, out=tmp_path)
        asked = len(endpoint.asked)
        path = tmp_path / "judgements.jsonl"
        path.write_bytes(path.read_bytes()[:-30])
        second = await run_judge(["m"], PAIRS, base_url=endpoint.url, api_key=None, out=tmp_path)
        assert len(endpoint.asked) == asked + 1
        assert first == second
        with pytest.raises(UsageError, match="other pairs"):
            await run_judge(["m"], PAIRS[:5], base_url=endpoint.url, api_key=None, out=tmp_path)


async def test_the_report_says_what_was_found_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    biased = await judged(lambda ask, names: says("2" if "number only" in ask else "1"), tmp_path / "a")
    even = await judged(fair, tmp_path / "b")
    assert sentences(biased)[0].startswith(
        "It favours the answer that it reads first by 3.00 of the scale's nine points"
    )
    assert "no preference for the answer read first" in sentences(even)[0]
    page = write_judge_report(tmp_path / "a", [biased, even], PAIRS, "toolkit judge run -m <m>").read_text("utf-8")
    assert page.count("<svg ") == 3
    assert "by 3.00 of the scale" in page
    assert "-m &lt;m&gt;" in page
    assert not any(mark in page for mark in ('src="', 'href="http', "@import", "<script"))
    assert len(list((tmp_path / "a" / "figures").iterdir())) == 6


async def test_a_report_on_replies_without_verdicts_gives_no_result(tmp_path: Path) -> None:
    found = await judged(lambda ask, names: says("Both have merits."), tmp_path)
    assert sentences(found)[0].startswith("No result:")
    assert not any("no preference" in said or "nan" in said for said in sentences(found))
    assert sum(said.startswith("Too few pairs") for said in sentences(found)) == 2
    page = write_judge_report(tmp_path, [found], PAIRS, "again").read_text("utf-8")
    assert "No result:" in page
    assert not re.search(r"<p>[^<]*\bnan\b", page)


def test_what_is_not_known_is_said_in_words() -> None:
    nothing, one = Estimate(*[float("nan")] * 3), Estimate(0.4, float("nan"), float("nan"))
    assert [points(nothing), percent(nothing), interval(nothing, ".2f")] == ["unknown"] * 3
    assert (points(one), percent(one)) == ("+40.0 points (interval unknown)", "40 % (interval unknown)")
    assert interval(Estimate(1.0, 0.5, 1.5), ".2f", " s") == "1.00 s (0.50 to 1.50)"
