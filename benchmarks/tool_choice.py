"""What the tool-order experiment costs for a given precision, against the original way, on one llama.cpp in one run.

The original way: ten random orders a task, one call at a time, task after task, straight to llama.cpp, which is kinder
to it than the gateway. Ours: rotation blocks in a sequence that shares prompts, over all slots, through the gateway
with a virtual key; and exact probabilities from llama.cpp itself. Time to a width is calls needed times seconds a call.

Seconds a call are measured on a model of 240 MB with random weights, where inference is the cost, and on the built-in
one, where the proxy is. Calls needed come from the spread of the built-in model's choices between sampling units, under
the same designs: random weights choose nothing. The large model gets the beginning of each worker's part of a sequence:
its first trial, which fills its slot, counts once, and the rest is the rate. With five tools, where a trial is
shortest, what was asked is also sent straight to a fresh llama.cpp, to see what our side costs. Takes half an hour on
two quiet cores.
"""

import asyncio
import tempfile
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import httpx
import numpy as np
from scipy import stats
from scipy.optimize import brentq

from agents.experiments import designs, run
from agents.experiments.designs import Cell
from agents.experiments.experiment import Design, Experiment
from agents.experiments.table import unit_of
from agents.experiments.trials import Trial, read_trials
from benchmarks import _keys_rig as rig
from benchmarks._made_models import Made, write
from gateway.keys.store import open_store
from gateway.litellm_config import build
from gateway.models.builtin import BALANCED
from gateway.process import Child, free_port
from gateway.settings import Settings
from gateway.upstreams.llamacpp import LlamaServerSpec, command
from gateway.upstreams.served import ServedModel

LARGE = Made(
    "llama",
    layers=19,
    width=1024,
    heads=16,
    head=64,
    feed_forward=2816,
    context=16_384,
    speaks=BALANCED,
    quantised=True,
)
POINTS = 2.0  # the interval's half width that times are scaled to
REPLY = 24  # tokens, of a call with one short argument; random weights go on until they are stopped
BARS = {"rotation": 10, "logprob": 50}
ORIGINAL = Design(kind="random", n=10, repeats=0)
OURS = Design(repeats=0)
Sent = dict[Any, list[tuple[str, bytes]]]  # by worker: path and body


class Size(NamedTuple):
    """One suite: its groups of positions, the slots of the server, how many tasks the built-in model is asked in the
    original way (whose tasks do not share orders; it is asked all of them in ours), and how many trials the large one
    is asked. Those of ours hold as many changes of order as the whole sequence does."""

    groups: int
    slots: int
    tasks: int
    sample: Mapping[str, int]


SIZES = {
    "five-tools": Size(5, 4, 120, {"original": 6, "rotation": 60, "logprob": 80}),
    "catalogue": Size(8, 2, 40, {"original": 3, "rotation": 32, "logprob": 32}),
}


class Way(NamedTuple):
    """One way of running it: when each trial ended, in seconds from the start, and what was sent."""

    workers: int
    ended: Sequence[float]
    trials: Sequence[Trial]
    sent: Sent

    @property
    def evaluated(self) -> float:
        """Prompt tokens a trial that llama.cpp computed, as it says, once each worker's slot is filled."""
        return float(np.mean([trial.prompt_tokens - trial.cached_tokens for trial in self.trials[self.workers :]]))

    @property
    def first(self) -> float:
        """Seconds until every worker has had a trial."""
        return self.ended[self.workers - 1]

    @property
    def each(self) -> float:
        """Seconds a trial from then on."""
        return (self.ended[-1] - self.first) / (len(self.ended) - self.workers)

    def seconds(self, calls: float) -> float:
        """Seconds for so many trials."""
        return self.first + self.each * max(0.0, calls - self.workers)


