"""What a reply amounts to: one of six outcomes, each counted, none dropped. Names are compared exactly.

right         the right tool was called (or any, where any would do; or none, where none fits)
wrong         another tool of those offered was called (any, where none fits)
invalid       a call that no host could carry out: its arguments are not a JSON object
unknown_tool  a call of a tool that was not offered
no_tool       text instead of a call, where a tool was needed
error         the model or its server failed
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agents.chat_model import ToolCall
from agents.experiments.suites import ANY, NONE

Outcome = Literal["right", "wrong", "invalid", "unknown_tool", "no_tool", "error"]
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "invalid", "unknown_tool", "no_tool", "error")
CHOICES: tuple[Outcome, ...] = ("right", "wrong")


@dataclass(frozen=True)
class Verdict:
    """The outcome, the tool chosen (only if it was offered and the call is sound), and whether its arguments fit
    its schema (None without a sound call)."""

    outcome: Outcome
    chosen: str | None = None
    fits: bool | None = None


def verdict(call: ToolCall | None, meaning: Mapping[str, str], schemas: Mapping[str, Any], right: str) -> Verdict:
    """Score the first call of a reply, None if there was none. `meaning` maps the names offered to what they stand
    for, `schemas` the names offered to their JSON schemas."""
    if call is None:
        return Verdict("right" if right == NONE else "no_tool")
    if call.name not in meaning:
        return Verdict("unknown_tool")
    arguments = _object(call.arguments)
    if arguments is None:
        return Verdict("invalid")
    chosen = meaning[call.name]
    fits = _fits(arguments, schemas[call.name])
    return Verdict(outcome_of(chosen, right), chosen, fits)


def outcome_of(chosen: str | None, right: str) -> Outcome:
    """`right` or `wrong` for a tool that was offered. A copy of the right tool is right."""
    if chosen is None:
        return "right" if right == NONE else "no_tool"
    if right == ANY or chosen.split("#")[0] == right:
        return "right"
    return "wrong"


def _object(arguments: str) -> dict[str, Any] | None:
    try:
        document = json.loads(arguments or "{}")
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _fits(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    from jsonschema import Draft202012Validator

    return bool(Draft202012Validator(schema).is_valid(arguments))
