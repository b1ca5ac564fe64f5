"""What the tool-order experiment costs for a given precision, against the original way, on one llama.cpp in one run.

The original way: ten random orders a task, one call at a time, task after task. Ours: rotation blocks in a sequence
that shares prompts, over all slots; and exact probabilities. Time to a width is calls needed times seconds a call.

Seconds a call are measured on a model of 300 MB with random weights, where inference is the cost, and on the built-in
one, where the rest is. Calls needed come from the spread of the built-in model's choices between tasks, under the same
designs: random weights choose nothing. The large model gets the first SAMPLE trials of each sequence, which is unkind
to ours: each slot begins with an empty cache. What was asked is then sent straight to a fresh llama.cpp, to see what
our side costs.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import httpx
import numpy as np
from scipy import stats

from agents.experiments import designs, run
from agents.experiments.designs import Cell
from agents.experiments.experiment import Design, Experiment
from agents.experiments.trials import Trial, read_trials
from benchmarks import _made_chooser
from gateway.models.builtin import BALANCED
from gateway.process import Child, free_port
from gateway.upstreams.llamacpp import LlamaServerSpec, command

SLOTS = 4
POINTS = 2.0  # the interval's half width that times are scaled to
REPLY = 24  # tokens, of a call with one short argument; random weights go on until they are stopped
GROUPS = {"five-tools": 5, "catalogue": 8}  # of positions
BARS = {"rotation": 10, "logprob": 50}
ORIGINAL = Design(kind="random", n=10, repeats=0)
OURS = Design(repeats=0)
SAMPLE = {  # trials asked of the large model
    "five-tools": {"original": 20, "rotation": 100, "logprob": 160},
    "catalogue": {"original": 6, "rotation": 60, "logprob": 80},
}
TASKS = {"five-tools": 120, "catalogue": 40}  # asked of the built-in model
Sent = dict[Any, list[tuple[str, bytes]]]  # by worker: path and body


class Way(NamedTuple):
    """One way of running it. `evaluated` are the prompt tokens a trial that llama.cpp computed, as it says."""

    seconds: float
    trials: Sequence[Trial]
    sent: Sent

    @property
    def evaluated(self) -> float:
        return float(np.mean([trial.prompt_tokens - trial.cached_tokens for trial in self.trials]))

    @property
    def each(self) -> float:
        """Seconds a trial."""
        return self.seconds / len(self.trials)


def main() -> None:
    """Print each way for five and for forty tools, on both models."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = _made_chooser.write(folder / "made.gguf")
        print(f"times to an interval of +-{POINTS:g} points; {SLOTS} slots")
        for suite in GROUPS:
            small = {name: _asked(BALANCED, suite, name, folder / f"small-{suite}-{name}") for name in _WAYS}
            calls = {name: _calls_needed(way.trials, GROUPS[suite], name) for name, way in small.items()}
            _print(f"{suite}, {BALANCED.name}", small, calls)
            large = {name: _asked(made, suite, name, folder / f"large-{suite}-{name}", cut=True) for name in _WAYS}
            _print(f"{suite}, random weights, {made.stat().st_size / 1e6:.0f} MB", large, calls, bars=BARS)
            for name in BARS:
                alone = _replayed(made, large[name].sent, folder / f"alone-{suite}-{name}")
                share = alone / large[name].seconds
                print(f"  {name}: {share:.0%} of the throughput of llama.cpp alone (bar: 90 %)", flush=True)


_WAYS: Mapping[str, tuple[int, str, Design]] = {
    "original": (1, "call", ORIGINAL),
    "rotation": (SLOTS, "call", OURS),
    "logprob": (SLOTS, "logprob", OURS),
}


