"""`toolkit doctor`: what is wrong on this machine, and the command that mends it."""

import typer

from toolkit.cli.output import Config, Json, Output, Quiet

app = typer.Typer(rich_markup_mode=None, help="Say what is wrong on this machine, and the command that mends it.")


@app.command()
def doctor(config: Config = None, json: Json = False, quiet: Quiet = False) -> None:
    """Look at machine, engines, models, upstreams, gateway, contexts and clients. Exit code 1 if something is wrong.

    Changes nothing. The context of each model is compared in four places: what it was trained with, what its server
    holds, what the gateway announces, and what each client was told.
    """
    from gateway.doctor import examine
    from gateway.settings import load_settings

    out = Output(json=json, quiet=quiet)
    found = examine(load_settings(config))
    lines = []
    marks = {"ok": "  ", "note": "- ", "wrong": "! "}
    for finding in found.findings:
        lines.append(f"{marks[finding.level]}{finding.area:9} {finding.said}")
        if finding.mend:
            lines.append(f"{'':12}mend: {finding.mend}")
    wrong = [finding for finding in found.findings if finding.level == "wrong"]
    lines.append("nothing is wrong" if found.well else f"{len(wrong)} wrong")
    out.result(
        {"well": found.well, "findings": found.findings, "contexts": found.contexts},
        human="\n".join(lines),
        quiet=[finding.said for finding in wrong],
    )
    if not found.well:
        raise typer.Exit(1)
