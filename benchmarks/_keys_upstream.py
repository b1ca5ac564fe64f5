"""A stand-in for a hosted API: OpenAI's chat completions and embeddings, scripted by the model's name.

`echo` answers in max_tokens tokens or fewer; `slow` waits first; `breaks` dies in the middle of a stream; `fails`
answers 500. It counts what it was asked and what it would bill: what a real provider would put on the invoice.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

WORDS = 40  # tokens of an answer, unless the request allows fewer
PROMPT = 20  # tokens billed for a prompt
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
        usage = {"prompt_tokens": PROMPT, "total_tokens": PROMPT}
        data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
        return await _json(send, 200, {"object": "list", "model": model, "data": data, "usage": usage})
    words = min(int(body.get("max_tokens") or body.get("max_completion_tokens") or WORDS), WORDS) * int(
        body.get("n") or 1
    )
    usage = {"prompt_tokens": PROMPT, "completion_tokens": words, "total_tokens": PROMPT + words}
    if model == "slow":
        await asyncio.sleep(float(os.environ.get("UPSTREAM_SLOW", "0.5")))
    if not body.get("stream"):
        counts["billed_tokens"] += PROMPT + words
        message = {"role": "assistant", "content": "word " * words}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return await _json(
            send,
            200,
            {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage},
        )
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    counts["billed_tokens"] += PROMPT
    gone = asyncio.create_task(_hung_up(receive))
    async for event in _events(model, words, usage, bool((body.get("stream_options") or {}).get("include_usage"))):
        if gone.done():
            counts["hung_up"] += 1
            return None
        counts["billed_tokens"] += 1 if b'"content"' in event else 0
        await send({"type": "http.response.body", "body": event, "more_body": True})
    gone.cancel()
    if model == "breaks":
        raise ConnectionResetError("the stand-in breaks off here, as told")
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    return None


async def _events(model: str, words: int, usage: dict[str, int], with_usage: bool) -> AsyncIterator[bytes]:
    base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model}
    pause = {"drips": 0.05, "breaks": 0.0}.get(model, 0.0)
    for number in range(words):
        if model == "breaks" and number == 5:
            return
        await asyncio.sleep(pause)
        delta = {"content": "word "} | ({"role": "assistant"} if number == 0 else {})
        yield _event(base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if with_usage:
        yield _event(base | {"choices": [], "usage": usage})


def _event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


async def _hung_up(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _json(send: Any, status: int, document: dict[str, Any]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


if __name__ == "__main__":
    uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", access_log=False)
