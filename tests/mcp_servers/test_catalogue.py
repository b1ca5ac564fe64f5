import re
from pathlib import Path

import pytest
from mcp.client.client import Client

from mcp_servers.catalogue import SERVERS, load, parser

SUITE = {
    "web": ["web_search", "read_page"],
    "python": ["run_python"],
    "prices": ["crypto_price"],
    "spreadsheet": ["query_spreadsheet"],
}


@pytest.fixture(params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_every_tool_says_what_it_is_for_and_what_it_does_to_the_world(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Client(load(name).build(parser(name).parse_args([]))) as client:
        tools = (await client.list_tools()).tools
    assert set(SUITE.get(name, [])) <= {tool.name for tool in tools}
    for tool in tools:
        words = len((tool.description or "").split())
        assert 10 <= words <= 40, f"{tool.name}: {words} words"
        assert tool.annotations is not None
        assert None not in (
            tool.annotations.read_only_hint,
            tool.annotations.destructive_hint,
            tool.annotations.idempotent_hint,
            tool.annotations.open_world_hint,
        )
        assert tool.output_schema is not None
        for argument, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), f"{tool.name}.{argument}"


async def test_no_schema_holds_what_unrolls_into_a_large_grammar(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Client(load(name).build(parser(name).parse_args([]))) as client:
        schemas = str([tool.input_schema for tool in (await client.list_tools()).tools])
    assert "maxLength" not in schemas
    assert "maxItems" not in schemas
    assert all(int(count) <= 64 for count in re.findall(r"\{\d+,(\d+)\}", schemas))
