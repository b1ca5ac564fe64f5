"""A stand-in for a hosted API: OpenAI's chat, responses and embeddings, scripted by the model's name.

`echo` answers in max_tokens tokens or fewer; `slow` waits first; `breaks` dies in the middle of a stream; `fails`
answers 500; `caches` reads half of the prompt from a cache and writes a part of it into one. It counts what it was
asked and what it would bill: what a real provider would put on the invoice.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import uvicorn

from gateway.lifeline import watch

WORDS = 40  # tokens of an answer, unless the request allows fewer
PROMPT = 20  # tokens billed for a prompt
CACHED, WRITTEN = 10, 4  # of those, read from a cache and written into one, by `caches`
PAUSE = float(os.environ.get("UPSTREAM_PAUSE", "0.05"))  # seconds between the words of `drips`
counts: Counter[str] = Counter()
bodies: list[dict[str, Any]] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return None
    raw = b""
    while True:
        part = await receive()
        raw += part.get("body", b"")
        if not part.get("more_body"):
            break
    path = scope["path"]
    if path == "/counts":
        return await _json(send, 200, {"counts": counts, "last": bodies[-1] if bodies else None})
    if path == "/health":
        return await _json(send, 200, {})
    body = json.loads(raw or b"{}")
    bodies[:] = [body]
    model = body.get("model", "")
    counts["requests"] += 1
    counts[model] += 1
    if model == "fails":
        return await _json(send, 500, {"error": {"message": "upstream failed", "type": "server_error"}})
    if path.endswith("/embeddings"):
        counts["billed_tokens"] += 5
        data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
        usage = {"prompt_tokens": 5, "total_tokens": 5}
        return await _json(send, 200, {"object": "list", "model": model, "data": data, "usage": usage})
    if model == "slow":
        await asyncio.sleep(float(os.environ.get("UPSTREAM_SLOW", "0.5")))
    dialect = _Responses(model) if path.endswith("/responses") else _Chat(model, body)
    limits = [body[name] for name in ("max_tokens", "max_completion_tokens", "max_output_tokens") if body.get(name)]
    words = min([WORDS, *limits]) * int(body.get("n") or 1)
    if not body.get("stream"):
        counts["billed_tokens"] += PROMPT + words
        return await _json(send, 200, dialect.whole(words))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    counts["billed_tokens"] += PROMPT
    gone = asyncio.create_task(_hung_up(receive))
    for event in dialect.start():
        await _event(send, event)
    for number in range(words):
        if gone.done():
            counts["hung_up"] += 1
            return None
        if model == "breaks" and number == 5:
            gone.cancel()
            raise ConnectionResetError("the stand-in breaks off here, as told")
        await asyncio.sleep(PAUSE if model in ("drips", "breaks") else 0)
        counts["billed_tokens"] += 1
        await _event(send, dialect.word(number))
    gone.cancel()
    for event in dialect.end(words):
        await _event(send, event)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    return None


class _Chat:
    """OpenAI's chat completions."""

    def __init__(self, model: str, body: dict[str, Any]) -> None:
        self.base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model}
        self.cached = model == "caches"
        self.with_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def whole(self, words: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": "word " * words}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return self.base | {"object": "chat.completion", "choices": choices, "usage": self.usage(words)}

    def start(self) -> Iterator[dict[str, Any]]:
        yield self.base | {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]}

    def word(self, number: int) -> dict[str, Any]:
        return self.base | {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}

    def end(self, words: int) -> Iterator[dict[str, Any]]:
        yield self.base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        if self.with_usage:
            yield self.base | {"choices": [], "usage": self.usage(words)}

    def usage(self, words: int) -> dict[str, Any]:
        counts = {"prompt_tokens": PROMPT, "completion_tokens": words, "total_tokens": PROMPT + words}
        cached = {"cached_tokens": CACHED, "cache_creation_tokens": WRITTEN}
        return counts | ({"prompt_tokens_details": cached} if self.cached else {})


class _Responses:
    """OpenAI's responses."""

    def __init__(self, model: str) -> None:
        self.base = {"id": "resp_1", "object": "response", "created_at": 1, "model": model, "output": []}
        self.base |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}

    def whole(self, words: int) -> dict[str, Any]:
        content = [{"type": "output_text", "text": "word " * words, "annotations": []}]
        message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}
        usage = {"input_tokens": PROMPT, "output_tokens": words, "total_tokens": PROMPT + words}
        return self.base | {"status": "completed", "output": [message], "usage": usage}

    def start(self) -> Iterator[dict[str, Any]]:
        yield {"type": "response.created", "sequence_number": 0, "response": self.base | {"status": "in_progress"}}

    def word(self, number: int) -> dict[str, Any]:
        where = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": number + 1}
        return {"type": "response.output_text.delta", "delta": "word ", "logprobs": [], **where}

    def end(self, words: int) -> Iterator[dict[str, Any]]:
        yield {"type": "response.completed", "sequence_number": words + 1, "response": self.whole(words)}


async def _event(send: Any, document: dict[str, Any]) -> None:
    await send({"type": "http.response.body", "body": f"data: {json.dumps(document)}\n\n".encode(), "more_body": True})


async def _hung_up(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _json(send: Any, status: int, document: dict[str, Any]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


if __name__ == "__main__":
    watch()
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="critical",
        access_log=False,
        timeout_keep_alive=300,
    )
