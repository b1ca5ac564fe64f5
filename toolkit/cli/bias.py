"""`toolkit bias`: measure how models choose tools."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Json, Output, Quiet
from toolkit.core.errors import UsageError

if TYPE_CHECKING:
    from agents.experiments.experiment import Experiment
    from agents.experiments.run import ModelSummary, Summary

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure how models choose tools.")

Models = Annotated[list[str] | None, typer.Option("--model", "-m", help="Model to measure; may be given again.")]
SuiteName = Annotated[str | None, typer.Option("--suite", help="Name or file of the suite [five-tools].")]
Tasks = Annotated[int | None, typer.Option(min=2, help="Use so many tasks of the suite, evenly over its labels.")]
DesignKind = Annotated[
    str | None,
    typer.Option("--design", help="rotation, williams, permutations, random or production [rotation]."),
]
Random = Annotated[int | None, typer.Option("--n", min=1, help="Random orders a task (--design random).")]
Bases = Annotated[int | None, typer.Option(min=2, help="Draw base orders from a pool of this size.")]
Positions = Annotated[int | None, typer.Option(min=2, help="Groups of positions, for long lists of tools.")]
Repeats = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of cells asked twice, for the noise floor [0.2; logprob: 0].")
]
Mode = Annotated[str | None, typer.Option(help="call (native tool calls), react (text) or logprob (exact) [call].")]
Arms = Annotated[
    list[str] | None, typer.Option("--arm", help="Also dress one tool: cue, longer, example, ...; may be given again.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of all that is drawn [1].")]
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature [0].")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest reply in tokens [256].")]
Choice = Annotated[str | None, typer.Option("--tool-choice", help="auto, or required [auto].")]
System = Annotated[str | None, typer.Option(help="System prompt for every task.")]
From = Annotated[Path | None, typer.Option("--from", help="Take everything from this folder's or file's experiment.")]
BaseUrl = Annotated[str | None, typer.Option(help="Another OpenAI-compatible endpoint than the gateway.")]
Direct = Annotated[str | None, typer.Option(help="Address of the llama.cpp or vLLM server itself, for --mode logprob.")]
Key = Annotated[str | None, typer.Option(help="The key as env:NAME; default: TOOLKIT_KEY.")]
Concurrency = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Questions under way at once, at most [llama.cpp: one a slot; else 4]."),
]
Folder = Annotated[Path, typer.Argument(help="Folder of an experiment.")]


@app.command()
def run(
    model: Models = None,
    suite: SuiteName = None,
    tasks: Tasks = None,
    design: DesignKind = None,
    n: Random = None,
    bases: Bases = None,
    positions: Positions = None,
    repeats: Repeats = None,
    mode: Mode = None,
    arm: Arms = None,
    seed: Seed = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    tool_choice: Choice = None,
    system: System = None,
    source: From = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results.")] = None,
    base_url: BaseUrl = None,
    direct: Direct = None,
    key: Key = None,
    concurrency: Concurrency = None,
    timeout: Annotated[str, typer.Option(help="Longest silence of a model.")] = "10m",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask, write every trial down, and report. The same command goes on where it was interrupted."""
    from agents.experiments.analysis import plain
    from agents.experiments.report import write_report
    from agents.experiments.run import run_experiment
    from agents.experiments.trials import read_manifest
    from toolkit.cli.endpoint import endpoint
    from toolkit.core.units import parse_duration

    sink = Output(json=json, quiet=quiet)
    experiment = _experiment(source, **_given(locals()))
    folder = out or Path("out") / f"bias-{Path(experiment.suite).stem}-{'-'.join(map(_slug, experiment.models))}"
    where = endpoint(base_url, key, experiment.models, direct)
    with sink.progress("trials", total=None, unit="trials") as bar:
        found = asyncio.run(
            run_experiment(
                experiment,
                base_url=where.base_url,
                api_key=where.api_key,
                out=folder,
                direct=where.direct,
                identities=_identities(where.direct),
                repeats=read_manifest(source) if source and source.is_dir() else None,
                concurrency=concurrency,
                timeout=parse_duration(timeout),
                progress=bar.reach,
                note=sink.note,
            )
        )
    page = write_report(folder)
    sink.result(plain(found) | {"out": str(folder), "report": str(page)}, human=_table(sink, found), quiet=str(page))
    _remarks(sink, found)
    sink.note(f"report: {page}")


