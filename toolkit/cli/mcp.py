"""`toolkit mcp`: list, run and call the MCP servers that come with the toolkit."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.output import Json, Output, Quiet
from toolkit.core.errors import ToolkitError, UsageError

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Run, call and register MCP servers.")

Name = Annotated[str, typer.Argument(help="A server, as `toolkit mcp list` names it.")]
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(name="list")
def list_servers(
    tools: Annotated[bool, typer.Option("--tools", help="Start each server and list its tools.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the servers that come with the toolkit."""
    from mcp_servers.catalogue import SERVERS

    out = Output(json=json, quiet=quiet)
    if not tools:
        rows = [{"server": name, "purpose": purpose} for name, purpose in SERVERS.items()]
        table = [(row["server"], row["purpose"]) for row in rows]
        out.result(rows, human=out.table(["SERVER", "PURPOSE"], table), quiet=list(SERVERS))
        return
    found: list[dict[str, Any]] = []
    with out.progress("starting servers", len(SERVERS), "servers") as progress:
        for name in SERVERS:
            found += [{"server": name, **tool.model_dump(by_alias=True, exclude_none=True)} for tool in _tools(name)]
            progress.advance()
    described = [(tool["server"], tool["name"], tool["description"]) for tool in found]
    out.result(
        found, human=out.table(["SERVER", "TOOL", "DESCRIPTION"], described), quiet=[tool["name"] for tool in found]
    )


@app.command(name="run", context_settings=_PASS_ON)
def run_server(context: typer.Context, name: Name) -> None:
    """Run a server on stdin and stdout, or with --http PORT on 127.0.0.1; further options: `run NAME --help`."""
    from mcp_servers.__main__ import run

    if name in ("-h", "--help"):
        typer.echo(context.get_help())
        return
    run(name, context.args)


@app.command(name="call", context_settings=_PASS_ON)
def call_tool(
    context: typer.Context,
    name: Name,
    tool: Annotated[str, typer.Argument(help="One of the server's tools.")],
    arguments: Annotated[str, typer.Argument(help="Its arguments, as a JSON object; - reads them from stdin.")] = "{}",
    json: Json = False,
) -> None:
    """Call one tool of a server once and print what it answers. Options of the server stand at the end."""
    import asyncio

    out = Output(json=json)
    given = _parsed(arguments)
    result = asyncio.run(_ask(name, list(context.args), lambda client: client.call_tool(tool, given)))
    text = "\n".join(_shown(block) for block in result.content)
    if result.is_error:
        raise ToolkitError(f"{tool}: {text}", hint=f"toolkit mcp list --tools --json  # the arguments of {tool}")
    document = result.structured_content
    out.result(document if document is not None else result.model_dump(by_alias=True, mode="json"), human=text)


