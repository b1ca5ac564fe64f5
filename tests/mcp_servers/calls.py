"""One call of each server with what must stand in its answer, and a service on loopback for those that need one."""

import base64
import json
from io import BytesIO
from typing import Any, NamedTuple

from mcp.client.client import Client
from PIL import Image

from tests.mcp_servers.stand_ins import Answer, Asked


class Call(NamedTuple):
    """A call, and a piece of the text that answers it."""

    tool: str
    arguments: dict[str, Any]
    answer: str


CALLS = {
    "python": Call("run_python", {"code": "6 * 7"}, '"42"'),
    "spreadsheet": Call("query_spreadsheet", {"file": "t.csv", "sql": "SELECT sum(a) AS s FROM data"}, "3"),
    "prices": Call("crypto_price", {"coin": "btc"}, "60000"),
    "web": Call("web_search", {"query": "toolkit"}, "https://example.org/toolkit"),
    "files": Call("read_file", {"path": "t.csv"}, "a\\n1\\n2"),
    "images": Call("create_image", {"prompt": "a red square", "seed": 7}, '"seed":7'),
}


async def check(client: Client, call: Call) -> None:
    """Make the call and look at what comes back."""
    answer = await client.call_tool(call.tool, call.arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content
    assert call.answer in compact(str(getattr(answer.content[-1], "text", ""))), answer.content


def compact(text: str) -> str:
    """`text` without spaces, which every client sets differently in JSON."""
    return text.replace(" ", "")


def services(asked: Asked) -> Answer:
    """A stand-in for CoinGecko, SearXNG and a Stable Diffusion web UI at one address; the tests of each server say
    where its owner documents the format."""
    if asked.path == "/simple/price":
        return Answer({"bitcoin": {asked.query["vs_currencies"]: 60_000.0}})
    if asked.path == "/search":
        query = asked.query["q"]
        return Answer({"results": [{"title": query, "url": f"https://example.org/{query}", "content": ""}]})
    if asked.path == "/sdapi/v1/txt2img":
        body = json.loads(asked.body)
        return Answer({"images": [_red()], "info": json.dumps({"seed": body["seed"], "sd_model_name": "v1-5"})})
    return Answer({"progress": 0.0})


def options(service: str) -> dict[str, list[str]]:
    """What a server is started with so that it asks `service` and nothing of the outside."""
    return {
        "prices": ["--coingecko", service, "--coinbase", service],
        "web": ["--search", "searxng", "--search-url", service],
        "images": ["--url", service, "--save", "."],
    }


def _red() -> str:
    target = BytesIO()
    Image.new("RGB", (64, 64), "red").save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode()
