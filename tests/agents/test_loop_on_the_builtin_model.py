"""The loop end to end: a virtual key, the real gateway, real inference, real MCP servers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.chat_model import OpenAIChatModel
from agents.limits import Ending, Limits
from agents.loop import run
from agents.tool_host import McpToolHost, Tool, ToolHost, ToolResult
from agents.trace import MemoryTrace
from tests.conftest import LiveGateway

pytestmark = pytest.mark.slow

# A request, the tools offered (what fits into the built-in model's context), the right one and what it must be given.
TASKS: list[tuple[str, tuple[str, ...], str, dict[str, str]]] = [
    (
        "Query the spreadsheet sales.csv for the total amount.",
        ("run_python", "query_spreadsheet", "crypto_price"),
        "query_spreadsheet",
        {"file": "sales.csv"},
    ),
    (
        "Get the current market price of bitcoin.",
        ("run_python", "query_spreadsheet", "crypto_price"),
        "crypto_price",
        {"coin": "bitcoin"},
    ),
    ("Read the file note.txt", ("read_file", "crypto_price", "run_python"), "read_file", {"path": "note.txt"}),
    (
        "What files are in the folder notes?",
        ("list_files", "crypto_price", "run_python"),
        "list_files",
        {"path": "notes"},
    ),
    (
        "Run this Python code: print(6*7)",
        ("read_file", "crypto_price", "run_python"),
        "run_python",
        {"code": "print(6*7)"},
    ),
]


class Some:
    """The tools of a host that are offered here, in this order."""

    def __init__(self, host: ToolHost, offered: tuple[str, ...]) -> None:
        self._host, self._offered = host, offered

    def tools(self) -> list[Tool]:
        return [tool for name in self._offered for tool in self._host.tools() if tool.name == name]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        return await self._host.call(name, arguments)


@pytest.mark.parametrize(("task", "offered", "tool", "given"), TASKS, ids=[task[2] for task in TASKS])
async def test_the_built_in_model_calls_the_right_tool_through_the_gateway(
    gateway: LiveGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    offered: tuple[str, ...],
    tool: str,
    given: dict[str, str],
) -> None:
    (tmp_path / "sales.csv").write_text("item,amount\na,50\nb,150\nc,250\n", encoding="utf-8")
    (tmp_path / "note.txt").write_text("a note\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    key = gateway.key(f"agent-{tool}", budget_tokens=1_000_000)
    trace = MemoryTrace()
    async with (
        OpenAIChatModel(f"{gateway.url}/v1", key, "toolkit-tiny", free=True) as model,
        McpToolHost(["python", "spreadsheet", "prices", "files"]) as host,
    ):
        done = await run(task, model, Some(host, offered), limits=Limits(steps=1, cost=0), trace=trace)
    assert done.usage.completion_tokens > 0
    assert done.cost == 0
    (call,) = [event for event in trace.events if event["event"] == "call"]
    assert call["name"] == tool
    arguments = json.loads(call["arguments"])
    assert given.items() <= arguments.items(), arguments


async def test_after_the_result_the_built_in_model_answers_and_the_loop_ends(
    gateway: LiveGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "note.txt").write_text("a note\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    trace = MemoryTrace()
    async with (
        OpenAIChatModel(f"{gateway.url}/v1", gateway.key("agent-answer"), "toolkit-tiny", free=True) as model,
        McpToolHost(["python", "files"]) as host,
    ):
        offered = Some(host, ("read_file", "run_python"))
        done = await run("Read the file note.txt", model, offered, limits=Limits(steps=4, cost=0), trace=trace)
    # It quotes the first line of a result and calls nothing more: a loop with it ends by itself.
    (result,) = [event for event in trace.events if event["event"] == "result"]
    assert "a note" in json.dumps(result)
    assert (done.ending, done.steps) == (Ending.ANSWERED, 2)
    assert done.answer.startswith("The tool answered:")
