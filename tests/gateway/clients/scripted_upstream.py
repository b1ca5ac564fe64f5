"""An OpenAI-compatible server on loopback whose answers are written beforehand: a double for a model, since what
the clients do with an exact answer must be seen. Speaks as llama.cpp's server and vLLM do, streamed and not."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import JsonHandler, on_loopback

Body = dict[str, Any]


@dataclass(frozen=True)
class Says:
    """An answer: text, or calls of tools as (name, arguments); Ollama sends them one a line, or all `together`."""

    text: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    together: bool = False


Script = Callable[[Body], Says]


@dataclass
class Upstream:
    """What was asked, and what is answered."""

    url: str
    script: Script
    asked: list[Body] = field(default_factory=list)


@contextmanager
def upstream(script: Script, context: int = 65_536) -> Iterator[Upstream]:
    """The server, while the context lasts."""
    served = Upstream("", script)

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            models = {"object": "list", "data": [{"id": "scripted", "object": "model", "max_model_len": context}]}
            self.send(models)

        def do_POST(self) -> None:
            body = self.body()
            served.asked.append(body)
            says = served.script(body)
            if body.get("stream"):
                self.send("".join(f"data: {chunk}\n\n" for chunk in _chunks(says)), kind="text/event-stream")
            else:
                self.send(_whole(says))

    with on_loopback(Handler) as served.url:
        yield served


def results(body: Body) -> list[str]:
    """The results of tools that the client has sent back so far."""
    return [_text(message["content"]) for message in body["messages"] if message["role"] == "tool"]


def tool_names(body: Body) -> list[str]:
    return [tool["function"]["name"] for tool in body.get("tools") or []]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _calls(says: Says) -> list[dict[str, Any]]:
    return [
        {
            "index": number,
            "id": f"call_{next(_IDENTITIES)}",  # clients drop a call whose id they have seen
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(says.calls)
    ]


def _whole(says: Says) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": says.text or None}
    if says.calls:
        message["tool_calls"] = _calls(says)
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if says.calls else "stop"}
    return _frame("chat.completion", [choice]) | {"usage": _USAGE}


def _chunks(says: Says) -> Iterator[str]:
    """As vLLM streams: the role, the text, each call's name first and its arguments in pieces, the end, the usage."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if says.text:
        deltas.append({"content": says.text})
    for call in _calls(says):
        arguments = call["function"]["arguments"]
        deltas.append({"tool_calls": [{**call, "function": {"name": call["function"]["name"], "arguments": ""}}]})
        for piece in (arguments[:9], arguments[9:]):
            deltas.append({"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]})
    for delta in deltas:
        yield json.dumps(_frame("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": None}]))
    finish = "tool_calls" if says.calls else "stop"
    yield json.dumps(_frame("chat.completion.chunk", [{"index": 0, "delta": {}, "finish_reason": finish}]))
    yield json.dumps(_frame("chat.completion.chunk", []) | {"usage": _USAGE})
    yield "[DONE]"


_IDENTITIES = itertools.count()
_USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def _frame(kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "scripted", "choices": choices}
