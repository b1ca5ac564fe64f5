"""Errors as the caller's API writes them: as a decision on bytes, and around an application in memory."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from gateway.error_shapes import App, Message, ShapedErrors, shaped

OPENAI = b'{"error": {"message": "no", "type": "not_accepted", "param": "key", "code": "422"}}'


def test_an_error_of_openai_becomes_one_of_anthropic_and_keeps_its_sentence() -> None:
    told = json.loads(shaped(OPENAI, anthropic=True))
    assert told == {"type": "error", "error": {"type": "not_accepted", "message": "no"}}


def test_an_error_that_has_the_shape_is_left_as_it_is() -> None:
    anthropic = b'{"type":"error","error":{"type":"api_error","message":"no"}}'
    assert shaped(anthropic, anthropic=True) is anthropic
    assert shaped(OPENAI, anthropic=False) is OPENAI


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"Internal Server Error", "Internal Server Error"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"msg": "m"}]}', '[{"msg": "m"}]'),
        (b'{"error": "gone"}', "gone"),
    ],
)
@pytest.mark.parametrize("anthropic", [False, True])
def test_what_has_no_shape_gets_one(body: bytes, sentence: str, anthropic: bool) -> None:
    document = json.loads(shaped(body, anthropic=anthropic))
    assert document["error"]["message"] == sentence
    assert ("type" in document) == anthropic


def answer(app: App, path: str) -> tuple[int, dict[bytes, bytes], bytes, int]:
    """Status, headers, body and the number of pieces that reach the caller."""
    got: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        got.append(message)

    asyncio.run(ShapedErrors(app)({"type": "http", "path": path}, receive, send))
    body = b"".join(message.get("body", b"") for message in got)
    return got[0]["status"], dict(got[0].get("headers", ())), body, len(got)


def replies(status: int, *pieces: bytes, **headers: str) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": named})
        for number, piece in enumerate(pieces, start=1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    return app


def test_an_error_in_pieces_or_compressed_is_shaped_whole() -> None:
    status, headers, body, _ = answer(replies(422, OPENAI[:9], OPENAI[9:]), "/v1/messages")
    assert (status, json.loads(body)["type"]) == (422, "error")
    assert int(headers[b"content-length"]) == len(body)
    _, headers, body, _ = answer(replies(403, gzip.compress(OPENAI), content_encoding="gzip"), "/v1/messages")
    assert json.loads(body)["error"]["message"] == "no"
    assert b"content-encoding" not in headers


def test_an_answer_is_passed_on_piece_by_piece_without_the_place_of_the_model() -> None:
    app = replies(200, b"one", b"two", x_litellm_model_api_base="http://127.0.0.1:1", x_other="kept")
    assert answer(app, "/v1/chat/completions") == (200, {b"x-other": b"kept"}, b"onetwo", 3)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_a_crash_before_the_answer_is_told_in_the_callers_shape_and_its_words_to_nobody(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a-prompt")

    status, _, body, _ = answer(app, path)
    assert status == 500
    assert "toolkit gateway logs" in json.loads(body)["error"]["message"]
    assert "ValueError in " in caplog.text
    assert "a-prompt" not in body.decode() + caplog.text


def test_other_routes_are_left_alone() -> None:
    assert answer(replies(404, b"x", x_litellm_model_api_base="a"), "/mcp")[2] == b"x"
