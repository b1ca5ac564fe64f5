"""Calls of tools that a model wrote into its text, for an engine that gives text only. Pure.

Two forms are read: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` (Hermes, Qwen, the built-in model), and
a reply that is one such object and nothing else (Llama 3, or a template whose marks are tokens that are not printed).
"""

import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_MARKED = re.compile(r"<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|\Z)", re.DOTALL)

Message = Mapping[str, Any]


class Written(NamedTuple):
    """A reply taken apart: the text beside the calls, and the calls as the OpenAI API has them."""

    content: str
    calls: tuple[dict[str, Any], ...]


def read(text: str, names: Collection[str]) -> Written:
    """The calls in `text` of tools that were offered by these names. What is no such call stays text."""
    calls: list[dict[str, Any]] = []

    def take(match: re.Match[str]) -> str:
        call = _call(match[1], names)
        if call is None:
            return match[0]
        calls.append(call)
        return ""

    rest = _MARKED.sub(take, text)
    if not calls:
        alone = _call(text.strip(), names)
        return Written("", (alone,)) if alone else Written(text, ())
    return Written(rest.strip(), tuple(calls))


def with_calls(answer: Message, names: Collection[str]) -> dict[str, Any]:
    """A chat completion whose text was read for calls of these tools."""
    choices = []
    for choice in answer["choices"]:
        written = read(choice["message"].get("content") or "", names)
        if written.calls:
            message = {**choice["message"], "content": written.content or None, "tool_calls": list(written.calls)}
            choice = {**choice, "message": message, "finish_reason": "tool_calls"}
        choices.append(choice)
    return {**answer, "choices": choices}


def as_chunks(answer: Message) -> Iterator[dict[str, Any]]:
    """A finished chat completion as the chunks of a stream: role, text, each call, the end with the usage."""
    head = {"id": answer["id"], "created": answer["created"], "model": answer["model"]}
    head["object"] = "chat.completion.chunk"
    choice = answer["choices"][0]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    if message.get("content"):
        deltas.append({"content": message["content"]})
    deltas += [{"tool_calls": [{"index": at, **call}]} for at, call in enumerate(message.get("tool_calls") or ())]
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
    end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
    yield {**head, "choices": [end], "usage": answer.get("usage")}


def with_text(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages whose content is text, where it was a list of parts or null. Parts that are no text are left out."""
    return [{**message, "content": _text(message.get("content"))} for message in messages]


def with_objects(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages with the arguments of calls as objects, as chat templates expect them."""
    return [
        {**message, "tool_calls": [_with_object(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def _text(content: Any) -> Any:
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if part.get("type") == "text")
    return "" if content is None else content


def _with_object(call: Message) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": _object(function.get("arguments"))}}


def _object(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def _call(text: str, names: Collection[str]) -> dict[str, Any] | None:
    """The call that `text` is, or None."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    name = document.get("name") if isinstance(document, dict) else None
    if not isinstance(name, str) or name not in names:
        return None
    arguments = _object(document.get("arguments", document.get("parameters", {})))
    if not isinstance(arguments, dict):
        return None
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    # Nine letters: Mistral's templates refuse any other length.
    return {"id": secrets.token_hex(5)[:9], "type": "function", "function": function}
