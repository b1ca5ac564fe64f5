"""A trace as people read it, one event at a time. Pure: an event in, text out."""

import json
from collections.abc import Mapping
from typing import Any

from toolkit.core.units import format_duration, format_money

SHOWN = 800  # characters of a result; the trace has all of it


def described(event: Mapping[str, Any], *, spoken: bool = False) -> str | None:
    """What to show for `event`, None for nothing. `spoken`: the model's text was already seen as it came."""
    kind = event["event"]
    if kind == "start":
        names = ", ".join(tool["name"] for tool in event["tools"]) or "none"
        return f"task: {printable(event['task'])}\nmodel: {event['model']}   tools: {names}"
    if kind == "reply":
        lines = [f"[{event['step'] + 1}] {printable(event['text'])}"] if event["text"] and not spoken else []
        lines += [f"[{event['step'] + 1}] -> {_call(call)}" for call in event["tool_calls"]]
        return "\n".join(lines) or None
    if kind == "result":
        return f"    <- {'error: ' if event['is_error'] else ''}{_short(event['text'])}"
    if kind == "end":
        return _ending(event)
    return None


def _call(call: Mapping[str, Any]) -> str:
    return f"{call['name']}({_short(call['arguments'])})"


def _ending(event: Mapping[str, Any]) -> str:
    usage = event["usage"]
    cached = f" ({usage['cached_tokens']} cached)" if usage["cached_tokens"] else ""
    parts = [
        f"{event['steps']} step{'' if event['steps'] == 1 else 's'}",
        f"{usage['prompt_tokens']}{cached} + {usage['completion_tokens']} tokens",
        *([format_money(event["cost"])] if event["cost"] is not None else []),
        format_duration(event["seconds"]),
    ]
    return f"{event['reason']}: {', '.join(parts)}"


def _short(text: object) -> str:
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    text = printable(text.strip())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} [... {len(text)} characters]"


def printable(text: str) -> str:
    """Without control characters: a tool's output must not drive the terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
