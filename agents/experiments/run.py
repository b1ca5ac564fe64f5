"""Run an experiment from its plan to its summary: load the suite, take the tools from their servers, ask, score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.experiments.experiment import Experiment
from agents.tool_host import Tool


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval, as shares (0.03 is three percentage points)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelSummary:
    """What one model did. `effects[p]` is the average marginal effect of standing at position p, first is 0.

    `p_value` is that of the permutation test: could these choices have come from a model that ignores the order?
    `headline` is None when the effects may be shown as a result, else the sentence that says why not.
    """

    model: str
    tasks: int
    trials: int
    accuracy: Estimate
    effects: tuple[Estimate, ...]
    p_value: float
    outcomes: Mapping[str, int]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: int  # nano-dollars
    seconds: float
    headline: str | None


@dataclass(frozen=True)
class Summary:
    """The experiment's result in short; everything else is in the folder `out`."""

    out: Path
    models: tuple[ModelSummary, ...]


async def run_experiment(
    experiment: Experiment,
    *,
    base_url: str,
    api_key: str | None,
    out: Path,
    direct: Mapping[str, str] | None = None,
    tools: Sequence[Tool] | None = None,
    concurrency: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Run (or resume) `experiment` through the OpenAI-compatible endpoint `base_url` (ends in /v1), into folder `out`.

    `direct` names for each model the llama.cpp server behind it, for mode `logprob`; `tools` replaces the tools that
    the suite takes from MCP servers. `progress(done, total)` counts trials over all models.
    Raises UsageError if `out` holds another experiment, ToolkitError if the endpoint cannot be used at all.
    """
    raise NotImplementedError