def _asked(model: Path, suite: str, name: str, out: Path, *, cut: bool = False) -> Way:
    """Run one way on a server of its own, whole or only the first of its trials."""
    workers, mode, design = _WAYS[name]
    experiment = Experiment.model_validate(
        {"models": ["m"], "suite": suite, "design": design, "mode": mode, "max_tokens": REPLY if cut else 64}
        | ({} if cut else {"tasks": TASKS[suite]})
    )
    began = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal began, ended
        ended = time.perf_counter()
        if not done:
            began = ended

    ended = 0.0
    sent: Sent = {}
    with ExitStack() as stack:
        url = stack.enter_context(_served(model, out))
        stack.enter_context(patch.object(run.httpx, "AsyncClient", _recording(sent)))
        if name == "original":
            stack.enter_context(patch.object(designs, "in_sequence", _task_by_task))
        if cut:
            planned, most = run.cells, SAMPLE[suite][name]
            stack.enter_context(patch.object(run, "cells", lambda *given: planned(*given)[:most]))
        asyncio.run(
            run.run_experiment(
                experiment,
                base_url=f"{url}/v1",
                api_key=None,
                out=out,
                direct={"m": url},
                concurrency=workers,
                progress=progress,
            )
        )
    return Way(ended - began, read_trials(out), sent)


def _replayed(model: Path, sent: Sent, out: Path) -> float:
    """Seconds that the same questions take when they are sent straight to a fresh server, by as many workers."""

    async def worker(client: httpx.AsyncClient, requests: Sequence[tuple[str, bytes]]) -> None:
        for path, body in requests:
            answer = await client.post(path, content=body, headers={"content-type": "application/json"})
            answer.raise_for_status()

    async def everything(url: str) -> float:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            began = time.perf_counter()
            await asyncio.gather(*(worker(client, requests) for requests in sent.values()))
            return time.perf_counter() - began

    with _served(model, out) as url:
        return asyncio.run(everything(url))


def _calls_needed(trials: Sequence[Trial], groups: int, name: str) -> float:
    """Calls to an interval of +- POINTS, root mean square over positions: the tasks that the spread between tasks asks
    for, times the calls of a task. The original's effect of a position is its share of the choices less that of the
    right tool, ours its share less an equal one; both in the same groups of positions."""
    tasks: dict[str, list[np.ndarray]] = {}
    for trial in trials:
        size = len(trial.order)
        fell = np.zeros(size)
        if trial.probabilities is not None:
            fell[:] = trial.probabilities
        elif trial.chosen_index is not None:
            fell[trial.chosen_index] = 1
        fair = np.full(size, fell.sum() / size)
        if name == "original":
            fair = np.zeros(size)
            fair[trial.right_index] = 1
        tasks.setdefault(trial.task, []).append((fell - fair).reshape(groups, -1).sum(1))
    means = np.array([np.mean(values, axis=0) for values in tasks.values()])
    variance = float(means.var(0, ddof=1).mean())
    wanted = variance * (stats.norm.ppf(0.975) / (POINTS / 100)) ** 2
    return wanted * len(trials) / len(tasks)


def _print(
    title: str, ways: Mapping[str, Way], calls: Mapping[str, float], bars: Mapping[str, int] | None = None
) -> None:
    print(f"{title}\n  way         trials  s/trial  evaluated/trial  calls to +-{POINTS:g}  seconds to it  ratio")
    base = ways["original"].each * calls["original"]
    for name, way in ways.items():
        seconds = way.each * calls[name]
        bar = f"   (bar: {bars[name]})" if bars and name in bars else ""
        print(
            f"  {name:<10}{len(way.trials):8}{way.each:9.3f}{way.evaluated:17.0f}{calls[name]:13.0f}"
            f"{seconds:15.1f}{base / seconds:7.1f}{bar}",
            flush=True,
        )


def _task_by_task(planned: Sequence[Cell]) -> list[Cell]:
    """The sequence of the original experiment."""
    return list(planned)


def _recording(sent: Sent) -> type[httpx.AsyncClient]:
    """A client that keeps the questions each worker sends."""

    class Recording(httpx.AsyncClient):
        async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
            if request.url.path in ("/completion", "/v1/chat/completions"):
                sent.setdefault(asyncio.current_task(), []).append((request.url.path, request.content))
            return await super().send(request, **options)

    return Recording


@contextmanager
def _served(model: Path, out: Path) -> Iterator[str]:
    """A llama.cpp with an empty cache."""
    port = free_port()
    spec = LlamaServerSpec(model, "m", context=4096, slots=SLOTS, port=port)
    out.mkdir(parents=True)
    child = Child("m", command(spec), log=out / "log")
    try:
        child.wait_until(f"http://127.0.0.1:{port}/health", timeout=120)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


if __name__ == "__main__":
    main()
