"""A scripted OpenAI-compatible endpoint on loopback: a double for servers whose faults cannot be had on demand."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import JsonHandler, on_loopback


@dataclass
class Answer:
    """One answer: a document (JSON), or text as it is; `drop` closes the connection after what was sent."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    wait: threading.Event | None = None
    reached: threading.Event | None = None


@dataclass
class Endpoint:
    """Answers in turn; keeps request bodies and headers."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def will(self, *answers: Answer | Any) -> None:
        self.answers += [answer if isinstance(answer, Answer) else Answer(answer) for answer in answers]


def completion(text: str | None = "", *, calls: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A chat completion as llama.cpp's server writes it."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        **more,
    }


def call(name: str, arguments: str, identity: str = "call_a") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def events(*chunks: Any) -> Answer:
    """A stream of server-sent events, ended as OpenAI ends it."""
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
    return Answer("".join(lines), headers={"Content-Type": "text/event-stream"})


def delta(finish: str | None = None, **content: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": content, "finish_reason": finish}]}


@contextmanager
def serving() -> Iterator[Endpoint]:
    """The endpoint, while the context lasts."""
    served = Endpoint()

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            served.asked.append(self.body())
            served.headers.append({key.lower(): value for key, value in self.headers.items()})
            answer = served.answers.pop(0)
            if answer.reached is not None:
                answer.reached.set()
            if answer.wait is not None:
                answer.wait.wait(20)
            body = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
            if answer.drop and answer.body is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for key, value in ({"Content-Type": "application/json"} | answer.headers).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body) + (1000 if answer.drop else 0)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = answer.drop

    with on_loopback(Handler) as url:
        served.url = f"{url}/v1"
        yield served
        for answer in served.answers:
            if answer.wait is not None:
                answer.wait.set()