@app.command()
def plan(
    model: Models = None,
    suite: SuiteName = None,
    tasks: Tasks = None,
    design: DesignKind = None,
    n: Random = None,
    bases: Bases = None,
    positions: Positions = None,
    repeats: Repeats = None,
    mode: Mode = None,
    arm: Arms = None,
    seed: Seed = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    tool_choice: Choice = None,
    system: System = None,
    source: From = None,
    base_url: BaseUrl = None,
    direct: Direct = None,
    key: Key = None,
    concurrency: Concurrency = None,
    probe: Annotated[int, typer.Option(min=0, help="Real calls to learn speed, tokens and price from.")] = 3,
    json: Json = False,
) -> None:
    """Say what an experiment would take and could find, before it is run."""
    from agents.experiments.planning import plan as planned
    from agents.experiments.run import at_once, prepare, probe_model
    from toolkit.cli.endpoint import endpoint
    from toolkit.core.units import format_count, format_duration, format_money

    sink = Output(json=json)
    experiment = _experiment(source, **_given(locals()))
    prepared = asyncio.run(prepare(experiment))
    rows, documents = [], []
    for name in experiment.models:
        measured, served = None, None
        if probe:
            where = endpoint(base_url, key, [name], direct)
            served = where.direct.get(name)
            measured = asyncio.run(
                probe_model(prepared, name, where.base_url, where.api_key, where.direct, count=probe)
            )
        bill = planned(prepared, measured, concurrency=at_once(concurrency, served))
        documents.append({"model": name, **bill.__dict__})
        rows.append(
            (
                name,
                f"{bill.calls:,}",
                format_count(bill.prompt_tokens),
                format_count(bill.evaluated),
                format_duration(bill.seconds) if bill.seconds is not None else "?",
                format_money(bill.money) if bill.money is not None else "?",
            )
        )
    sink.result(
        documents,
        human=sink.table(["MODEL", "CALLS>", "PROMPT TOKENS>", "OF THEM COMPUTED>", "TIME>", "MONEY>"], rows),
    )
    if not json:
        bill = planned(prepared, None, concurrency=1)
        smallest = ", ".join(f"{100 * value:.1f} at {a:.0%}" for a, value in bill.detectable.items())
        shared = f", shared: {bill.units} sampling units" if bill.units < bill.tasks else ""
        sink.note(f"{bill.tasks} tasks, {bill.orders} different orders{shared}")
        sink.note(f"smallest effect of a position found in 4 of 5 experiments, in points by accuracy: {smallest}")
        if not probe:
            sink.note("tokens are estimated from characters; leave out --probe 0 to measure tokens, time and money")


@app.command()
def report(folder: Folder, json: Json = False, quiet: Quiet = False) -> None:
    """Measure a folder's trials again and write its report."""
    from agents.experiments.analysis import analyse, plain
    from agents.experiments.report import write_report
    from agents.experiments.run import summarise

    sink = Output(json=json, quiet=quiet)
    analysis = analyse(folder)
    page = write_report(folder, analysis)
    found = summarise(analysis, folder)
    sink.result(plain(found) | {"out": str(folder), "report": str(page)}, human=_table(sink, found), quiet=str(page))
    _remarks(sink, found)
    sink.note(f"report: {page}")


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of experiments on one suite.")],
    json: Json = False,
) -> None:
    """Compare models, in one folder or several, task by task."""
    from rich.console import Group

    from agents.experiments.analysis import plain
    from agents.experiments.compare import compare as compared
    from agents.experiments.compare import entries
    from agents.experiments.wording import p_text, points

    sink = Output(json=json)
    found = compared(entries(folders))
    shown: list[Any] = []
    for first, second, tasks in dict.fromkeys((d.first, d.second, d.tasks) for d in found):
        rows = [
            (d.measure, points(d.difference), p_text(d.p_value), p_text(d.holm))
            for d in found
            if (d.first, d.second) == (first, second)
        ]
        table = sink.table(["MEASURE", "DIFFERENCE>", "P>", "P (HOLM)>"], rows)
        shown += [f"{second} less {first}, over {tasks} tasks", table]
    sink.result(plain(found), human=Group(*shown))


