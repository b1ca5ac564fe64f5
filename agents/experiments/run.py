"""Run an experiment from its plan to its summary: load the suite, take the tools from their servers, ask, score,
write each trial down as it ends. The same call on the same folder goes on where it stopped.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from agents.chat_model import ModelError, OpenAIChatModel
from agents.experiments.analysis import Analysis, ModelAnalysis, analyse, write_summary
from agents.experiments.choosers import CallChooser, Choice, Chooser
from agents.experiments.designs import Cell, cells
from agents.experiments.experiment import Experiment
from agents.experiments.identity import slots
from agents.experiments.inference import Estimate
from agents.experiments.logprob import LogprobChooser, engine_at
from agents.experiments.planning import Prepared, Probe, probed
from agents.experiments.runner import Pace, ask_all
from agents.experiments.scoring import Verdict
from agents.experiments.suites import Task, load_suite
from agents.experiments.trials import TRIALS, Journal, Manifest, Trial, continued, differences, has_trials, read_trials
from agents.react import ReActModel
from agents.tool_host import McpToolHost, Tool
from toolkit.core.errors import UsageError

RETRIES = 4
ELSE = 4  # questions at once where nothing is known of the server


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
    seconds: float  # sum over calls; several are under way at once
    headline: str | None


@dataclass(frozen=True)
class Summary:
    """The experiment's result in short; everything else is in the folder `out`."""

    out: Path
    models: tuple[ModelSummary, ...]


async def prepare(experiment: Experiment, tools: Sequence[Tool] | None = None) -> Prepared:
    """Load the suite and resolve its tools, from `tools` or from the MCP servers that the suite names."""
    suite = load_suite(experiment.suite)
    if tools is None and suite.servers:
        async with McpToolHost(list(suite.servers)) as host:
            tools = host.tools()
    sets = suite.resolve(tools or ())
    drawn = suite.draw(experiment.tasks)
    planned = cells(drawn, sets, experiment.design, experiment.arms, experiment.seed)
    told = {label: [tool.openai() for tool in listed.values()] for label, listed in sets.items()}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return Prepared(experiment, drawn, sets, planned, digest)


