"""`toolkit demo`: everything in one go on the built-in model. No download, no account, no network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Json, Output, Quiet

if TYPE_CHECKING:
    from agents.experiments.run import ModelSummary

app = typer.Typer(rich_markup_mode=None)

KEY = "demo"
TOKENS = 1_000_000
MODEL = "toolkit-tiny"
SUITE = "five-tools"
ANSWER = 128  # tokens; a call takes about 30


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results and the demo's own key store.")] = Path("out/demo"),
    tasks: Annotated[int | None, typer.Option(min=2, help="Use only this many tasks of the suite.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the orders in which the tools are offered.")] = 1,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a gateway on the built-in model, make a key with a budget, run the tool-order experiment, write a report.

    Touches nothing outside the folder `--out`, stops what it started, and goes on where it was interrupted.
    """
    import asyncio
    import os
    import time

    folder = out.absolute()
    # The demo has a gateway, a key store and logs of its own, beside and not in those of the person who runs it.
    os.environ["TOOLKIT_HOME"] = str(folder / "home")
    os.environ.pop("TOOLKIT_CONFIG", None)

    from agents.experiments.experiment import Experiment
    from agents.experiments.report import write_report
    from agents.experiments.run import run_experiment
    from gateway import supervisor
    from gateway.keys.store import open_store
    from gateway.process import free_port
    from gateway.settings import load_settings

    output = Output(json=json, quiet=quiet)
    began = time.monotonic()
    flags = {"gateway__port": free_port()} | {
        f"discover__{upstream}": False for upstream in ("gguf", "llamacpp", "ollama", "lmstudio", "vllm")
    }
    settings = load_settings(None, **flags, discover__hosted=[])
    experiment = Experiment(models=[MODEL], suite=SUITE, tasks=tasks, seed=seed, max_tokens=ANSWER)
    results = _next_run(folder, experiment.model_dump(mode="json"))

    output.note("1/4 starting a gateway on the built-in model")
    with supervisor.attached(
        None, flags | {"discover__hosted": []}, note=lambda text: output.note(f"    {text}")
    ) as found:
        output.note(f"    it answers at {found.url}")
        output.note(f"2/4 making a virtual key named {KEY} with a budget of {TOKENS:,} tokens")
        store = open_store(settings.keys.url)
        secret = _fresh_key(store)
        output.note("3/4 asking the model to choose tools, in every rotation of their order")
        with output.progress("    trials", total=None, unit="trials") as bar:
            summary = asyncio.run(
                run_experiment(
                    experiment,
                    base_url=f"{found.url}/v1",
                    api_key=secret,
                    out=results,
                    progress=bar.reach,
                    note=lambda text: output.note(f"    {text}"),
                )
            )
        key = store.get(KEY)
        store.delete(KEY)
        store.close()
    output.note("4/4 writing the report")
    report = write_report(results)
    (result,) = summary.models
    document = {
        "report": str(report),
        "results": str(results),
        "seconds": round(time.monotonic() - began, 1),
        "key": {"name": KEY, "budget_tokens": TOKENS, "spent_tokens": key.spent_tokens, "spent_nano": key.spent_nano},
        "result": result,
    }
    if not json and not quiet:
        output.result(document, human=_table(output, result, key))
        if result.headline is not None:
            output.warn(f"these effects are no result: {result.headline}")
        output.note(f"done in {document['seconds']} s; everything that was started is stopped")
    output.result(document if json else None, human=f"report: {report}", quiet=str(report))


def _next_run(folder: Path, experiment: dict[str, Any]) -> Path:
    """The folder of an interrupted run of the same experiment, else a new one."""
    from agents.experiments.page import REPORT
    from agents.experiments.trials import MANIFEST
    from toolkit.core.config import read_yaml

    number = 1
    for number in range(1, 10_000):
        run = folder / f"run-{number}"
        if not run.exists():
            break
        same = (run / MANIFEST).exists() and read_yaml(run / MANIFEST).get("experiment") == experiment
        if same and not (run / REPORT).exists():
            break
    return folder / f"run-{number}"


def _fresh_key(store: Any) -> str:
    """The secret of a new key; one that an interrupted demo left behind is deleted first."""
    if any(key.name == KEY for key in store.all()):
        store.delete(KEY)
    secret: str = store.create(KEY, budget_tokens=TOKENS).secret
    return secret


def _table(output: Output, result: "ModelSummary", key: Any) -> Any:
    from toolkit.core.units import format_money

    def share(value: float) -> str:
        return f"{value * 100:.1f} %"

    def points(value: float) -> str:
        return f"{value * 100:+.1f}"

    rows: list[tuple[str, str, str]] = [
        ("accuracy", share(result.accuracy.value), f"{share(result.accuracy.low)} to {share(result.accuracy.high)}")
    ]
    rows += [
        (
            f"effect of position {position}",
            f"{points(effect.value)} pp",
            f"{points(effect.low)} to {points(effect.high)} pp",
        )
        for position, effect in enumerate(result.effects, start=1)
    ]
    more_than_chance = "yes" if result.p_value < 0.05 else "not more than by chance"
    rows += [
        ("does the order matter?", more_than_chance, f"p = {result.p_value:.3g}, permutation test"),
        ("calls", f"{result.calls:,}", f"{result.tasks} tasks, each under 5 orders, a fifth of them twice"),
        (
            "tokens",
            f"{result.prompt_tokens + result.completion_tokens:,}",
            f"{result.cached_tokens:,} from the prompt cache",
        ),
        ("spend of the key", f"{key.spent_tokens:,} tokens", f"of {TOKENS:,}; {format_money(key.spent_nano)}"),
    ]
    return output.table([result.model, "VALUE>", "95 % INTERVAL, OR DETAIL"], rows)
