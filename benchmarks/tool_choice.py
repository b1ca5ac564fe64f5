"""What the tool-order experiment costs for a given precision, against the original way, on one llama.cpp in one run.

The original way: ten random orders a task, one call at a time. Ours: rotation blocks in a sequence that shares prompts,
over all slots; and exact probabilities. `TOOLKIT_BENCH_GGUF` names another model than the built-in one, for which not
inference but everything else is the cost.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agents.experiments.analysis import analyse
from agents.experiments.experiment import Design, Experiment
from agents.experiments.run import run_experiment
from gateway.models.builtin import BALANCED
from gateway.process import Child, free_port
from gateway.upstreams.llamacpp import LlamaServerSpec, command

TASKS = 20
SLOTS = 4
POINTS = 2.0  # the interval's half width that times are scaled to


class Way(NamedTuple):
    """One way of running it, measured. `width` is half the interval's width in points, root mean square."""

    seconds: float
    trials: int
    evaluated: float
    width: float

    @property
    def wanted(self) -> float:
        """Seconds to an interval of +- POINTS: precision goes with the root of the number of trials."""
        return self.seconds * (self.width / POINTS) ** 2


def measured(url: str, folder: Path, concurrency: int, suite: str, mode: str, design: Design) -> Way:
    """Run it once."""
    experiment = Experiment.model_validate(
        {"models": ["m"], "suite": suite, "tasks": TASKS, "design": design, "mode": mode, "max_tokens": 64}
    )
    began = time.perf_counter()
    summary = asyncio.run(
        run_experiment(
            experiment, base_url=f"{url}/v1", api_key=None, out=folder, direct={"m": url}, concurrency=concurrency
        )
    )
    seconds = time.perf_counter() - began
    (model,) = summary.models
    trials = model.trials
    effects = analyse(folder, draws=100).models[0].measures.effects
    width = 100 * float(np.sqrt(np.mean([effect.effect.error**2 for effect in effects])))
    return Way(seconds, trials, (model.prompt_tokens - model.cached_tokens) / trials, width)


def main() -> None:
    """Print each way for five and for forty tools."""
    path = Path(os.environ.get("TOOLKIT_BENCH_GGUF") or BALANCED)
    context = 4096 if "TOOLKIT_BENCH_GGUF" in os.environ else 1024
    print(f"{path.name}, {TASKS} tasks, time includes starting the tools' servers and the analysis")
    for suite in ("five-tools", "catalogue") if context > 1024 else ("five-tools",):
        with tempfile.TemporaryDirectory() as temporary:
            port = free_port()
            spec = LlamaServerSpec(path, "m", context=context, slots=SLOTS, threads=1, port=port)
            child = Child("m", command(spec), log=Path(temporary) / "log")
            try:
                url = f"http://127.0.0.1:{port}"
                child.wait_until(f"{url}/health", timeout=120)
                ways = {
                    "original": (1, "call", Design(kind="random", n=10, repeats=0)),
                    "rotation": (SLOTS, "call", Design(repeats=0)),
                    "logprob": (SLOTS, "logprob", Design(repeats=0)),
                }
                found = {
                    name: measured(url, Path(temporary) / name, workers, suite, mode, design)
                    for name, (workers, mode, design) in ways.items()
                }
            finally:
                child.stop()
        print(f"{suite:<12}  seconds  trials  evaluated/trial  +- points  s to +-2  ratio")
        for name, way in found.items():
            ratio = found["original"].wanted / way.wanted
            print(
                f"  {name:<10}{way.seconds:9.1f}{way.trials:8}{way.evaluated:17.0f}{way.width:11.2f}"
                f"{way.wanted:10.1f}{ratio:7.1f}"
            )


if __name__ == "__main__":
    main()
