"""`toolkit judge`: measure the position bias of a model that judges."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.output import Json, Output, Quiet

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure the position bias of a model that judges.")


@app.callback()
def judge() -> None:
    """Measure the position bias of a model that judges."""


@app.command()
def run(
    model: Annotated[list[str], typer.Option("--model", "-m", help="Model to measure; may be given again.")],
    pairs: Annotated[Path | None, typer.Option(help="Pairs with reference scores; default: ours.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Another OpenAI-compatible endpoint than the gateway.")] = None,
    key: Annotated[str | None, typer.Option(help="The key as env:NAME; default: TOOLKIT_KEY.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Questions under way at once, at most.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply; a model that thinks needs more.")] = 64,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let models judge pairs of answers in both orders, as a score and as a choice."""
    from agents.experiments.analysis import plain
    from agents.experiments.judge import Verdict, load_pairs, run_judge
    from agents.experiments.judge_report import unusable, write_judge_report
    from agents.experiments.wording import interval, p_text, percent, points
    from toolkit.cli.endpoint import endpoint

    sink = Output(json=json, quiet=quiet)
    held = load_pairs(pairs)
    where = endpoint(base_url, key, model)
    folder = out or Path("out") / f"judge-{'-'.join(name.replace('/', '-') for name in model)}"
    with sink.progress("judgements", total=None, unit="judgements") as bar:
        found = asyncio.run(
            run_judge(
                model,
                held,
                base_url=where.base_url,
                api_key=where.api_key,
                out=folder,
                concurrency=concurrency,
                max_tokens=max_tokens,
                progress=bar.reach,
            )
        )
    measures: list[tuple[str, Callable[[Verdict], str]]] = [
        ("read first, of 9 points", lambda v: interval(v.first_score, "+.2f")),
        ("  could that be chance?", lambda v: p_text(v.first_score_p)),
        ("read first, chosen beyond half", lambda v: points(v.first_choice)),
        ("  could that be chance?", lambda v: p_text(v.first_choice_p)),
        ("score equal to the reference", lambda v: percent(v.exact)),
        ("score within one of it", lambda v: percent(v.within_one)),
        ("rank correlation with it", lambda v: f"{v.rank:.2f}" if v.rank == v.rank else "unknown"),
        ("same winner both ways, by score", lambda v: percent(v.consistent)),
        ("same winner both ways, by choice", lambda v: percent(v.consistent_choice)),
        ("fives among scores", lambda v: percent(v.middle)),
        ("replies without a verdict", lambda v: f"{v.invalid} of {v.judgements}"),
    ]
    rows = [(name, *(cell(v) for v in found)) for name, cell in measures]
    columns = ["", *(f"{v.model}>" for v in found)]
    again = ["toolkit judge run", *(f"-m {name}" for name in model), *([f"--pairs {pairs}"] if pairs else [])]
    page = write_judge_report(folder, found, held, " ".join(again))
    document = {"out": str(folder), "report": str(page), "models": plain(found)}
    sink.result(document, human=sink.table(columns, rows), quiet=str(page))
    for v in found:
        if unusable(v):
            sink.warn(
                f"{v.model}: {v.invalid} of {v.judgements} replies hold no verdict; the rest may not stand for all"
            )
    sink.note(f"report: {page}")
