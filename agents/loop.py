"""The agent loop: ask the model, call the tools it names, append what they gave, ask again, until it answers.

Read `run` first. The model, the tools, their order, the approval and the trace stand behind Protocols; the loop
knows nothing of HTTP, MCP or terminals.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agents.approval import Approval, auto
from agents.chat_model import ChatModel, Message, Reply, ToolCall, Usage
from agents.limits import Account, Ending, Limits
from agents.orders import Order, as_given
from agents.tool_arguments import checked
from agents.tool_host import Tool, ToolHost, ToolResult
from agents.trace import MemoryTrace, Trace, versions
from toolkit.core.units import format_duration

SYSTEM = "Use the tools where they help. When you know the answer, give it in plain words and call no tool."


@dataclass(frozen=True)
class Run:
    """What came of a task. `reason` is a sentence; `cost` is None if the endpoint named none at some step."""

    answer: str
    ending: Ending
    reason: str
    steps: int
    usage: Usage
    cost: int | None
    seconds: float


async def run(
    task: str,
    model: ChatModel,
    host: ToolHost,
    *,
    order: Order = as_given,
    approval: Approval = auto,
    limits: Limits = Limits(),
    trace: Trace | None = None,
    system: str = SYSTEM,
    seed: int | None = None,
) -> Run:
    """Work on `task` until the model answers or a limit ends it. The trace has an `end` event on every way out.

    Raises ToolkitError if the model cannot be asked, CancelledError if the caller gave up (Ctrl-C).
    """
    trace = trace or MemoryTrace()
    tools = host.tools()
    messages: list[Message] = [{"role": "system", "content": system}, {"role": "user", "content": task}]
    account, started = Account(), time.monotonic()
    trace.write(
        "start",
        task=task,
        model=model.name,
        limits=asdict(limits),
        seed=seed,
        tools=_described(tools),
        versions=versions(),
    )
    trace.write("messages", messages=list(messages))

    def end(ending: Ending, reason: str, answer: str = "") -> Run:
        seconds = round(time.monotonic() - started, 3)
        done = Run(answer, ending, reason, account.steps, account.usage, account.cost, seconds)
        trace.write("end", **asdict(done))
        return done

    try:
        async with asyncio.timeout(limits.seconds) as clock:
            while (over := account.ending(limits)) is None:
                ordered = order(tools, account.steps)
                trace.write("ask", step=account.steps, order=[tool.name for tool in ordered])
                left = None if limits.tokens is None else limits.tokens - account.usage.total_tokens
                reply = await model.ask(messages, [tool.openai() for tool in ordered], max_tokens=left, seed=seed)
                trace.write("reply", step=account.steps, **_recorded(reply))
                account.add(reply)
                messages.append(reply.message())
                if not reply.tool_calls:
                    if reply.finish_reason == "length":
                        return end(
                            Ending.CUT_OFF, "the reply was cut off at the model's or the run's limit", reply.text
                        )
                    return end(Ending.ANSWERED, "the model answered", reply.text)
                results = await _call_all(reply.tool_calls, tools, host, approval, limits, account, trace)
                for call, result in zip(reply.tool_calls, results, strict=True):
                    messages.append(
                        {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result.text}
                    )
            return end(*over)
    except (asyncio.CancelledError, KeyboardInterrupt):
        end(Ending.INTERRUPTED, "it was interrupted")
        raise
    except Exception as error:
        if isinstance(error, TimeoutError) and clock.expired():
            return end(Ending.TIME, f"the limit of {format_duration(limits.seconds or 0)} was reached")
        end(Ending.FAILED, str(error) or type(error).__name__)
        raise


async def _call_all(
    calls: Sequence[ToolCall],
    tools: Sequence[Tool],
    host: ToolHost,
    approval: Approval,
    limits: Limits,
    account: Account,
    trace: Trace,
) -> list[ToolResult]:
    """Check and approve the calls one after the other, then make them all at once. One result a call, in order."""
    by_name = {tool.name: tool for tool in tools}

    def refused(call: ToolCall) -> ToolResult | Mapping[str, Any]:
        tool = by_name.get(call.name)
        arguments = checked(call, tool, tools)
        if isinstance(arguments, ToolResult) or tool is None:
            account.bad_calls += 1
            return arguments
        account.bad_calls = 0
        return arguments if approval(tool, arguments) else ToolResult("the user did not allow this call", is_error=True)

    async def made(call: ToolCall, decided: ToolResult | Mapping[str, Any]) -> ToolResult:
        trace.write("call", step=account.steps - 1, id=call.id, name=call.name, arguments=call.arguments)
        begun = time.monotonic()
        result = decided if isinstance(decided, ToolResult) else await host.call(call.name, decided)
        shown = ToolResult(cut(result.text, limits.output), result.is_error)
        took = round(time.monotonic() - begun, 3)
        trace.write("result", step=account.steps - 1, id=call.id, name=call.name, seconds=took, **asdict(shown))
        return shown

    decisions = [refused(call) for call in calls]
    return await asyncio.gather(*(made(call, decided) for call, decided in zip(calls, decisions, strict=True)))


def cut(text: str, longest: int) -> str:
    """`text`, or its beginning and end with a note between that says how much is missing."""
    if len(text) <= longest:
        return text
    head, tail = longest - longest // 4, longest // 4
    note = f"\n[{len(text) - head - tail} of {len(text)} characters left out here]\n"
    return text[:head] + note + text[len(text) - tail :]


def _described(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [tool.openai()["function"] | {"server": tool.server} for tool in tools]


def _recorded(reply: Reply) -> dict[str, Any]:
    fields = asdict(reply)
    del fields["raw"]
    return json.loads(json.dumps(fields))  # type: ignore[no-any-return]
