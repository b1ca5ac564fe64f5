from pathlib import Path

import pytest

from agents.experiments.arms import ARMS
from agents.experiments.experiment import Experiment
from agents.experiments.suites import load_suite
from toolkit.core.config import read_yaml, validate
from toolkit.core.paths import bundled

FILES = sorted(bundled("experiments").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_that_comes_with_the_toolkit_can_be_run(path: Path) -> None:
    experiment = validate(Experiment, read_yaml(path), str(path))
    assert set(experiment.arms) <= set(ARMS)
    assert load_suite(experiment.suite).tasks


def test_there_is_the_original_experiment() -> None:
    original = Experiment.model_validate(read_yaml(bundled("experiments/original.yaml")))
    assert (original.design.kind, original.design.n, original.design.repeats) == ("random", 10, 0)
