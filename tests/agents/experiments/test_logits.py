"""Two quantisations read by llama-cpp-python: the arithmetic on made numbers, the reading on real models."""

import math
from pathlib import Path

import numpy as np
import pytest

from agents.experiments.logits import Measured, log_softmax, measure, read_exactly, summed
from agents.experiments.quant import PROMPT, SKIP, WINDOW, distance, profile, speed
from benchmarks._made_models import KINDS, write
from gateway.models.builtin import SKEWED
from tests.agents.experiments.conftest import Serve
from toolkit.core.errors import ToolkitError, UsageError
from toolkit.core.paths import bundled

TEXT = bundled("quant/text.txt").read_text(encoding="utf-8")


def logs(*rows: list[float]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.log(np.array(rows, dtype=np.float32))


def test_one_window_is_measured_as_the_formulas_say() -> None:
    one = logs([0.5, 0.3, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25])
    other = logs([0.3, 0.5, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1])
    found = measure(one, other, [0, 3])
    assert found.losses == pytest.approx((-math.log(0.5 * 0.25) / 2, -math.log(0.3 * 0.1) / 2))
    first = 0.5 * math.log(0.5 / 0.3) + 0.3 * math.log(0.3 / 0.5)
    second = 0.25 * math.log(0.25 / 0.7) + 3 * 0.25 * math.log(0.25 / 0.1)
    assert found.divergence == pytest.approx((first + second) / 2, rel=1e-5)
    # Of the first place the likeliest differ; four tokens are all there are of ten.
    assert found.jaccard[0] in (0.0, 0.5)
    assert found.jaccard[3:] == (1.0, 1.0)


def test_the_likeliest_tokens_are_found_in_a_vocabulary_of_any_order() -> None:
    random = np.random.default_rng(3)
    one, other = (np.log(random.dirichlet(np.ones(500), size=7)).astype(np.float32) for _ in range(2))
    for place, top in enumerate((1, 3, 5, 10, 20)):
        shares = []
        for a, b in zip(one, other, strict=True):
            first, second = set(np.argsort(-a)[:top].tolist()), set(np.argsort(-b)[:top].tolist())
            shares.append(len(first & second) / len(first | second))
        assert measure(one, other, [0] * 7).jaccard[place] == pytest.approx(np.mean(shares))


def test_logits_become_probabilities_and_a_token_that_a_model_rules_out_spoils_no_mean() -> None:
    found = log_softmax(np.array([[1000.0, 1000.0, -np.inf], [0.0, math.log(3), -np.inf]], dtype=np.float32))
    assert np.exp(found) == pytest.approx(np.array([[0.5, 0.5, 0], [0.25, 0.75, 0]]))
    assert measure(found, found, [0, 1]).divergence == 0
    other = log_softmax(np.array([[0.0, 0.0, 0.0]] * 2, dtype=np.float32))
    assert math.isfinite(measure(other, found, [2, 2]).losses[1])


def test_windows_are_the_sampling_unit_and_the_ratio_of_perplexities_is_paired() -> None:
    found = summed([Measured((1.0, 1.1), 0.2, (1.0,) * 5), Measured((3.0, 3.1), 0.4, (0.5,) * 5)])
    assert found.perplexities[0].value == pytest.approx(math.exp(2.0))
    ratio = found.distance.perplexity_ratio
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((math.exp(0.1),) * 3)
    assert found.distance.divergence.value == pytest.approx(0.3)
    assert found.distance.exact


@pytest.mark.usefixtures("llama_cpp_python")
def test_a_model_is_at_no_distance_from_its_copy(builtin: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(builtin.read_bytes())
    scratch = tmp_path / "scratch"
    steps: list[tuple[int, int]] = []
    found = read_exactly(
        builtin, copy, TEXT, tokens=2 * WINDOW, threads=1, scratch=scratch, step=lambda *at: steps.append(at)
    )
    assert found.distance.divergence.value == 0
    assert found.distance.perplexity_ratio.value == 1
    assert set(found.distance.jaccard.values()) == {found.distance.jaccard[1]}
    assert found.distance.jaccard[1].value == 1
    assert found.distance.places == 2 * (WINDOW - SKIP)
    assert steps[-1] == (4 * (WINDOW - SKIP), 4 * (WINDOW - SKIP))
    assert list(scratch.iterdir()) == []  # what was kept on disk is gone


@pytest.mark.slow
@pytest.mark.usefixtures("llama_cpp_python")
async def test_in_process_and_by_server_the_same_is_found_and_the_whole_vocabulary_diverges_no_less(
    builtin: Path, serve: Serve, llama: str, tmp_path: Path
) -> None:
    exact = read_exactly(builtin, SKEWED, TEXT, tokens=2 * WINDOW, threads=1, scratch=tmp_path)
    one = await profile(llama, TEXT, tokens=2 * WINDOW)
    with serve(SKEWED) as url:
        other = await profile(url, TEXT, tokens=2 * WINDOW)
    bound = distance(one, other)
    # Not to the last digit: the two builds of llama.cpp add up in another order.
    assert exact.perplexities[0].value == pytest.approx(one.perplexity.value, rel=0.02)
    assert exact.perplexities[1].value == pytest.approx(other.perplexity.value, rel=0.02)
    assert exact.distance.perplexity_ratio.value == pytest.approx(bound.perplexity_ratio.value, rel=0.02)
    assert exact.distance.jaccard[10].value == pytest.approx(bound.jaccard[10].value, abs=0.05)
    assert not bound.exact
    assert exact.distance.divergence.value > 0.98 * bound.divergence.value > 0


@pytest.mark.usefixtures("llama_cpp_python")
def test_models_of_different_tokenizers_are_refused(builtin: Path, tmp_path: Path) -> None:
    made = write(KINDS["llama"], tmp_path / "made.gguf")
    with pytest.raises(UsageError, match="do not share a tokenizer"):
        read_exactly(builtin, made, TEXT, tokens=2 * WINDOW, threads=1, scratch=tmp_path)


@pytest.mark.usefixtures("llama_cpp_python")
def test_a_file_that_cannot_be_loaded_is_said_with_another_way(builtin: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(builtin.read_bytes()[:100_000])
    with pytest.raises(ToolkitError, match="cannot load") as caught:
        read_exactly(builtin, cut, TEXT, tokens=2 * WINDOW, threads=1, scratch=tmp_path)
    assert caught.value.hint == "--engine server"


@pytest.mark.usefixtures("llama_cpp_python")
def test_probabilities_that_do_not_fit_the_disk_are_refused_before_they_are_read(
    builtin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.experiments import logits

    monkeypatch.setattr(logits.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(ToolkitError, match="1000 B are free") as caught:
        read_exactly(builtin, SKEWED, TEXT, tokens=2 * WINDOW, threads=1, scratch=tmp_path)
    assert caught.value.hint
    assert "--tokens" in caught.value.hint


async def test_speed_alone_is_measured_without_reading_the_text(llama: str) -> None:
    found = await speed(llama, TEXT[: PROMPT * 3])
    assert found.prompt.value > 0
    assert found.reply.value > 0