class Server(NamedTuple):
    """A port at which one llama.cpp after another is started, and the gateway in front of it."""

    port: int
    gateway: str
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def main() -> None:
    """Print each way for five and for forty tools, on both models, and what came of each bar."""
    began = time.perf_counter()
    verdicts: list[str] = []
    with tempfile.TemporaryDirectory() as temporary, _gateway(Path(temporary)) as server:
        folder = Path(temporary)
        made = write(LARGE, folder / "made.gguf")
        print(f"times to an interval of +-{POINTS:g} points")
        for suite, size in SIZES.items():
            small = {name: _asked(server, BALANCED, suite, name, folder / f"small-{suite}-{name}") for name in _WAYS}
            calls = {name: _calls_needed(way.trials, size.groups, name) for name, way in small.items()}
            _print(f"{suite}, {BALANCED.name}", small, calls)
            large = {}
            for name in _WAYS:
                large[name] = _asked(server, made, suite, name, folder / f"large-{suite}-{name}", cut=True)
            ratios = _print(f"{suite}, random weights, {made.stat().st_size / 1e6:.0f} MB", large, calls)
            for name, bar in BARS.items():
                verdicts.append(_verdict(f"{suite}, {name}: {ratios[name]:.1f} times less", ratios[name] >= bar, bar))
                if suite == "five-tools":
                    # Alone twice in between, since what the machine does meanwhile changes by more than the bar leaves.
                    sent = large[name].sent
                    alone = sum(_replayed(server, made, size.slots, sent, folder / f"alone-{n}-{name}") for n in "12")
                    again = _asked(server, made, suite, name, folder / f"again-{name}", cut=True)
                    share = alone / (large[name].ended[-1] + again.ended[-1])
                    said = f"{suite}, {name}: {share:.0%} of the throughput of llama.cpp alone"
                    verdicts.append(_verdict(said, share >= 0.9, "90 %"))
    print("\n".join(verdicts))
    print(f"took {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)


_WAYS: Mapping[str, tuple[str, Design]] = {
    "original": ("call", ORIGINAL),
    "rotation": ("call", OURS),
    "logprob": ("logprob", OURS),
}


def _asked(server: Server, model: Path, suite: str, name: str, out: Path, *, cut: bool = False) -> Way:
    """Run one way on a llama.cpp of its own, whole or only the first of its trials."""
    size = SIZES[suite]
    mode, design = _WAYS[name]
    workers = 1 if name == "original" else size.slots
    experiment = Experiment.model_validate(
        {"models": ["m"], "suite": suite, "design": design, "mode": mode, "max_tokens": REPLY if cut else 64}
        | ({"tasks": size.tasks} if name == "original" and not cut else {})
    )
    times: list[float] = []

    def progress(done: int, total: int) -> None:
        times.append(time.perf_counter())

    sent: Sent = {}
    with ExitStack() as stack:
        stack.enter_context(_served(server.port, model, size.slots, out))
        stack.enter_context(patch.object(run.httpx, "AsyncClient", _recording(sent)))
        if name == "original":
            stack.enter_context(patch.object(designs, "in_sequence", _task_by_task))
        if cut:
            planned, most = run.cells, size.sample[name]
            stack.enter_context(patch.object(run, "cells", lambda *given: _beginnings(planned(*given), workers, most)))
        asyncio.run(
            run.run_experiment(
                experiment,
                base_url=f"{server.url if name == 'original' else server.gateway}/v1",
                api_key=server.key,
                out=out,
                direct={"m": server.url},
                concurrency=workers,
                progress=progress,
            )
        )
    trials = read_trials(out)
    failed = [trial.text for trial in trials if trial.outcome == "error"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(trials)} trials failed: {failed[0]}")
    return Way(workers, [moment - times[0] for moment in times[1:]], trials, sent)


def _replayed(server: Server, model: Path, slots: int, sent: Sent, out: Path) -> float:
    """Seconds that the same questions take when they are sent straight to a fresh server, by as many workers."""

    async def worker(client: httpx.AsyncClient, requests: Sequence[tuple[str, bytes]]) -> None:
        for path, body in requests:
            answer = await client.post(path, content=body, headers={"content-type": "application/json"})
            answer.raise_for_status()

    async def everything() -> float:
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            began = time.perf_counter()
            await asyncio.gather(*(worker(client, requests) for requests in sent.values()))
            return time.perf_counter() - began

    with _served(server.port, model, slots, out):
        return asyncio.run(everything())


def _calls_needed(trials: Sequence[Trial], groups: int, name: str) -> float:
    """Calls to an interval of +- POINTS, root mean square over positions: the sampling units that the spread between
    them asks for, times the calls of one. A unit is a task, or the tasks that share their orders. The original's effect
    of a position is its share of the choices less that of the right tool, ours its share less an equal one; both in the
    same groups of positions."""
    unit = unit_of(trials, partial(designs.pool_size, _WAYS[name][1]))
    units: dict[Hashable, list[np.ndarray]] = {}
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
        units.setdefault(unit[trial.task], []).append((fell - fair).reshape(groups, -1).sum(1))
    means = np.array([np.mean(values, axis=0) for values in units.values()])
    spread = float(np.sqrt(means.var(0, ddof=1).mean()))
    wanted = brentq(lambda count: spread / np.sqrt(count) * stats.t.ppf(0.975, count - 1) - POINTS / 100, 1.5, 1e6)
    return float(wanted) * len(trials) / len(units)


def _print(title: str, ways: Mapping[str, Way], calls: Mapping[str, float]) -> dict[str, float]:
    """Print a table; gives how many times less each way takes than the original."""
    print(
        f"{title}\n  way         trials   first  s/trial  evaluated/trial  calls to +-{POINTS:g}  seconds to it   ratio"
    )
    base = ways["original"].seconds(calls["original"])
    ratios = {name: base / way.seconds(calls[name]) for name, way in ways.items()}
    for name, way in ways.items():
        print(
            f"  {name:<10}{len(way.trials):8}{way.first:8.2f}{way.each:9.3f}{way.evaluated:17.0f}{calls[name]:13.0f}"
            f"{way.seconds(calls[name]):15.1f}{ratios[name]:8.1f}",
            flush=True,
        )
    return ratios


def _verdict(said: str, held: bool, bar: object) -> str:
    return f"{'held  ' if held else 'MISSED'} {said} (bar: at least {bar})"


def _task_by_task(planned: Sequence[Cell]) -> list[Cell]:
    """The sequence of the original experiment."""
    return list(planned)


def _beginnings(planned: Sequence[Cell], workers: int, most: int) -> list[Cell]:
    """The beginning of each worker's part of the sequence, `most` cells together."""
    size = len(planned) // workers
    return [cell for start in range(0, size * workers, size) for cell in planned[start : start + most // workers]]


def _recording(sent: Sent) -> type[httpx.AsyncClient]:
    """A client that keeps the questions each worker sends."""

    class Recording(httpx.AsyncClient):
        async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
            if request.url.path in ("/completion", "/v1/chat/completions"):
                sent.setdefault(asyncio.current_task(), []).append((request.url.path, request.content))
            return await super().send(request, **options)

    return Recording


@contextmanager
def _gateway(folder: Path) -> Iterator[Server]:
    """The real proxy, with a key that has a budget, in front of whatever llama.cpp is started at its port."""
    port = free_port()
    params = {"model": "hosted_vllm/m", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"}
    config = build([ServedModel(name="m", upstream="llamacpp", litellm_params=params)], Settings())
    url = f"sqlite:///{folder}/keys.db"
    with open_store(url) as store, rig.proxy(folder, config, url) as proxy:
        yield Server(port, proxy.url, store.create("bench", budget_nano=10**15).secret)


@contextmanager
def _served(port: int, model: Path, slots: int, out: Path) -> Iterator[None]:
    """A llama.cpp with an empty cache, the built-in model on one thread, as the gateway serves it."""
    spec = LlamaServerSpec(model, "m", context=4096, slots=slots, threads=int(model == BALANCED), port=port)
    out.mkdir(parents=True)
    child = Child("m", command(spec), log=out / "log")
    try:
        child.wait_until(f"http://127.0.0.1:{port}/health", timeout=120)
        yield
    finally:
        child.stop()


if __name__ == "__main__":
    main()