@app.command(name="connect", context_settings={"ignore_unknown_options": True})
def connect_servers(
    client: Annotated[str, typer.Argument(help="claude-code or opencode.")],
    names: Annotated[
        list[str],
        typer.Argument(help="Servers of ours, or github (the hosted one). One may be followed by its options."),
    ],
    scope: Annotated[str, typer.Option(help="user: everywhere; project: in this folder.")] = "user",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make servers known to a client; undo: toolkit mcp disconnect."""
    import os
    from functools import partial

    from gateway.clients.mcp_entry import GITHUB, config_path, wishes
    from mcp_servers.catalogue import load
    from toolkit.cli.connect import put_in_place, scope_named

    out = Output(json=json, quiet=quiet)
    path = config_path(client, scope_named(scope), Path.cwd(), os.environ, Path.home())
    names, options = _with_options(names)
    for name in names:
        if name != GITHUB:
            load(name)
    if options:
        _check_options(client, names, options)
    done = [
        put_in_place(
            out,
            client,
            f"mcp {name}",
            path,
            partial(wishes, client, name, [sys.executable, "-P", "-m", "mcp_servers", name, *options]),
            {"scope": scope},
            dry_run=dry_run,
        )
        for name in dict.fromkeys(names)
    ]
    said = f"{client} starts {', '.join(names)}; undo: toolkit mcp disconnect {client} {' '.join(names)}"
    out.result(done, human="nothing was changed (--dry-run)" if dry_run else said, quiet=str(path))


@app.command(name="disconnect")
def disconnect_servers(
    client: Annotated[str, typer.Argument(help="claude-code or opencode.")],
    names: Annotated[list[str] | None, typer.Argument(help="Servers; default: all that were connected.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take back what `toolkit mcp connect` changed; what was edited by hand since stays."""
    from gateway.clients.config_file import entries
    from toolkit.cli.connect import take_back

    out = Output(json=json, quiet=quiet)
    wanted = {f"mcp {name}" for name in names or []}
    mine = [
        entry
        for entry in reversed(entries())
        if entry.client == client and entry.what.startswith("mcp ") and (not wanted or entry.what in wanted)
    ]
    missing = wanted - {entry.what for entry in mine}
    if missing or not mine:
        named = ", ".join(sorted(what.removeprefix("mcp ") for what in missing)) or "any server"
        raise ToolkitError(f"the toolkit has not connected {named} to {client}", hint="toolkit connect status")
    undone = take_back(out, mine, dry_run=dry_run)
    out.result(undone, human=None, quiet=[row["path"] for row in undone])


def _with_options(given: list[str]) -> tuple[list[str], list[str]]:
    """The names, and what follows them from the first option on."""
    first = next((place for place, text in enumerate(given) if text.startswith("-")), len(given))
    return given[:first], given[first:]


def _check_options(client: str, names: list[str], options: list[str]) -> None:
    """Raise UsageError unless they are options of the one server named."""
    from mcp_servers.catalogue import SERVERS, parser

    if len(names) != 1 or names[0] not in SERVERS:
        raise UsageError(
            f"options like {options[0]} are for one server of ours",
            hint=f"toolkit mcp connect {client} files --root FOLDER",
        )
    if parser(names[0]).parse_args(options).http is not None:
        raise UsageError(
            f"{client} starts the server itself, over stdio; leave out --http",
            hint=f"toolkit mcp connect {client} {names[0]}",
        )


def _parsed(text: str) -> dict[str, Any]:
    from json import JSONDecodeError, loads

    if text == "-":
        text = sys.stdin.read()
    try:
        document = loads(text)
    except JSONDecodeError as error:
        raise UsageError(
            f"the arguments are not JSON: {error}", hint="""write them like '{"query": "..."}'"""
        ) from None
    if not isinstance(document, dict):
        raise UsageError("the arguments must be a JSON object", hint="""write them like '{"query": "..."}'""")
    return document


def _shown(block: Any) -> str:
    return str(block.text) if block.type == "text" else f"<{block.type}>"


def _client(name: str, options: list[str]) -> Any:
    """A client of the server `name`, run the way a client's configuration would run it. Raises UsageError."""
    import os

    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    from mcp_servers.catalogue import parser

    parser(name).parse_args(options)
    command = StdioServerParameters(
        command=sys.executable, args=["-P", "-m", "mcp_servers", name, *options], env=dict(os.environ), cwd=Path.cwd()
    )
    return Client(stdio_client(command, errlog=sys.stderr))


async def _ask(name: str, options: list[str], question: Callable[[Any], Awaitable[Any]]) -> Any:
    """What the server answers to `question`. Raises ToolkitError if it ends before it answers."""
    from mcp.shared.exceptions import MCPError

    client = _client(name, options)
    try:
        async with client:
            return await question(client)
    except (MCPError, OSError, ExceptionGroup) as error:
        if isinstance(error, ExceptionGroup) and error.split((MCPError, OSError))[1] is not None:
            raise
        # What the server said of itself already stands on stderr.
        raise ToolkitError(
            f"the server {name} ended before it answered", hint=f"toolkit mcp run {name} --help"
        ) from None


def _tools(name: str) -> list[Any]:
    import asyncio

    return list(asyncio.run(_ask(name, [], lambda client: client.list_tools())).tools)
