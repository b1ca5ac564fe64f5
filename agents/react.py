"""Tool calls as plain text (ReAct, arXiv 2210.03629), for models and servers without tool calls of their own.

`ReActModel` wraps a ChatModel and is one: the loop does not see the difference.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agents.chat_model import ChatModel, Message, Reply, ToolCall, ToolSchema

STOP = ("\nObservation:",)  # where the model must stop; give it to the endpoint as `stop`

_MANNER = """You can use tools. The tools are:

{tools}

To use a tool, write exactly this and stop:

Thought: why you need it
Action: the tool's name
Action Input: its arguments as one JSON object

The result comes back as an Observation. When you know the answer, write:

Final Answer: the answer"""

_ACTION = re.compile(r"^[ \t]*Action:[ \t]*(.*?)[ \t]*$\s*^[ \t]*Action Input:", re.MULTILINE)
_ANSWER = re.compile(r"^[ \t]*Final Answer:[ \t]*", re.MULTILINE)
_INVENTED = re.compile(r"^[ \t]*Observation:", re.MULTILINE)


class ReActModel:
    """`model`, asked in text and understood from text. Usage, cost and latency are those of `model`."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.name = model.name

    async def ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        tool_choice: str | Mapping[str, Any] = "auto",
        max_tokens: int | None = None,
        temperature: float | None = 0.0,
        seed: int | None = None,
    ) -> Reply:
        reply = await self._model.ask(
            as_text(messages, tools), max_tokens=max_tokens, temperature=temperature, seed=seed
        )
        return understood(reply, turn=len(messages))


def as_text(messages: Sequence[Message], tools: Sequence[ToolSchema]) -> list[Message]:
    """The conversation without tool calls: tools in the system prompt, calls and results as text."""
    manner = _MANNER.format(tools="\n".join(_line(tool["function"]) for tool in tools))
    told: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            observation = f"Observation: {message['content']}"
            if told and told[-1]["role"] == "user":  # several results are one turn: turns must alternate
                observation = f"{told.pop()['content']}\n{observation}"
            told.append({"role": "user", "content": observation})
        elif message.get("tool_calls"):
            actions = [_action(call["function"]) for call in message["tool_calls"]]
            told.append({"role": "assistant", "content": "\n".join([message["content"], *actions]).strip()})
        else:
            told.append({"role": message["role"], "content": message["content"]})
    if not tools:
        return told
    if told and told[0]["role"] == "system":
        return [{"role": "system", "content": f"{told[0]['content']}\n\n{manner}"}, *told[1:]]
    return [{"role": "system", "content": manner}, *told]


def understood(reply: Reply, *, turn: int = 0) -> Reply:
    """`reply` with the tool calls that its text holds; the text is then the thought before them."""
    invented = _INVENTED.search(reply.text)
    text = reply.text[: invented.start()] if invented else reply.text
    actions = list(_ACTION.finditer(text))
    answer = _ANSWER.search(text)
    if answer and (not actions or answer.start() < actions[0].start()):
        return replace(reply, text=text[answer.end() :].strip(), tool_calls=())
    if not actions:
        return replace(reply, text=text.strip(), tool_calls=())
    ends = [action.start() for action in actions[1:]] + [answer.start() if answer else len(text)]
    calls = tuple(
        ToolCall(f"react_{turn}_{number}", action[1].strip("`* "), _json_in(text[action.end() : end]))
        for number, (action, end) in enumerate(zip(actions, ends, strict=True))
    )
    return replace(reply, text=text[: actions[0].start()].strip(), tool_calls=calls, finish_reason="tool_calls")


def _json_in(text: str) -> str:
    """The first JSON object in `text`, which may stand in a code fence; without one the text as it is."""
    start = text.find("{")
    if start >= 0:
        try:
            _, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            return text.strip()
        return text[start:end]
    return text.strip()


def _line(function: Mapping[str, Any]) -> str:
    return f"- {function['name']}: {function['description']} Arguments: {json.dumps(function['parameters'])}"


def _action(function: Mapping[str, Any]) -> str:
    return f"Action: {function['name']}\nAction Input: {function['arguments']}"
