"""`toolkit judge`: measure the position bias of a model that judges."""

import asyncio
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
    from agents.experiments.judge import load_pairs, run_judge
    from agents.experiments.judge_report import unusable, write_judge_report
    from agents.experiments.wording import p_text, percent
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
    rows = [
        (
            v.model,
            f"{v.first_score.value:+.2f} ({v.first_score.low:+.2f} to {v.first_score.high:+.2f}), "
            + p_text(v.first_score_p),
            f"{100 * v.first_choice.value:+.0f} points, {p_text(v.first_choice_p)}",
            f"{percent(v.exact)}; within one {100 * v.within_one.value:.0f} %; rank {v.rank:.2f}",
            f"{percent(v.consistent)}; choice {100 * v.consistent_choice.value:.0f} %",
            f"{100 * v.middle.value:.0f} %",
            f"{v.invalid} of {v.judgements}",
        )
        for v in found
    ]
    columns = ["MODEL", "FIRST ANSWER (OF 9)", "FIRST CHOSEN", "AGREES", "SAME IN BOTH ORDERS", "FIVES>", "INVALID>"]
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
