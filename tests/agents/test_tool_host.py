import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from agents.tool_host import McpServer, McpToolHost, Tool, bundled_server
from toolkit.core.errors import ToolkitError, UsageError

SCRIPT = str(Path(__file__).with_name("arithmetic_server.py"))
ARITHMETIC = McpServer("arithmetic", (sys.executable, "-P", SCRIPT))


async def test_the_tools_of_a_server_come_with_name_description_schema_and_server() -> None:
    async with McpToolHost([ARITHMETIC]) as host:
        tools = host.tools()
    assert [tool.name for tool in tools][:2] == ["add", "divide"]
    add = tools[0]
    assert (add.description, add.server) == ("Add two whole numbers.", "arithmetic")
    assert add.parameters["required"] == ["a", "b"]
    assert add.openai() == {
        "type": "function",
        "function": {"name": "add", "description": "Add two whole numbers.", "parameters": add.parameters},
    }


async def test_a_call_gives_text_and_faults_come_back_as_results() -> None:
    async with McpToolHost([ARITHMETIC]) as host:
        right = await host.call("add", {"a": 2, "b": 3})
        wrong = await host.call("divide", {"a": 1, "b": 0})
        misfit = await host.call("add", {"a": "two"})
        unknown = await host.call("multiply", {})
        picture = await host.call("picture", {})
    assert (right.text, right.is_error) == ("5", False)
    assert wrong.is_error
    assert "b must not be 0" in wrong.text
    assert misfit.is_error
    assert (unknown.is_error, "add, divide" in unknown.text) == (True, True)
    assert picture.text == "[image, image/png, 4 bytes]"


async def test_calls_are_made_at_the_same_time(tmp_path: Path) -> None:
    async with McpToolHost([ARITHMETIC]) as host:
        meet = [{"name": a, "peer": b, "folder": str(tmp_path)} for a, b in (("x", "y"), ("y", "x"))]
        results = await asyncio.gather(*(host.call("wait_for_peer", arguments) for arguments in meet))
    assert [result.text for result in results] == ["x met y", "y met x"]


async def test_a_call_that_takes_too_long_is_an_error_and_the_next_one_works() -> None:
    async with McpToolHost([ARITHMETIC], timeout=0.2) as host:
        slow = await host.call("never_ends", {})
    assert slow.is_error
    async with McpToolHost([ARITHMETIC]) as host:
        assert not (await host.call("add", {"a": 1, "b": 1})).is_error


async def test_a_server_that_dies_is_an_error_for_this_call_and_the_next() -> None:
    async with McpToolHost([ARITHMETIC], timeout=10) as host:
        died = await host.call("die", {})
        after = await host.call("add", {"a": 1, "b": 1})
    assert died.is_error
    assert after.is_error
    assert "arithmetic" in after.text or "closed" in after.text.lower()


async def test_two_servers_that_share_a_name_get_it_with_their_own_in_front() -> None:
    other = McpServer("sums", ARITHMETIC.command)
    async with McpToolHost([ARITHMETIC, other]) as host:
        names = [tool.name for tool in host.tools()]
        result = await host.call("sums__add", {"a": 1, "b": 2})
    assert {"arithmetic__add", "sums__add"} <= set(names)
    assert "add" not in names
    assert result.text == "3"


async def test_a_foreign_server_does_not_see_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with McpToolHost([ARITHMETIC]) as host:
        assert (await host.call("environment", {"name": "OPENAI_API_KEY"})).text == "unset"
    given = McpServer("arithmetic", ARITHMETIC.command, {"OPENAI_API_KEY": "sk-given"})
    async with McpToolHost([given]) as host:
        assert (await host.call("environment", {"name": "OPENAI_API_KEY"})).text == "sk-given"


async def test_a_server_that_does_not_start_is_refused_with_its_last_words_and_the_others_end() -> None:
    broken = McpServer("broken", (sys.executable, "-P", SCRIPT, "--broken"))
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ToolkitError, match="the MCP server broken did not start: the abacus is missing"):
        async with McpToolHost([ARITHMETIC, broken]):
            pass
    assert {child for child in psutil.Process().children(recursive=True) if child.is_running()} <= before


async def test_a_command_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ToolkitError, match="the MCP server ghost did not start") as refused:
        async with McpToolHost([McpServer("ghost", ("no-such-program", "--x"))]):
            pass
    assert "there is no program no-such-program" in refused.value.message
    assert refused.value.hint == "which no-such-program"


def test_two_servers_of_one_name_are_refused_since_their_tools_could_not_be_told_apart() -> None:
    with pytest.raises(UsageError, match="two MCP servers are named arithmetic"):
        McpToolHost([ARITHMETIC, ARITHMETIC])


async def test_an_address_where_nothing_listens_is_refused() -> None:
    with pytest.raises(ToolkitError, match="cannot be reached"):
        async with McpToolHost([McpServer("far", url="http://127.0.0.1:9/mcp")]):
            pass


def test_an_unknown_server_of_ours_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ToolkitError, match="files, images, prices, python, spreadsheet, web"):
        bundled_server("abacus")
    assert bundled_server("web").command[-2:] == ("mcp_servers", "web")


def test_a_tool_without_a_server_is_one_of_the_agent_s_own() -> None:
    assert Tool("t", "d", {}).server == ""