@app.command()
def export(
    folder: Folder,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV (to stdout without --out).")] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write Parquet (needs --out, and the extra parquet).")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write.")] = None,
) -> None:
    """Write the trials as one flat table."""
    import io

    from agents.experiments.export import write_csv, write_parquet
    from agents.experiments.trials import read_trials
    from toolkit.core.paths import write_text

    if csv == parquet:
        raise UsageError("say --csv or --parquet", hint=f"toolkit bias export {folder} --csv")
    trials = read_trials(folder)
    if parquet:
        if out is None:
            raise UsageError("Parquet is no text: --out names its file", hint=f"--out {folder}/trials.parquet")
        write_parquet(trials, out)
    elif out is None:
        write_csv(trials, sys.stdout)
    else:
        text = io.StringIO()
        write_csv(trials, text)
        write_text(out, text.getvalue())


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """The options that make the experiment, without those left out."""
    names = ("suite", "tasks", "mode", "seed", "temperature", "max_tokens", "tool_choice", "system")
    given: dict[str, Any] = {name: arguments[name] for name in names if arguments[name] is not None}
    parts = {"kind": arguments["design"]} | {name: arguments[name] for name in ("n", "bases", "positions", "repeats")}
    design = {name: value for name, value in parts.items() if value is not None}
    if design:
        given["design"] = design
    if arguments["model"]:
        given["models"] = arguments["model"]
    if arguments["arm"]:
        given["arms"] = arguments["arm"]
    return given


def _experiment(source: Path | None, **given: Any) -> "Experiment":
    """What the options say, over what `--from` names."""
    from agents.experiments.experiment import Experiment
    from agents.experiments.trials import read_manifest
    from toolkit.core.config import read_yaml, validate

    document: dict[str, Any] = {}
    if source is not None:
        if source.is_dir():
            document = read_manifest(source).experiment.model_dump(mode="json")
        else:
            document = validate(Experiment, read_yaml(source), str(source)).model_dump(mode="json")
    design = {**document.get("design", {}), **given.pop("design", {})}
    document |= given
    if document.get("mode") == "logprob" and "repeats" not in design:
        design["repeats"] = 0.0  # the same order gives the same probabilities
    document["design"] = design
    if not document.get("models"):
        raise UsageError("no model is named", hint="add --model NAME; toolkit gateway status lists what is served")
    return validate(Experiment, document, "the options")


def _identities(direct: Any) -> dict[str, str]:
    from agents.experiments.identity import file_digest

    found = {model: file_digest(url) for model, url in direct.items()}
    return {model: digest for model, digest in found.items() if digest}


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-._" else "-" for character in name)


def _table(sink: Output, found: "Summary") -> Any:
    """A column a model; the intervals too where there is room for them."""
    from agents.experiments.wording import p_text, percent
    from toolkit.core.units import format_count, format_money

    roomy = len(found.models) <= 2

    def effect(model: "ModelSummary", place: int) -> str:
        if place >= len(model.effects):
            return ""
        value, low, high = (100 * part for part in astuple(model.effects[place]))
        return "n/a" if model.headline else f"{value:+.1f}" + (f" ({low:+.1f} to {high:+.1f})" if roomy else "")

    def row(name: str, cell: Callable[["ModelSummary"], str]) -> tuple[str, ...]:
        return (name, *(cell(model) for model in found.models))

    places = max((len(model.effects) for model in found.models), default=0)
    rows = [
        row("accuracy", lambda model: percent(model.accuracy)),
        *(row(f"position {place + 1}, points", partial(effect, place=place)) for place in range(places)),
        row("does the order matter?", lambda model: "n/a" if model.headline else p_text(model.p_value)),
        row("calls", lambda model: f"{model.calls:,}"),
        row("tokens", lambda model: format_count(model.prompt_tokens + model.completion_tokens)),
        row("cost", lambda model: format_money(model.cost)),
    ]
    return sink.table(["", *(f"{model.model}>" for model in found.models)], rows)


def _remarks(sink: Output, found: "Summary") -> None:
    for model in found.models:
        if model.headline:
            sink.warn(f"{model.model}: {model.headline}")
