import math
from pathlib import Path

import pytest

from agents.experiments.compare import Difference
from agents.experiments.inference import Estimate
from agents.experiments.quant import Place, Profile, distance, profile
from agents.experiments.quant_report import sentences, write_quant_report
from tests.agents.experiments.conftest import Serve
from toolkit.core.errors import UsageError
from toolkit.core.paths import bundled

TEXT = bundled("quant/text.txt").read_text(encoding="utf-8")


def place(chances: dict[int, float], actual: int) -> Place:
    ranked = sorted(chances.items(), key=lambda item: -item[1])
    return Place(tuple(token for token, _ in ranked), tuple(math.log(p) for _, p in ranked), math.log(chances[actual]))


def held(*windows: list[Place]) -> Profile:
    nothing = Estimate(1, 1, 1)
    return Profile(nothing, nothing, nothing, tuple(tuple(window) for window in windows))


def test_equal_models_are_at_no_distance() -> None:
    same = held([place({1: 0.7, 2: 0.3}, 1)], [place({3: 0.5, 4: 0.5}, 4)])
    found = distance(same, same)
    assert found.divergence.value == 0
    assert found.perplexity_ratio.value == 1
    assert all(estimate.value == 1 for estimate in found.jaccard.values())


def test_divergence_overlap_and_perplexity_are_those_of_the_formulas() -> None:
    one = held([place({1: 0.5, 2: 0.5}, 1)], [place({1: 0.5, 2: 0.5}, 1)])
    other = held([place({1: 0.9, 3: 0.1}, 1)], [place({1: 0.9, 3: 0.1}, 1)])
    found = distance(one, other)
    # Over token 1 and the rest: 0.5 log(0.5 / 0.9) + 0.5 log(0.5 / 0.1)
    assert found.divergence.value == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert found.jaccard[1].value == 1
    assert found.jaccard[3].value == pytest.approx(1 / 3)
    assert found.perplexity_ratio.value == pytest.approx(0.5 / 0.9)


async def test_a_text_too_short_for_two_windows_is_refused(llama: str) -> None:
    with pytest.raises(UsageError, match="two windows"):
        await profile(llama, "Too short.")


@pytest.mark.slow
async def test_a_real_model_is_at_no_distance_from_itself(serve: Serve, builtin: Path, llama: str) -> None:
    one = await profile(llama, TEXT, tokens=256)
    with serve(builtin) as url:
        other = await profile(url, TEXT, tokens=256)
    found = distance(one, other)
    assert found.divergence.value < 1e-4
    assert found.perplexity_ratio.value == pytest.approx(1, abs=1e-3)
    assert found.jaccard[1].value > 0.99
    assert one.prompt_speed.value > 0
    assert one.reply_speed.value > 0


def test_the_report_says_what_the_second_file_costs_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    one = held([place({1: 0.5, 2: 0.5}, 1)], [place({1: 0.5, 2: 0.5}, 1)])
    other = held([place({1: 0.4, 3: 0.6}, 1)], [place({1: 0.4, 3: 0.6}, 1)])
    far = distance(one, other)
    speed = {"value": 10.0}
    document = {
        "files": ["a.gguf", "b.gguf"],
        "sizes": [400, 100],
        "peak_memory": [500, 250],
        "profiles": [{"prompt_speed": speed, "reply_speed": speed}] * 2,
    }
    worse = Difference("a", "b", "accuracy", 60, Estimate(-0.1, -0.15, -0.05), 0.001, 0.002)
    same = Difference("a", "b", "position 1", 60, Estimate(0.0, -0.1, 0.1), 0.9, 0.9)
    said = sentences(document, far, [worse, same])
    assert said[0].startswith("It is 25% of the size and takes 50% of the memory")
    assert "25.0 % worse" in said[1]
    assert said[3:] == ["Tool choice, accuracy: -10.0 points (-15.0 to -5.0), p = .002."]
    rows = [("file", "400 B", "100 B", "x0.25")]
    page = write_quant_report(tmp_path, ("a<b>", "b"), rows, far, [worse, same], document, "again").read_text("utf-8")
    assert page.count("<svg ") == 2
    assert "a&lt;b&gt;" in page
    assert not any(mark in page for mark in ('src="', 'href="http', "@import", "<script"))
