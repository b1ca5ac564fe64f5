"""The entry point: finds the noun's file, runs its command, turns errors into a sentence, a hint and an exit code.

Nothing heavy is imported here. A noun's module is imported only when one of its commands is run.
"""

import sys
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from toolkit import __version__
from toolkit.core.errors import ToolkitError, UsageError, from_os_error

# noun -> what the list of commands says about it; the module is toolkit.cli.<noun>, its `app` a Typer.
NOUNS = {
    "demo": "Everything in one go on the built-in model: gateway, key, experiment, report",
    "doctor": "Say what is wrong on this machine, and the command that mends it",
    "models": "List, check, pull, verify and serve models",
    "gateway": "Start, watch and stop the gateway in front of the models",
    "keys": "Virtual keys and their budgets",
    "spend": "What was spent, by key, model, day or client",
    "connect": "Point Claude Code or OpenCode at the gateway, and undo it",
    "launch": "Run a client on the gateway once, touching no file of its own",
    "mcp": "Run, call and register MCP servers",
    "agent": "Run a minimal agent over MCP tools",
    "bias": "Measure how models choose tools",
    "judge": "Measure the position bias of a model that judges",
    "quant": "Measure what a quantisation costs",
    "suite": "List, check and import sets of tasks",
}


class NounGroup(TyperGroup):
    """Lists the nouns from the table; imports a noun's file only to run or complete it."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in NOUNS:
            return None
        return TyperCommand(cmd_name, help=NOUNS[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and name in NOUNS:
            noun: typer.Typer = import_module(f"toolkit.cli.{name}").app
            noun._add_completion = False  # the options that install completion stand on `toolkit` itself
            command = get_command(noun)
            command.name = name
        return name, command, rest


# typer carries its own click and exports no name for the base of its usage errors.
_CLICK_ERROR: type[Exception] = cast(type[Exception], typer.BadParameter.__mro__[2])

app = typer.Typer(
    cls=NounGroup,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would double the time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"toolkit {__version__}")
        raise typer.Exit


@app.callback()
def toolkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run language models on your own machine, and point coding agents at them."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    command: Any = get_command(app)
    try:
        code = command.main(args=arguments, prog_name="toolkit", standalone_mode=False)
    except typer.Abort:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except _CLICK_ERROR as error:
        return _report_usage(error)
    except ToolkitError as error:
        from toolkit.cli.output import report_error

        report_error(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (`toolkit ... | head`): not our failure, and nothing more can be said.
        sys.stderr.close()
        return 1
    except OSError as error:
        known = from_os_error(error)
        if known is None:
            raise
        from toolkit.cli.output import report_error

        report_error(known)
        return known.exit_code
    if code == 130:  # how typer reports Ctrl-C
        print("interrupted", file=sys.stderr)  # noqa: T201
    return code if isinstance(code, int) else 0


def _report_usage(error: Any) -> int:
    from toolkit.cli.output import report_error

    path = error.ctx.command_path if getattr(error, "ctx", None) else "toolkit"
    report_error(UsageError(error.format_message().rstrip("."), hint=f"{path} --help"))
    return 2


if __name__ == "__main__":
    main()
