from dataclasses import replace
from pathlib import Path

import pytest

from agents.experiments.compare import Entry, compare, entries
from agents.experiments.experiment import Design, Experiment
from agents.experiments.planted import Planted, experiment
from agents.experiments.run import run_experiment
from gateway.models.builtin import BALANCED, SKEWED
from tests.agents.experiments.conftest import Serve
from toolkit.core.errors import UsageError


@pytest.mark.slow
async def test_the_two_built_in_models_are_told_apart_by_the_first_position(serve: Serve, tmp_path: Path) -> None:
    for path in (BALANCED, SKEWED):
        with serve(path) as url:
            await run_experiment(
                Experiment(models=[path.stem], suite="twins", tasks=36, mode="logprob", design=Design(repeats=0)),
                base_url=f"{url}/v1",
                api_key=None,
                out=tmp_path / path.stem,
                direct={path.stem: url},
                concurrency=2,
            )
    found = {row.measure: row for row in compare(entries([tmp_path / BALANCED.stem, tmp_path / SKEWED.stem]))}
    assert found["position 1"].difference.low > 0
    assert found["position 1"].holm < 0.05
    assert found["position 5"].difference.high < 0


def test_two_models_that_agree_on_every_task_are_not_said_to_agree_on_all_tasks_there_are() -> None:
    sure = Planted((0.0,) * 5, (0.0,) * 5, margin=50.0)
    one = Entry("one", Path(), experiment(sure, 30, 1))
    found = compare([one, replace(one, label="other")])
    assert all(row.difference.low < 0 < row.difference.high and row.p_value == 1.0 for row in found)


def test_runs_that_share_orders_among_other_tasks_are_compared_by_the_one_that_says_less() -> None:
    model = Planted((1.0, 0.5, 0, 0, 0, 0, -0.5, -1.0), (1.0, 0.5, 0, 0, 0, 0, -0.5, -1.0), margin=1.0)
    one, other = experiment(model, 96, 1, pool=8), experiment(model, 96, 2)
    both = compare([Entry("one", Path(), one), Entry("other", Path(), other)])
    free = compare([Entry("one", Path(), replace(one, unit=None)), Entry("other", Path(), other)])
    swapped = replace(other, unit=one.unit)
    turned = compare([Entry("one", Path(), replace(one, unit=None)), Entry("other", Path(), swapped)])
    assert [row.difference for row in both] == [row.difference for row in turned]
    assert all(b.difference.error >= f.difference.error for b, f in zip(both, free, strict=True))
    assert [b.difference.value for b in both] == pytest.approx([f.difference.value for f in free])
    assert any(b.difference.error > f.difference.error for b, f in zip(both, free, strict=True))


def test_a_folder_without_an_experiment_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no experiment"):
        entries([tmp_path])
