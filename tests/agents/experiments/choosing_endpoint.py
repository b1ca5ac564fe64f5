"""An OpenAI-compatible endpoint on loopback whose choices are a function of the request: a double for a model whose
bias is known exactly."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import JsonHandler, on_loopback

Choose = Callable[[str, list[str]], dict[str, Any] | int]


@dataclass
class Choosing:
    """`choose` gets the request's text and the tools' names in order, and gives a message, or an HTTP status."""

    url: str
    choose: Choose
    asked: list[tuple[str, list[str]]] = field(default_factory=list)


def calls(name: str, arguments: str = "{}") -> dict[str, Any]:
    """A message that calls one tool."""
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def by_chance(shares: list[float]) -> Choose:
    """Chooses a position by these shares, drawn from a hash of the request: the same request, the same choice."""

    def choose(ask: str, names: list[str]) -> dict[str, Any]:
        drawn = int(hashlib.sha256(json.dumps([ask, names]).encode()).hexdigest()[:12], 16) / 16**12
        total = 0.0
        for name, share in zip(names, shares, strict=True):
            total += share
            if drawn < total:
                return calls(name)
        return calls(names[-1])

    return choose


@contextmanager
def choosing(choose: Choose) -> Iterator[Choosing]:
    """The endpoint, while the context lasts."""
    held = Choosing("", choose)

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            body = self.body()
            names = [tool["function"]["name"] for tool in body.get("tools", [])]
            ask = body["messages"][-1]["content"]
            held.asked.append((ask, names))
            said = held.choose(ask, names)
            if isinstance(said, int):
                self.send({"error": {"message": "no"}}, said)
            else:
                usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 60}}
                choice = {"index": 0, "message": said, "finish_reason": "stop"}
                self.send({"id": "1", "choices": [choice], "usage": usage})

    with on_loopback(Handler) as url:
        held.url = f"{url}/v1"
        yield held
