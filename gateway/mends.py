"""What no client setting can mend: small changes to requests on their way to a local server, and to its answers.

Each mend of `MENDS` is a pure function from a request body, in the format of the OpenAI or the Anthropic API, to the
body that is sent on; it gives back the same body where there is nothing to mend. The two mends of answers are
`separate_calls` and `unreachable`. Hosted models get what the client wrote, and the client what they wrote.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Body = Mapping[str, Any]

# Asked for by clients of hosted models; local servers refuse them, or a model without thinking does.
REFUSED = (
    *("context_management", "output_config", "prediction", "prompt_cache_key", "reasoning_effort"),
    *("safety_identifier", "service_tier", "store", "thinking", "verbosity", "web_search_options"),
)
THINKING = ("thinking", "redacted_thinking")


class Mend(NamedTuple):
    """A mend's name, what it does, and the function."""

    name: str
    what: str
    apply: Callable[[Body], Body]


def fold_system_messages(body: Body) -> Body:
    """Move a system message inside the conversation to where a chat template takes it.

    Templates of local models know a system message only at the very start. What follows a user's words is put before
    them in their turn, so that the question stays last and the server's prompt cache holds; anything else joins the
    system prompt.
    """
    messages = list(body.get("messages") or [])
    first = next((at for at, message in enumerate(messages) if not _is_system(message)), len(messages))
    if not any(_is_system(message) for message in messages[first:]):
        return body
    kept, homeless = messages[:first], []
    for message in messages[first:]:
        if not _is_system(message):
            kept.append(message)
        elif _is_question(kept[-1]):
            kept[-1] = _with_note(kept[-1], _text(message.get("content")))
        else:
            homeless.append(_text(message.get("content")))
    mended = {**body, "messages": kept}
    return _with_system(mended, homeless) if homeless else mended


def drop_refused_parameters(body: Body) -> Body:
    """Leave out parameters that local servers refuse."""
    if not any(name in body for name in REFUSED):
        return body
    return {name: value for name, value in body.items() if name not in REFUSED}


def drop_thinking_blocks(body: Body) -> Body:
    """Leave out thinking of earlier turns: a server that did not sign it does not know it."""
    messages = list(body.get("messages") or [])
    mended = [_without_thinking(message) for message in messages]
    return body if mended == messages else {**body, "messages": mended}


def write_out_empty_inputs(body: Body) -> Body:
    """Write the missing arguments of earlier tool calls as an empty object: templates fail on an empty text."""
    messages = list(body.get("messages") or [])
    mended = [_with_inputs(message) for message in messages]
    return body if mended == messages else {**body, "messages": mended}


def narrow_tool_choice(body: Body) -> Body:
    """Offer a named tool alone and require a call, and offer no tools where none may be called.

    llama.cpp takes a named choice for "auto", and with "none" it still shows the model its tools and gives the call
    that follows back as text.
    """
    choice = body.get("tool_choice")
    if choice == "none" or _kind(choice) == "none":
        return {name: value for name, value in body.items() if name not in ("tools", "tool_choice")}
    named = _tool_name(choice)
    only = [tool for tool in body.get("tools") or () if _tool_name(tool) == named]
    if not isinstance(choice, Mapping) or named is None or not only:
        return body
    # The rest of an Anthropic choice stays: it may forbid parallel calls.
    rest = {key: value for key, value in choice.items() if key not in ("type", "name")}
    required = {**rest, "type": "any"} if _kind(choice) == "tool" else "required"
    return {**body, "tools": only, "tool_choice": required}


MENDS: tuple[Mend, ...] = (
    Mend("system-messages", "a system message inside a conversation joins the turn before it", fold_system_messages),
    Mend("refused-parameters", "parameters that local servers refuse are left out", drop_refused_parameters),
    Mend("thinking-blocks", "thinking of earlier turns is left out", drop_thinking_blocks),
    Mend("tool-choice", "a named tool is offered alone; where none may be called, none is offered", narrow_tool_choice),
    Mend("empty-inputs", "tool calls without arguments get an empty object", write_out_empty_inputs),
)

NAMES: tuple[str, ...] = (*(mend.name for mend in MENDS), "separate-calls", "gone-servers")


def mended(body: Body) -> Body:
    """`body` with every mend applied."""
    for mend in MENDS:
        body = mend.apply(body)
    return body


