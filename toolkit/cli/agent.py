"""`toolkit agent`: run a minimal agent over MCP tools, and show what a run did."""

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.endpoint import Endpoint, endpoint
from toolkit.cli.output import Json, Output, Quiet
from toolkit.core.errors import ToolkitError, UsageError

if TYPE_CHECKING:
    from agents.approval import Approval
    from agents.limits import Limits
    from agents.loop import Run
    from agents.orders import Order
    from agents.tool_host import McpServer, Tool

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Run a minimal agent over MCP tools.")


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="What the agent is to do; - reads it from stdin.")],
    model: Annotated[str | None, typer.Option(help="Model to ask; may be left out where there is only one.")] = None,
    tools: Annotated[str, typer.Option(help="The toolkit's own MCP servers, by comma: spreadsheet,python.")] = "",
    server: Annotated[
        list[str] | None, typer.Option(help="Another MCP server: 'name=command args' or name=URL.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Requests to the model at most.")] = 20,
    max_tokens: Annotated[str | None, typer.Option(help="Tokens of all requests at most, for example 100k.")] = None,
    max_time: Annotated[str | None, typer.Option(help="How long at most, for example 5m.")] = None,
    budget: Annotated[str | None, typer.Option(help="What it may cost, for example 0.10usd.")] = None,
    order: Annotated[
        str,
        typer.Option(
            help="Of the tools: as-given, alphabetical, claude-code, opencode, shuffle, shuffle-each-step or 2,0,1."
        ),
    ] = "as-given",
    seed: Annotated[int | None, typer.Option(help="Seed of a shuffled order and of the model's sampling.")] = None,
    approve: Annotated[str, typer.Option(help="Before each tool call: ask, auto (allow) or never (refuse).")] = "ask",
    protocol: Annotated[str, typer.Option(help="How tools are called: native, or react (as text).")] = "native",
    system: Annotated[str | None, typer.Option(help="System prompt instead of the short default.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Another OpenAI-compatible endpoint than the gateway.")] = None,
    key: Annotated[str | None, typer.Option(help="The key as env:NAME; default: TOOLKIT_KEY.")] = None,
    timeout: Annotated[str, typer.Option(help="Longest silence of the model.")] = "10m",
    trace: Annotated[Path | None, typer.Option(help="Where the trace goes; default: the state folder.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Work on a task with tools until the model answers or a limit ends it."""
    from agents.limits import Ending
    from agents.loop import SYSTEM

    out = Output(json=json, quiet=quiet)
    task = _text(sys.stdin.read() if task == "-" else task)
    path = trace or _new_trace()
    # A stream names no cost until its end, and often not then: with a budget, whole replies are asked for.
    live = sys.stderr.isatty() and not (json or quiet or budget)
    finished = _interruptible(
        _work(
            out,
            task,
            where=endpoint(base_url, key, [model] if model else [], purpose="agent"),
            servers=_servers(tools, server or []),
            order=_order(order, seed),
            approval=_approval(approve, tools=bool(tools or server)),
            limits=_limits(max_steps, max_tokens, max_time, budget),
            react=_react(protocol),
            system=system or SYSTEM,
            seed=seed,
            timeout=timeout,
            live=live,
            trace=path,
        ),
        path,
    )
    seen = live and sys.stdout.isatty()
    answer = None if seen else finished.answer or None
    out.result({**_document(finished), "trace": str(path)}, human=answer, quiet=finished.answer)
    out.note(f"trace: {path}")
    if finished.ending is not Ending.ANSWERED:
        raise ToolkitError(f"the run ended without an answer: {finished.reason}", hint=f"toolkit agent replay {path}")


@app.command()
def replay(
    trace: Annotated[Path, typer.Argument(help="A trace that `toolkit agent run` wrote.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a run did, from its trace."""
    from agents.trace import read_trace
    from agents.transcript import described

    events = read_trace(trace)
    lines = [text for event in events if (text := described(event))]
    answers = [event["answer"] for event in events if event["event"] == "end"]
    if not answers:
        lines.append("(the trace ends here: the run was cut short)")
    Output(json=json, quiet=quiet).result(events, human="\n".join(lines), quiet=answers[-1:])


def _text(task: str) -> str:
    """The task, if it is text: bytes of another encoding come as half surrogates, which no endpoint takes."""
    try:
        task.encode()
    except UnicodeEncodeError:
        raise UsageError("the task is not text in UTF-8", hint="iconv -t utf-8 TASK | toolkit agent run -") from None
    if not task.strip():
        raise UsageError("the task is empty", hint='toolkit agent run "What is 6 * 7?"')
    return task


async def _work(
    out: Output,
    task: str,
    *,
    where: Endpoint,
    servers: "list[McpServer]",
    order: "Order",
    approval: "Approval",
    limits: "Limits",
    react: bool,
    system: str,
    seed: int | None,
    timeout: str,
    live: bool,
    trace: Path,
) -> "Run":
    from agents.chat_model import OpenAIChatModel
    from agents.loop import run as run_loop
    from agents.react import STOP, ReActModel
    from agents.tool_host import McpToolHost
    from agents.trace import FileTrace
    from toolkit.core.units import parse_duration

    asked = OpenAIChatModel(
        where.base_url,
        where.api_key,
        where.models[0],
        free=where.free,
        timeout=parse_duration(timeout),
        on_text=_speak if live else None,
        extra={"stop": list(STOP)} if react else None,
    )
    with FileTrace(trace) as file:
        async with asked, McpToolHost(servers) as host:
            return await run_loop(
                task,
                ReActModel(asked) if react else asked,
                host,
                order=order,
                approval=approval,
                limits=limits,
                trace=_Shown(file, out, spoken=live),
                system=system,
                seed=seed,
            )


class _Shown:
    """Hands events to a trace and shows them on stderr."""

    def __init__(self, trace: Any, out: Output, *, spoken: bool) -> None:
        self._trace, self._out, self._spoken = trace, out, spoken

    def write(self, event: str, **fields: Any) -> None:
        from agents.transcript import described

        self._trace.write(event, **fields)
        text = described({"event": event, **fields}, spoken=self._spoken)
        if self._spoken and event == "reply" and fields["text"]:
            _speak("\n")
        if text and not self._out.json:
            self._out.note(text)


def _speak(text: str) -> None:
    from agents.transcript import printable

    sys.stderr.write(printable(text))
    sys.stderr.flush()


def _interruptible(work: Any, trace: Path) -> "Run":
    try:
        finished: Run = asyncio.run(work)
    except KeyboardInterrupt:
        sys.stderr.write(f"\ntrace kept: {trace}\n")
        raise
    return finished


def _document(finished: "Run") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(finished)


def _servers(tools: str, others: list[str]) -> "list[McpServer]":
    from agents.tool_host import McpServer, bundled_server

    servers = [bundled_server(name.strip()) for name in tools.split(",") if name.strip()]
    for text in others:
        name, separator, rest = text.partition("=")
        if not (name and separator and rest.strip()):
            raise UsageError(f"{text!r} is no MCP server", hint="--server 'notes=npx some-server' or notes=http://...")
        if rest.startswith(("http://", "https://")):
            servers.append(McpServer(name, url=rest))
        else:
            servers.append(McpServer(name, tuple(shlex.split(rest))))
    return servers


def _order(name: str, seed: int | None) -> "Order":
    from agents.orders import named

    if name.startswith("shuffle") and seed is None:
        raise UsageError("a shuffled order needs a seed, so that it can be had again", hint=f"--order {name} --seed 7")
    return named(name, seed=seed or 0)


def _limits(steps: int, tokens: str | None, seconds: str | None, budget: str | None) -> "Limits":
    from agents.limits import Limits
    from toolkit.core.units import parse_count, parse_duration, parse_money

    return Limits(
        steps=steps,
        tokens=parse_count(tokens) if tokens else None,
        cost=parse_money(budget) if budget else None,
        seconds=parse_duration(seconds) if seconds else None,
    )


def _react(protocol: str) -> bool:
    if protocol not in ("native", "react"):
        raise UsageError(f"there is no protocol {protocol}; there are native and react", hint="--protocol react")
    return protocol == "react"


def _approval(how: str, *, tools: bool) -> "Approval":
    from agents.approval import Asking, auto, never

    if how == "auto":
        return auto
    if how == "never":
        return never
    if how != "ask":
        raise UsageError(f"--approve is ask, auto or never, not {how}", hint="--approve ask")
    if tools and not sys.stdin.isatty():
        raise UsageError("tool calls need approval, and there is no terminal to ask on", hint="add --approve auto")
    return Asking(_question)


def _question(tool: "Tool", arguments: Mapping[str, Any]) -> str:
    """Ask on the terminal. Ctrl-C here ends the run at once: the event loop would only note it."""
    import json
    import signal

    shown = json.dumps(arguments, ensure_ascii=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while True:
            sys.stderr.write(f"allow {tool.name}({shown})? [y]es, [n]o, [a]lways for {tool.name}: ")
            sys.stderr.flush()
            answer = sys.stdin.readline()
            if not answer:
                return "no"
            for word in ("yes", "no", "always"):
                if answer.strip() and word.startswith(answer.strip().lower()):
                    return word
    finally:
        signal.signal(signal.SIGINT, before)


def _new_trace() -> Path:
    from toolkit.core.paths import state_dir

    return state_dir() / "traces" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl"
