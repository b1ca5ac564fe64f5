"""Memory arithmetic: against published figures, against llama.cpp's own report, and its invariants."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._made_models import KINDS, Made, write
from benchmarks.fit_accuracy import compare
from gateway.models import catalogue, fit, gguf
from gateway.models.architecture import Architecture, Layers, from_header
from gateway.models.fit import Choice, Memory, Room

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "at_32k", "at_64k"),
    [
        ("gemma-4-e2b", 0.20, 0.39),
        ("gemma-4-e4b", 0.54, 1.04),
        ("gemma-4-26b-a4b", 0.92, 1.54),
        ("gemma-4-31b", 3.67, 6.17),
        ("mistral-small-3.2", 5.0, 10.0),
    ],
)
def test_the_catalogue_gives_the_known_kv_sizes(name: str, at_32k: float, at_64k: float) -> None:
    shape = catalogue.read().find(name).architecture(name)
    assert fit.kv_bytes(shape, 32_768) / GIB == pytest.approx(at_32k, abs=0.006)
    assert fit.kv_bytes(shape, 65_536) / GIB == pytest.approx(at_64k, abs=0.006)


def test_a_user_measured_gemma_e4b_at_32k_over_4_slots() -> None:
    shape = catalogue.read().find("gemma-4-e4b").architecture("gemma-4-e4b")
    weights = 8_192_951_456  # its Q8_0 file
    need = fit.memory(shape, weights, 8192, slots=4)
    assert need.total / 2**20 == pytest.approx(9965, rel=0.12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("context", "slots", "kv"), [(4096, 1, "f16"), (2048, 3, "q8_0")])
def test_the_estimate_is_within_3_percent_of_what_llama_cpp_allocates(
    tmp_path: Path, kind: str, context: int, slots: int, kv: str
) -> None:
    row = compare(kind, tmp_path, context, slots, kv)
    assert row.estimated == pytest.approx(row.reported, rel=0.03)
    assert row.kv_estimated == pytest.approx(row.kv_reported, abs=0.02)


def test_layers_that_share_a_cache_are_not_counted(tmp_path: Path) -> None:
    shape = from_header(gguf.read_file(write(KINDS["gemma4"], tmp_path / "shared.gguf")))
    assert sum(group.count for group in shape.layers) == KINDS["gemma4"].layers - KINDS["gemma4"].shared
    assert shape.exact


def test_a_header_without_the_numbers_is_marked_inexact(tmp_path: Path) -> None:
    path = write(Made("llama"), tmp_path / "x.gguf")
    header = gguf.read_file(path)
    bare = gguf.Header(3, {"general.architecture": "mamba", "mamba.block_count": 4}, header.tensors, 0)
    assert not from_header(bare).exact


SHAPE = Architecture("x", (Layers(4, 1024, 1024), Layers(20, 512, 512, sliding=True)), 131_072, 1024, 2048, 8192, 2048)


@given(context=st.integers(256, 131_072), slots=st.integers(1, 16))
def test_memory_grows_with_context_and_is_linear_in_slots(context: int, slots: int) -> None:
    one = fit.kv_bytes(SHAPE, context)
    assert fit.kv_bytes(SHAPE, context + 256) > one
    assert fit.kv_bytes(SHAPE, context, slots=slots) == one * slots


@given(ram=st.integers(0, 64), vram=st.integers(0, 64), weights=st.integers(1, 40))
def test_the_largest_context_fits_and_the_next_step_does_not(ram: int, vram: int, weights: int) -> None:
    room = Room(ram * GIB, vram * GIB)
    found = fit.largest_context(SHAPE, weights * GIB, room)
    if found:
        assert fit.verdict(fit.memory(SHAPE, weights * GIB, found), room).fits
    if found < SHAPE.context:
        more = max(found, fit.MIN_CONTEXT - fit.PAD) + fit.PAD
        assert not fit.verdict(fit.memory(SHAPE, weights * GIB, more), room).fits


def test_a_model_goes_to_the_gpu_then_over_both_then_nowhere() -> None:
    need = Memory(10 * GIB, 0, GIB, GIB)
    assert fit.verdict(need, Room(4 * GIB, 12 * GIB)) == (True, "gpu", 0)
    assert fit.verdict(need, Room(8 * GIB, 6 * GIB)).where == "split"
    assert fit.verdict(need, Room(2 * GIB, 6 * GIB)) == (False, "none", 5 * GIB)
    assert fit.verdict(need, Room(12 * GIB)).where == "ram"
    assert fit.verdict(need, Room(12 * GIB, unified=True)).where == "gpu"


def test_the_best_quantisation_is_the_largest_that_fits_the_gpu_wholly() -> None:
    choices = [Choice("Q4_K_M", 5 * GIB), Choice("Q8_0", 9 * GIB), Choice("F16", 16 * GIB)]
    assert fit.best(choices, SHAPE, Room(32 * GIB, 9 * GIB), 8192) == choices[0]
    assert fit.best(choices, SHAPE, Room(32 * GIB), 8192) == choices[2]
    assert fit.best(choices, SHAPE, Room(2 * GIB), 8192) is None
