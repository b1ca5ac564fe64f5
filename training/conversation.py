"""The text the model sees: tools, turns and answers, rendered exactly as `chat_template.jinja` renders them.

Knows nothing of how conversations are made up, nor of tokens. A test holds this file and the template together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

START, END = "<|im_start|>", "<|im_end|>"
CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
NAME_OPEN = CALL_OPEN + '\n{"name": "'
ANSWER_OPEN = f"{START}assistant\n"
NAMED = "=>"  # stands before the second name of a tool and nowhere else, so that a head finds it by that
DESCRIPTION_LIMIT = 480
CHOICE_LIMIT = 8

Value = str | int | float


@dataclass(frozen=True)
class Parameter:
    """A parameter as the model reads it: `type` is a JSON schema type, shown unless it is "string"."""

    name: str
    type: str = "string"
    required: bool = True
    choices: tuple[str, ...] = ()

    def render(self) -> str:
        shown = " " + "|".join(self.choices[:CHOICE_LIMIT]) if self.choices else ""
        if not shown and self.type != "string":
            shown = f" {self.type}"
        return f'"{self.name}"{shown}{"" if self.required else "?"}'


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    parameters: tuple[Parameter, ...] = ()

    def before_name(self) -> str:
        """The part of the line before the second name: read first, so that the name can be chosen knowing it."""
        description = self.description.replace("\n", " ").strip()[:DESCRIPTION_LIMIT]
        return f"{self.name}: {description} {NAMED}" if description else f"{self.name}: {NAMED}"

    def render(self) -> str:
        return f"{self.before_name()}{self.name} [{','.join(p.render() for p in self.parameters)}]"

    def openai(self) -> dict[str, object]:
        """The tool as an OpenAI chat request carries it."""
        properties: dict[str, object] = {}
        for parameter in self.parameters:
            schema: dict[str, object] = {"type": parameter.type}
            if parameter.choices:
                schema["enum"] = list(parameter.choices)
            properties[parameter.name] = schema
        schema = {"type": "object", "properties": properties}
        required = [parameter.name for parameter in self.parameters if parameter.required]
        if required:
            schema["required"] = required
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": schema},
        }


@dataclass(frozen=True)
class Call:
    name: str
    arguments: dict[str, Value]

    def render(self) -> str:
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return f'{NAME_OPEN}{self.name}", "arguments": {arguments}}}\n{CALL_CLOSE}'


@dataclass(frozen=True)
class Decision:
    """One point at which the model must answer: the turns before it (after the tools), and the right answer.

    `right` is the index of the right tool, or None where words are right.
    """

    before: str
    answer: Call | str
    right: int | None = None


@dataclass(frozen=True)
class Sitting:
    """One list of tools, and several independent conversations held with it."""

    system: str
    tools: tuple[Tool, ...]
    decisions: tuple[Decision, ...]


def render_opening(system: str, tools: Sequence[Tool]) -> str:
    """System message and tools: what all conversations of a sitting share."""
    text = f"{START}system\n{system}{END}\n" if system else ""
    if tools:
        text += f"{START}tools" + "".join("\n" + tool.render() for tool in tools) + f"{END}\n"
    return text


def turn(role: str, text: str) -> str:
    return f"{START}{role}\n{text}{END}\n"


def render_answer(answer: Call | str) -> str:
    return (answer.render() if isinstance(answer, Call) else answer) + END
