"""The loop end to end: a virtual key, the real gateway, real inference, real MCP servers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.chat_model import OpenAIChatModel
from agents.loop import Limits, run
from agents.tool_host import McpToolHost, Tool, ToolHost, ToolResult
from agents.trace import MemoryTrace
from tests.conftest import LiveGateway

pytestmark = pytest.mark.slow

# What fits into the built-in model's context.
OFFERED = ("run_python", "query_spreadsheet", "crypto_price")
TASK = "Query the spreadsheet sales.csv for the total amount."


class Some:
    """The tools of a host that are offered here."""

    def __init__(self, host: ToolHost) -> None:
        self._host = host

    def tools(self) -> list[Tool]:
        return [tool for tool in self._host.tools() if tool.name in OFFERED]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        return await self._host.call(name, arguments)


async def test_the_built_in_model_calls_the_right_tool_through_the_gateway(
    gateway: LiveGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sales.csv").write_text("item,amount\na,50\nb,150\nc,250\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    key = gateway.key("agent-loop", budget_tokens=1_000_000)
    trace = MemoryTrace()
    async with (
        OpenAIChatModel(f"{gateway.url}/v1", key, "toolkit-tiny", free=True) as model,
        McpToolHost(["python", "spreadsheet", "prices"]) as host,
    ):
        done = await run(TASK, model, Some(host), limits=Limits(steps=1, cost=0), trace=trace)
    assert done.usage.completion_tokens > 0
    assert done.cost == 0
    assert [event["name"] for event in trace.events if event["event"] == "call"] == ["query_spreadsheet"]
