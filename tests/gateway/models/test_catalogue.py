"""The catalogue as shipped, and with a user's own."""

from pathlib import Path

import pytest

from gateway.models import catalogue, overview
from gateway.models.machine import Machine
from toolkit.core.errors import UsageError
from toolkit.core.paths import config_dir

OWN = """
models:
  tiny:
    title: Tiny
    licence: MIT
    context: 4096
    layers: [{count: 2, kv_heads: 1, head: 64}]
    gguf: [{repository: me/tiny-GGUF, quant: Q8_0, size: 1000000}]
"""


def test_it_holds_what_it_should() -> None:
    assert set(catalogue.read().models) == {
        "gemma-4-e2b",
        "gemma-4-e4b",
        "gemma-4-26b-a4b",
        "gemma-4-31b",
        "mistral-small-3.2",
    }
    for entry in catalogue.read().models.values():
        assert entry.gguf
        assert entry.ollama is not None
        assert entry.licence == "Apache-2.0"


def test_a_users_own_entries_come_beside_the_shipped_ones() -> None:
    path = config_dir() / "models.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(OWN)
    assert catalogue.read().find("tiny").title == "Tiny"
    assert "gemma-4-e4b" in catalogue.read().models


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            OWN.replace("    context: 4096", "    context: 4096\n    rolles: []"),
            "models.tiny.rolles: did you mean roles",
        ),
        (OWN.replace("me/tiny-GGUF", "../../etc"), "repository"),
        (OWN.replace("count: 2", "count: -2"), "count"),
        ("models: [", "not valid YAML"),
    ],
)
def test_a_faulty_file_is_refused_by_its_path(wrong: str, said: str) -> None:
    path = config_dir() / "models.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(wrong)
    with pytest.raises(UsageError, match=said):
        catalogue.read()


def test_what_fits_depends_on_the_machine(home: Path) -> None:
    small = overview.offered(catalogue.read(), Machine("x", "x", 2, 8 * 2**30, 6 * 2**30))
    assert {row.name for row in small if row.fits} == {"gemma-4-e2b", "gemma-4-e4b"}
    large = overview.offered(catalogue.read(), Machine("x", "x", 2, 64 * 2**30, 60 * 2**30))
    assert all(row.fits for row in large)
    assert all(row.largest_context <= row.trained_context for row in large)
