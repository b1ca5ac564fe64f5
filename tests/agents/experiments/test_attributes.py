import numpy as np
import pytest

from agents.experiments.attributes import arm_effects, odds_ratio
from agents.experiments.inference import cluster_mean
from agents.experiments.planted import Planted, experiment, targets, true_shares
from agents.experiments.table import Table
from agents.experiments.trials import Trial

MODEL = Planted((0.6, 0.2, 0.0, -0.2, -0.6), (0.5, 0.0, 0.0, -0.3, 0.2), margin=1.5, invalid=0.03)


def chose_target(table: Table, aimed: np.ndarray) -> np.ndarray:
    hits = (table.chosen_tool == aimed[table.task]).astype(float)
    return hits.reshape(len(aimed), -1).mean(1)


def trials(table: Table, aimed: np.ndarray, arm: str) -> list[Trial]:
    def one(row: int) -> Trial:
        order = tuple(table.tools[tool] for tool in table.order[row])
        chosen = int(table.chosen[row])
        outcome = "invalid" if chosen < 0 else "right" if table.correct[row] else "wrong"
        return Trial(
            model="m",
            task=table.tasks[table.task[row]],
            arm=arm,
            step=str(row % 5),
            repeat=0,
            order=order,
            groups=5,
            target=None if arm == "plain" else table.tools[aimed[table.task[row]]],
            right=table.tools[table.right_tool[row]],
            right_index=int(table.right[row]),
            chosen=order[chosen] if chosen >= 0 else None,
            chosen_index=chosen if chosen >= 0 else None,
            outcome=outcome,  # type: ignore[arg-type]
            fits=None,
            calls=1,
            called=None,
            text="",
            prompt_tokens=0,
            completion_tokens=0,
            cached_tokens=0,
            cost=None,
            latency=0.0,
        )

    return [one(row) for row in range(len(table))]


def held_against(lift: float, tasks: int, runs: int) -> tuple[float, float]:
    """Bias of the log odds ratio in standard errors, and how often its interval covers what was planted."""
    before, after = true_shares(MODEL, lift)
    planted = np.log(after / (1 - after) * (1 - before) / before)
    found, covered = [], 0
    for seed in range(runs):
        aimed = targets(MODEL, tasks, seed)
        plain, dressed = (chose_target(experiment(MODEL, tasks, seed, lift=by), aimed) for by in (0.0, lift))
        estimate = odds_ratio(plain, dressed)
        found.append(np.log(estimate.value))
        covered += estimate.low <= np.exp(planted) <= estimate.high
    return abs(float(np.mean(found)) - planted) / float(np.std(found, ddof=1)), covered / runs


def test_a_planted_dressing_is_found_with_its_odds_and_nothing_where_nothing_was_planted() -> None:
    tasks, seed = 120, 3
    aimed = targets(MODEL, tasks, seed)
    plain = trials(experiment(MODEL, tasks, seed), aimed, "plain")
    dressed = trials(experiment(MODEL, tasks, seed, lift=1.5), aimed, "cue")
    same = trials(experiment(MODEL, tasks, seed), aimed, "longer")
    cue, longer = arm_effects(plain, [*dressed, *same])
    before, after = true_shares(MODEL, 1.5)
    assert cue.odds.low < after / (1 - after) * (1 - before) / before < cue.odds.high
    assert cue.change.low < after - before < cue.change.high
    assert cue.holm < 0.001
    assert (longer.odds.value, longer.change.value, longer.holm) == (1, 0, 1)


def test_tasks_that_share_their_orders_are_one_unit_of_an_arm_too() -> None:
    tasks, seed = 120, 4
    aimed = targets(MODEL, tasks, seed)
    table = experiment(MODEL, tasks, seed, pool=6)
    lifted = experiment(MODEL, tasks, seed, lift=1.5, pool=6)
    plain, dressed = trials(table, aimed, "plain"), trials(lifted, aimed, "cue")
    assert table.unit is not None
    units = dict(zip(table.tasks, table.unit.tolist(), strict=True))
    (by_task,), (by_unit,) = arm_effects(plain, dressed), arm_effects(plain, dressed, units)
    assert (by_unit.tasks, by_unit.trials) == (by_task.tasks, by_task.trials) == (120, 600)
    assert by_unit.change.value == pytest.approx(by_task.change.value)
    moved = (chose_target(lifted, aimed) - chose_target(table, aimed)).reshape(6, -1).mean(1)
    expected = cluster_mean(moved, grain=6 / 600)
    assert (by_unit.change.low, by_unit.change.high) == pytest.approx((expected.low, expected.high))


def test_the_odds_ratio_is_unbiased_and_its_interval_covers() -> None:
    bias, coverage = held_against(1.5, 60, 200)
    assert bias < 0.25  # 200 runs place the mean within 0.07 standard errors
    assert 0.91 <= coverage <= 0.985


def test_where_nobody_chose_the_tool_the_odds_ratio_is_finite() -> None:
    found = odds_ratio(np.zeros(30), np.full(30, 0.2))
    assert 1 < found.value < 100
    assert np.isfinite(found.high)


def test_where_no_choice_moved_the_odds_ratio_has_an_interval_all_the_same() -> None:
    found = odds_ratio(np.full(30, 0.2), np.full(30, 0.2), grain=0.2)
    assert found.value == 1
    assert found.low < 0.95 < 1.05 < found.high


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [30, 60, 120])
@pytest.mark.parametrize("lift", [0.7, 3.0])
def test_over_a_thousand_runs_the_odds_ratio_has_little_bias_and_covers(lift: float, tasks: int) -> None:
    bias, coverage = held_against(lift, tasks, 1000)
    assert bias < 0.1
    assert 0.93 <= coverage <= 0.97
