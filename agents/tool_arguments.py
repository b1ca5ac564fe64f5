"""Whether a model's call can be made: the tool exists, the arguments are JSON and fit the tool's schema.

What is wrong comes back as an error result in words that the model can act on.
"""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from agents.chat_model import ToolCall
from agents.tool_host import Tool, ToolResult


def checked(call: ToolCall, tool: Tool | None, tools: Sequence[Tool]) -> Mapping[str, Any] | ToolResult:
    """The arguments of `call`, or what is wrong with it. No text at all is no arguments."""
    if tool is None:
        names = [known.name for known in tools]
        near = get_close_matches(call.name, names, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        return _error(f"there is no tool named {call.name!r}; {meant}tools: {', '.join(names) or 'none'}")
    try:
        arguments = json.loads(call.arguments) if call.arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        return _error(f"the arguments of {call.name} are not valid JSON: {error}")
    if not isinstance(arguments, dict):
        return _error(f"the arguments of {call.name} must be a JSON object")
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return _error(
            f"the arguments of {call.name} hold half of a surrogate pair (\\ud800 to \\udfff), which is no text"
        )
    fault = _fault(arguments, tool.parameters)
    return _error(f"the arguments of {call.name} do not fit its schema: {fault}") if fault else arguments


def _fault(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """The first fault by the schema. A schema that is itself broken judges nothing: the server will."""
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
        # An empty registry: a schema is the server's text, and must not make us fetch what it refers to.
        error = best_match(kind(dict(schema), registry=Registry()).iter_errors(arguments))
    except (SchemaError, Unresolvable):
        return None
    if error is None:
        return None
    where = ".".join(str(part) for part in error.absolute_path)
    message = error.message if len(error.message) <= 300 else f"{error.message[:300]}..."
    return f"{where}: {message}" if where else message


def _error(text: str) -> ToolResult:
    return ToolResult(text, is_error=True)
