"""A double for Ollama, which cannot run here: `/api/tags`, `/api/show`, `/api/ps` and `/api/chat` in the format that
Ollama 0.12 writes (newline-delimited JSON; a tool call comes whole, its arguments as an object, without an id)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.gateway.clients.scripted_upstream import Script, Upstream
from tests.loopback import JsonHandler, on_loopback

TAG = "gemma3:4b"


@contextmanager
def ollama(script: Script, *, loaded_context: int | None = None) -> Iterator[Upstream]:
    """The server, while the context lasts; `loaded_context` is what `/api/ps` says the model was loaded with."""
    served = Upstream("", script)

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            models: list[dict[str, Any]] = [{"name": TAG, "model": TAG}]
            if self.path == "/api/ps":
                models = [{"name": TAG, "context_length": loaded_context}] if loaded_context else []
            self._send([{"models": models}])

        def do_POST(self) -> None:
            body = self.body()
            if self.path == "/api/show":
                info = {"general.architecture": "gemma3", "gemma3.context_length": 131_072}
                self._send([{"capabilities": ["completion", "tools"], "model_info": info, "parameters": ""}])
                return
            served.asked.append(body)
            says = served.script(body)
            calls = [
                {"function": {"index": number, "name": name, "arguments": arguments}}
                for number, (name, arguments) in enumerate(says.calls)
            ]
            message: dict[str, Any] = {"role": "assistant", "content": says.text}
            streamed = [message] if says.text or not calls else []
            lines = [calls] if says.together else [[call] for call in calls]
            streamed += [{"role": "assistant", "content": "", "tool_calls": line} for line in lines]
            if calls:
                message = {**message, "tool_calls": calls}
            frame = {"model": TAG, "created_at": "2026-01-01T00:00:00Z"}
            counts = {"prompt_eval_count": 100, "eval_count": 10, "total_duration": 1, "done_reason": "stop"}
            if body.get("stream", True):
                last = {"message": {"role": "assistant", "content": ""}, "done": True, **counts}
                self._send([*(frame | {"message": part, "done": False} for part in streamed), frame | last])
            else:
                self._send([frame | {"message": message, "done": True, **counts}])

        def _send(self, documents: list[dict[str, Any]]) -> None:
            content = "".join(json.dumps(document) + "\n" for document in documents)
            self.send(content, kind="application/x-ndjson" if len(documents) > 1 else "application/json")

    with on_loopback(Handler) as served.url:
        yield served
