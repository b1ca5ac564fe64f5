"""`toolkit launch`: run a client on the gateway once, without touching a file of its own."""

import os
import shutil
import subprocess
import sys
from typing import Annotated

import typer

from toolkit.cli.connect import (
    Budget,
    Direct,
    Haiku,
    Lean,
    ModelName,
    Opus,
    Reset,
    SmallModel,
    Sonnet,
    Wanted,
    make_key,
    resolved,
)
from toolkit.cli.output import Config, Output
from toolkit.core.errors import ToolkitError

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run a client on the gateway once, touching no file of its own."
)

Arguments = Annotated[list[str] | None, typer.Argument(help="What follows -- goes to the client.")]
_PASS_ON = {"allow_interspersed_args": False}


@app.command(name="claude-code", context_settings=_PASS_ON)
def claude_code(
    arguments: Arguments = None,
    model: ModelName = None,
    small_model: SmallModel = None,
    opus: Opus = None,
    sonnet: Sonnet = None,
    haiku: Haiku = None,
    budget: Budget = None,
    reset: Reset = None,
    lean: Lean = False,
    direct: Direct = None,
    config: Config = None,
) -> None:
    """Run Claude Code on the gateway's models: toolkit launch claude-code -- -p "hello"."""
    from gateway.clients import claude_code as client

    program = _program(client.PROGRAM, client.PACKAGE)
    wanted = Wanted(client.NAME, model, small_model, opus, sonnet, haiku, budget, reset, direct, config)
    target, roles = resolved(wanted)
    client.check(roles, lean=lean)
    make_key(wanted, Output())
    env = client.environment(target, roles, lean=lean, shadowed=client.shadowed(None, os.environ))
    _run(*client.launch(program, env, target, arguments or [], lean=lean))


@app.command(context_settings=_PASS_ON)
def opencode(
    arguments: Arguments = None,
    model: ModelName = None,
    small_model: SmallModel = None,
    budget: Budget = None,
    reset: Reset = None,
    lean: Lean = False,
    direct: Direct = None,
    config: Config = None,
) -> None:
    """Run OpenCode on the gateway's models: toolkit launch opencode -- run "hello"."""
    from gateway.clients import opencode as client

    program = _program(client.PROGRAM, client.PACKAGE)
    wanted = Wanted(client.NAME, model, small_model, budget=budget, reset=reset, direct=direct, config=config)
    target, roles = resolved(wanted)
    client.check(roles, lean=lean)
    make_key(wanted, Output())
    _run(*client.launch(program, target, roles, arguments or [], lean=lean))


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ToolkitError(f"{name} is not installed, or not on PATH", hint=f"npm install --global {package}")
    return found


def _run(command: list[str], variables: dict[str, str]) -> None:
    """Become the client: its terminal, its signals, its exit code."""
    environment = {**os.environ, **variables}
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)  # noqa: S606  a list, and no shell
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