def separate_calls(answer: Body, seen: int) -> list[Body]:
    """One line of Ollama's streamed answer as lines with one tool call each, each with an id and the next number.

    `seen` calls came before. LiteLLM 1.106.2 numbers the calls of each line from 0, gives those without arguments no
    id, and on the Anthropic route joins those of one line into one: clients then lose calls, or cannot read them.
    """
    message = answer.get("message")
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(calls, list) or not calls:
        return [answer]
    words = {name: value for name, value in message.items() if name != "tool_calls"}
    empty = {"role": "assistant", "content": ""}
    numbered = [
        {**call, "index": number, "id": call.get("id") or f"call_{uuid.uuid4().hex}"}
        for number, call in enumerate(calls, seen)
    ]
    unfinished = {**answer, "done": False}
    return [
        *([{**unfinished, "message": words}] if words.get("content") or words.get("thinking") else []),
        *({**unfinished, "message": {**empty, "tool_calls": [call]}} for call in numbered),
        *([{**answer, "message": empty}] if answer.get("done") else []),
    ]


def unreachable(error: str, model: str) -> str | None:
    """What to tell the client instead of `error` if that means that `model`'s server is gone; None if it does not.

    Clients try again for minutes, without a word, after an error of the server's kind (5xx). A local server that is
    gone does not come back by itself: said as an error of the request's kind, it is on the screen at once.
    """
    if not any(sign in error.lower() for sign in _GONE):
        return None
    return f"The server behind {model} does not answer. Start it, then: toolkit gateway status"


_GONE = (
    "connection error",
    "cannot connect to host",
    "connection refused",
    "connect call failed",
    "server disconnected",
)


def _is_system(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") in ("system", "developer")


def _is_question(message: Any) -> bool:
    """A user's own words, not only the results of tools."""
    if not isinstance(message, Mapping) or message.get("role") != "user":
        return False
    content = message.get("content")
    return isinstance(content, str) or any(_kind(part) == "text" for part in content or ())


def _with_note(message: Mapping[str, Any], note: str) -> Mapping[str, Any]:
    """The user's turn with `note` before its last words, marked as Claude Code marks such notes itself."""
    marked = f"<system-reminder>\n{note}\n</system-reminder>"
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": f"{marked}\n{content}"}
    parts = list(content)
    last = max(at for at, part in enumerate(parts) if _kind(part) == "text")
    return {**message, "content": [*parts[:last], {"type": "text", "text": marked}, *parts[last:]]}


def _with_system(body: Body, notes: Sequence[str]) -> Body:
    """The body with `notes` at the end of its system prompt: a field of its own, or the first message."""
    note = "\n\n".join(notes)
    system = body.get("system")
    if isinstance(system, str):
        return {**body, "system": f"{system}\n\n{note}"}
    if isinstance(system, list):
        return {**body, "system": [*system, {"type": "text", "text": note}]}
    messages = list(body["messages"])
    if messages and _is_system(messages[0]):
        first = {**messages[0], "content": f"{_text(messages[0].get('content'))}\n\n{note}"}
        return {**body, "messages": [first, *messages[1:]]}
    return {**body, "messages": [{"role": "system", "content": note}, *messages]}


def _without_thinking(message: Any) -> Any:
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return message
    kept = {name: value for name, value in message.items() if name != "thinking_blocks"}
    if isinstance(content := kept.get("content"), list):
        parts = [part for part in content if _kind(part) not in THINKING]
        # A turn that was nothing but thought must still be a turn.
        kept["content"] = parts or [{"type": "text", "text": "..."}]
    return kept


def _with_inputs(message: Any) -> Any:
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return message
    kept = dict(message)
    if isinstance(calls := kept.get("tool_calls"), list):
        kept["tool_calls"] = [_with_arguments(call) for call in calls]
    if isinstance(content := kept.get("content"), list):
        kept["content"] = [
            {**part, "input": {}} if _kind(part) == "tool_use" and part.get("input") in (None, "") else part
            for part in content
        ]
    return kept


def _with_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or function.get("arguments") not in (None, ""):
        return call
    return {**call, "function": {**function, "arguments": "{}"}}


def _tool_name(tool: Any) -> str | None:
    """The name of a tool, or of the tool that is chosen, in either format."""
    if not isinstance(tool, Mapping):
        return None
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    return name if isinstance(name, str) else None


def _kind(part: Any) -> object:
    return part.get("type") if isinstance(part, Mapping) else None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or () if isinstance(part, Mapping))