async def run_experiment(
    experiment: Experiment,
    *,
    base_url: str,
    api_key: str | None,
    out: Path,
    direct: Mapping[str, str] | None = None,
    identities: Mapping[str, str] | None = None,
    tools: Sequence[Tool] | None = None,
    repeats: Manifest | None = None,
    concurrency: int | None = None,
    timeout: float = 600.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Run (or resume) `experiment` through the OpenAI-compatible endpoint `base_url` (ends in /v1), into folder `out`.

    `direct` names for each model the llama.cpp or vLLM server behind it, for mode `logprob`; `identities` the digest
    of each model's file, where known; `tools` replaces the tools that the suite takes from MCP servers; `repeats`
    is the manifest of an experiment that this one repeats: what has changed since is noted. `concurrency` is the most
    questions under way at once (see `at_once`), `timeout` the longest silence in seconds.
    `progress(done, total)` counts trials over all models. Raises UsageError if `out` holds another experiment,
    ToolkitError if the endpoint cannot be used.
    """
    prepared = await prepare(experiment, tools)
    wanted = Manifest.new(experiment, prepared.suite.digest, prepared.tools_digest, identities or {}, base_url)
    continued(out, wanted)
    if repeats and repeats.experiment.suite == experiment.suite:
        for what, old, new in differences(repeats, wanted):
            note(f"this is no exact repetition: {what} was {old}, now it is {new}")
    known = {trial.key for trial in read_trials(out) if trial.outcome != "error"} if has_trials(out) else set()
    left = {model: [cell for cell in prepared.cells if (model, *cell.key) not in known] for model in experiment.models}
    total = len(prepared.cells) * len(experiment.models)
    done = total - sum(map(len, left.values()))
    if 0 < done < total:
        note(f"going on with {out}: {done} of {total} trials are there")
    progress(done, total)
    with Journal(out / TRIALS) as journal:
        for model in experiment.models:
            if not left[model]:
                continue
            pace = Pace(await asyncio.to_thread(at_once, concurrency, (direct or {}).get(model)))
            async with AsyncExitStack() as stack:
                chooser = await _chooser(stack, experiment, model, base_url, api_key, direct or {}, pace, timeout)

                async def ask(cell: Cell, chooser: Chooser = chooser) -> Choice:
                    seed = _seed(experiment, cell) if experiment.temperature > 0 else None
                    return await chooser.choose(prepared.tasks[cell.task], prepared.offer(cell), seed=seed)

                def ended(cell: Cell, choice: Choice, model: str = model) -> None:
                    nonlocal done
                    journal.write(_trial(model, prepared.tasks[cell.task], cell, choice))
                    done += 1
                    progress(done, total)

                def failed(cell: Cell, error: ModelError, model: str = model) -> None:
                    ended(cell, Choice(Verdict("error"), text=error.message[:300]), model)

                await ask_all(left[model], ask, pace=pace, done=ended, failed=failed)
    analysis = analyse(out)
    write_summary(out, analysis)
    return Summary(out, tuple(summary(model) for model in analysis.models))


def at_once(wanted: int | None, url: str | None) -> int:
    """How many questions to have under way: as many as are wanted, else as the llama.cpp server at `url` has slots
    (with more, they would push each other's prompts out of its cache), else ELSE."""
    return wanted or (slots(url) if url else None) or ELSE


async def probe_model(
    prepared: Prepared,
    model: str,
    base_url: str,
    api_key: str | None,
    direct: Mapping[str, str],
    *,
    count: int,
    timeout: float = 600.0,
) -> Probe:
    """Ask a few cells to learn what one takes. Raises ToolkitError if none is answered."""
    async with AsyncExitStack() as stack:
        chooser = await _chooser(stack, prepared.experiment, model, base_url, api_key, direct, Pace(1), timeout)
        return await probed(prepared, chooser, count)


def summarise(analysis: Analysis, out: Path) -> Summary:
    """The short form of an analysis."""
    return Summary(out, tuple(summary(model) for model in analysis.models))


def summary(model: ModelAnalysis) -> ModelSummary:
    """The short form of one model's analysis."""
    measures = model.measures
    return ModelSummary(
        model=model.model,
        tasks=measures.tasks,
        trials=sum(model.outcomes.values()),
        accuracy=measures.accuracy,
        effects=tuple(effect.effect for effect in measures.effects),
        p_value=measures.p_value,
        outcomes=model.outcomes,
        calls=model.cost.calls,
        prompt_tokens=model.cost.prompt_tokens,
        completion_tokens=model.cost.completion_tokens,
        cached_tokens=model.cost.cached_tokens,
        cost=model.cost.money,
        seconds=model.cost.seconds,
        headline=measures.headline,
    )


async def _chooser(
    stack: AsyncExitStack,
    experiment: Experiment,
    model: str,
    base_url: str,
    api_key: str | None,
    direct: Mapping[str, str],
    pace: Pace,
    timeout: float,
) -> Chooser:
    limits = httpx.Limits(max_connections=pace.most + 1, max_keepalive_connections=pace.most + 1)
    client = await stack.enter_async_context(httpx.AsyncClient(limits=limits))
    if experiment.mode == "logprob":
        if model not in direct:
            raise UsageError(
                f"mode logprob talks to llama.cpp or vLLM itself, and no such server is known behind {model}",
                hint="--direct http://127.0.0.1:PORT, or --mode call",
            )
        engine = await engine_at(direct[model], model, client, timeout=timeout)
        return LogprobChooser(engine, system=experiment.system)
    asked = OpenAIChatModel(base_url, api_key, model, client, timeout=timeout, retries=RETRIES, sleep=pace.wait)
    return CallChooser(
        ReActModel(asked) if experiment.mode == "react" else asked,
        temperature=experiment.temperature,
        max_tokens=experiment.max_tokens,
        tool_choice=experiment.tool_choice,
        system=experiment.system,
    )


def _trial(model: str, task: Task, cell: Cell, choice: Choice) -> Trial:
    chosen = choice.verdict.chosen
    return Trial(
        model=model,
        task=cell.task,
        arm=cell.arm,
        step=cell.step,
        repeat=cell.repeat,
        order=cell.order,
        groups=cell.groups,
        target=cell.target,
        right=task.right,
        right_index=cell.order.index(task.right) if task.right in cell.order else None,
        chosen=chosen,
        chosen_index=cell.order.index(chosen) if chosen is not None else None,
        outcome=choice.verdict.outcome,
        fits=choice.verdict.fits,
        calls=choice.calls,
        called=choice.called,
        text=choice.text,
        prompt_tokens=choice.usage.prompt_tokens,
        completion_tokens=choice.usage.completion_tokens,
        cached_tokens=choice.usage.cached_tokens,
        cost=choice.cost,
        latency=round(choice.latency, 4),
        requests=choice.requests,
        probabilities=choice.probabilities,
        opening=choice.opening,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def _seed(experiment: Experiment, cell: Cell) -> int:
    """A sampling seed of its own for each cell, the same whenever it is asked."""
    text = json.dumps([experiment.seed, *cell.key])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF
