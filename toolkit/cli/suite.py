"""`toolkit suite`: list, check and import sets of tasks."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.output import Json, Output, Quiet
from toolkit.core.errors import UsageError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, check and import sets of tasks.")


@app.command(name="list")
def list_suites(json: Json = False, quiet: Quiet = False) -> None:
    """List the suites that come with the toolkit, and your own in the config folder."""
    from agents.experiments.suites import bundled_suites, load_suite, own_suites, suite_path

    names = dict.fromkeys([*own_suites(), *bundled_suites()])
    suites = [load_suite(name) for name in names]
    rows = [(suite.name, len(suite.tasks), suite.about) for suite in suites]
    out = Output(json=json, quiet=quiet)
    out.result(
        [
            {"name": suite.name, "tasks": len(suite.tasks), "about": suite.about, "file": str(suite_path(suite.name))}
            for suite in suites
        ],
        human=out.table(["SUITE", "TASKS>", ""], rows),
        quiet=list(names),
    )


@app.command()
def validate(
    suite: Annotated[str, typer.Argument(help="Name or file of a suite.")],
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the MCP servers that it names.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a suite: its form, its labels, and that its servers offer its tools."""
    from agents.experiments.suites import load_suite
    from agents.tool_host import McpToolHost

    async def offered() -> None:
        async with McpToolHost(list(held.servers)) as host:
            held.resolve(host.tools())

    out = Output(json=json, quiet=quiet)
    held = load_suite(suite)
    if held.servers and not offline:
        asyncio.run(offered())
    labels = Counter(task.right for task in held.tasks)
    if len(set(labels.values())) > 1 and len(labels) < 50:
        most, least = labels.most_common()[0], labels.most_common()[-1]
        out.warn(f"labels are uneven: {most[0]} is right {most[1]} times, {least[0]} {least[1]} times")
    out.result(
        {"name": held.name, "tasks": len(held.tasks), "labels": labels, "digest": held.digest},
        human=f"{held.name} is valid: {len(held.tasks)} tasks, {len(labels)} labels",
        quiet=held.digest,
    )


@app.command(name="import")
def import_suite(
    questions: Annotated[Path, typer.Argument(help="A BFCL file of questions, one JSON object a line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The suite's file to write (.yaml).")],
    answers: Annotated[
        Path | None, typer.Option(help="Its file of possible answers; without one no tool is right.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the suite; default: that of the file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a file of the Berkeley Function Calling Leaderboard as a suite."""
    import yaml

    from agents.experiments.bfcl import import_bfcl
    from toolkit.core.paths import write_text

    sink = Output(json=json, quiet=quiet)
    if out.exists() and not force:
        raise UsageError(f"{out} is there already", hint=f"--out {out.with_stem(out.stem + '-2')}, or --force")
    found = import_bfcl(questions, answers, name or out.stem)
    write_text(out, yaml.safe_dump(found.document, sort_keys=False, allow_unicode=True, width=120))
    for reason in found.left_out[:5]:
        sink.note(f"left out {reason}")
    if len(found.left_out) > 5:
        sink.note(f"... and {len(found.left_out) - 5} more")
    sink.result(
        {"file": str(out), "tasks": len(found.suite.tasks), "left_out": found.left_out},
        human=f"{out}: {len(found.suite.tasks)} tasks, {len(found.left_out)} left out",
        quiet=str(out),
    )
