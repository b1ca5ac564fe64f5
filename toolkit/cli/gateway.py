"""`toolkit gateway`: start, watch and stop the gateway in front of the models."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.output import Config, Json, Output, Quiet
from toolkit.core.errors import ToolkitError

if TYPE_CHECKING:
    from gateway.supervisor import Running

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Start, watch and stop the gateway.")

Host = Annotated[str | None, typer.Option(help="Address to listen on; anything but loopback also needs --expose.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
Expose = Annotated[bool, typer.Option("--expose", help="Let other machines reach the gateway.")]


@app.command()
def up(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    expose: Expose = False,
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay here until Ctrl-C.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find models, start the gateway in front of them, and say what is served by what."""
    from gateway import supervisor
    from gateway.settings import load_settings

    out = Output(json=json, quiet=quiet)
    flags: dict[str, Any] = {"gateway__host": host, "gateway__port": port, "gateway__expose": expose or None}
    settings = load_settings(config, **flags)  # a fault in the settings is reported before anything starts
    found = supervisor.running()
    if found is not None:
        out.note(f"the gateway is already running at {found.url}")
        _show(out, found)
        return
    if foreground:
        supervisor.supervise(settings, note=out.note, ready=lambda ready: _show(out, ready))
        return
    _show(out, supervisor.start(config.absolute() if config else None, flags, note=out.note))


@app.command()
def status(json: Json = False, quiet: Quiet = False) -> None:
    """Say whether the gateway runs, what it serves, and how its processes are. Exit code 1 if it does not run."""
    _show(Output(json=json, quiet=quiet), _the_running())


@app.command()
def logs(
    part: Annotated[
        str, typer.Argument(help="gateway, proxy, or a llama.cpp server as `status` names it.")
    ] = "gateway",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is added until Ctrl-C.")] = False,
) -> None:
    """Show the end of a log. Logs hold no keys and, unless the settings ask for it, no prompts."""
    import sys
    import time

    from gateway.process import tail
    from toolkit.core.paths import state_dir

    folder = state_dir() / "logs"
    known = sorted(path.stem for path in folder.glob("*.log"))
    if part not in known:
        raise ToolkitError(
            f"there is no log named {part}" + (f"; there are: {', '.join(known)}" if known else ""),
            hint=f"toolkit gateway logs {known[0]}" if known else "toolkit gateway up",
        )
    path = folder / f"{part}.log"
    end = path.stat().st_size
    sys.stdout.write(tail(path, lines) + "\n")
    while follow:
        sys.stdout.flush()
        time.sleep(0.3)
        with path.open("rb") as handle:
            handle.seek(end)
            sys.stdout.write(handle.read().decode("utf-8", "replace"))
            end = handle.tell()


@app.command()
def down(quiet: Quiet = False) -> None:
    """Stop the gateway and everything it started. Harmless if it does not run."""
    from gateway import supervisor

    out = Output(quiet=quiet)
    found = supervisor.running()
    if found is None:
        out.note("the gateway is not running")
        return
    supervisor.stop(found)
    out.note(f"stopped the gateway at {found.url}")


@app.command(name="config")
def show_config(config: Config = None, json: Json = False) -> None:
    """Print the LiteLLM configuration that `up` would use now. It holds references to secrets, never secrets."""
    import yaml

    from gateway.litellm_config import build
    from gateway.settings import load_settings
    from gateway.upstreams.discovery import discover_all, served_by

    out = Output(json=json)
    settings = load_settings(config)
    discovered = discover_all(settings)
    for remark in discovered.notes:
        out.note(remark)
    models = [*discovered.models, *(model for spec in discovered.to_start for model in served_by(spec, settings))]
    document = build(models, settings)
    out.result(document, human=yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip())


def _the_running() -> "Running":
    from gateway import supervisor

    found = supervisor.running()
    if found is None:
        raise ToolkitError("the gateway is not running", hint="toolkit gateway up")
    return found


def _show(out: Output, found: "Running") -> None:
    from dataclasses import asdict

    import psutil

    from toolkit.core.units import format_bytes

    processes = []
    for name, pid in found.pids.items():
        try:
            resident = psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            resident = 0
        processes.append({"name": name, "pid": pid, "resident_bytes": resident})
    if not (out.json or out.quiet):
        print_processes = ", ".join(f"{p['name']} {format_bytes(float(str(p['resident_bytes'])))}" for p in processes)
        out.note(f"gateway at {found.url} ({print_processes})")
        if found.mends:
            out.note(f"mended for local models: {', '.join(found.mends)}")
        if found.mcp:
            out.note(f"MCP servers at {found.url}/mcp: {', '.join(found.mcp)}")
    rows = [
        (
            model.name,
            model.upstream,
            f"{model.context:,}" if model.context else "unknown",
            model.api_base or "",
            model.note,
        )
        for model in found.models
    ]
    out.result(
        asdict(found) | {"processes": processes},
        human=out.table(["MODEL", "SERVED BY", "CONTEXT>", "AT", ""], rows),
        quiet=found.url,
    )
