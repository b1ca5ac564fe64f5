"""The exact distribution of a choice: the probability of each tool's name, multiplied along its tokens where a call is
opened, given that a call is made. Knows tokens; the servers that give their probabilities are behind `Engine`.

A reply need not be generated: at each point where names part, one token's probabilities are asked for.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from agents.chat_model import Message, ModelError, Usage
from agents.experiments.arms import Offer
from agents.experiments.choosers import Choice, messages
from agents.experiments.engine import Engine, Spent, Tokens, Wire
from agents.experiments.engine_llamacpp import LlamaCppEngine
from agents.experiments.engine_vllm import VllmEngine
from agents.experiments.scoring import Verdict, outcome_of
from agents.experiments.suites import NONE, Task
from toolkit.core.errors import ToolkitError

TAIL = 16  # tokens that a template may write differently at the end once a call follows (an opened thought, say)


@dataclass(frozen=True)
class Trie:
    """Calls as token sequences after the prompt: `branches` are the points where they part, with the tokens that
    may follow; `paths` the sequence of each name."""

    branches: Mapping[Tokens, Tokens]
    paths: Mapping[str, Tokens]


def trie(paths: Mapping[str, Tokens]) -> Trie:
    """The trie of `paths`. Raises ToolkitError where one is the beginning of another."""
    follow: dict[Tokens, set[int]] = {}
    for path in paths.values():
        for end in range(len(path)):
            follow.setdefault(path[:end], set()).add(path[end])
    for name, path in paths.items():
        if path in follow:
            raise ToolkitError(f"the tokens of {name} are the beginning of another tool's name", hint="--mode call")
    return Trie({at: tuple(sorted(tokens)) for at, tokens in follow.items() if len(tokens) > 1}, dict(paths))


def multiplied(held: Trie, conditional: Mapping[Tokens, Mapping[int, float]]) -> dict[str, float]:
    """Each name's probability: the product of its tokens' at the points where names part."""
    found = {}
    for name, path in held.paths.items():
        chance = 1.0
        for end in range(len(path)):
            if path[:end] in conditional:
                chance *= conditional[path[:end]][path[end]]
        found[name] = chance
    return found


class LogprobChooser:
    """Reads choices off a served model."""

    def __init__(self, engine: Engine, *, system: str | None) -> None:
        self._engine = engine
        self._system = system
        self._tail: Tokens | None = None
        self._paths: dict[str, Tokens] = {}
        self._ready = asyncio.Lock()

    async def choose(self, task: Task, offer: Offer, *, seed: int | None) -> Choice:
        """The distribution over the offered tools. Raises ModelError."""
        started = time.perf_counter()
        told = messages(task, self._system)
        tools = [tool.openai() for tool in offer.tools]
        async with self._ready:
            await self._learn(told, tools, [tool.name for tool in offer.tools if tool.name not in self._paths])
        prompt = self._before_call(await self._engine.render(told, tools))
        held = trie({tool.name: self._paths[tool.name] for tool in offer.tools})
        spent = Spent()
        opening = sum(
            [await self._engine.chance(prompt, token, spent) for token in sorted({p[0] for p in held.paths.values()})]
        )
        conditional = {
            at: await self._engine.among(prompt + at, tokens, spent)
            for at, tokens in sorted(held.branches.items(), key=lambda branch: len(branch[0]))
        }
        chances = multiplied(held, conditional)
        probabilities = tuple(chances[tool.name] for tool in offer.tools)
        likeliest = offer.tools[max(range(len(probabilities)), key=lambda index: probabilities[index])].name
        if task.right == NONE:
            called = opening >= 0.5
            verdict = Verdict("wrong", offer.meaning[likeliest]) if called else Verdict("right")
        else:
            chosen = offer.meaning[likeliest]
            verdict = Verdict(outcome_of(chosen, task.right), chosen)
        return Choice(
            verdict,
            called=likeliest,
            calls=1,
            usage=Usage(spent.evaluated + spent.cached, spent.requests, spent.cached),
            latency=time.perf_counter() - started,
            requests=spent.requests,
            probabilities=probabilities,
            opening=opening,
        )

    async def _learn(self, told: Sequence[Message], tools: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
        """Learn how a call of each name is written: what the template puts after the prompt when the conversation goes
        on with one."""
        if not names:
            return
        prompt = await self._engine.render(told, tools)
        for name in names:
            call = {"id": "call00001", "type": "function", "function": {"name": name, "arguments": "{}"}}
            after: list[Message] = [
                *told,
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call00001", "content": "done"},
            ]
            tail, path = parted(prompt, await self._engine.render(after, tools))
            if not path or path in self._paths.values():
                raise ToolkitError(
                    "this model's chat template does not write tool calls down, so their opening is not known",
                    hint="--mode call",
                )
            if self._tail not in (None, tail) or len(tail) > TAIL:
                raise ToolkitError(
                    "this model's chat template writes a conversation differently once a call is in it",
                    hint="--mode call",
                )
            self._tail = tail
            self._paths[name] = path

    def _before_call(self, prompt: Tokens) -> Tokens:
        """The prompt up to where a call begins."""
        tail = self._tail or ()
        cut = len(prompt) - len(tail)
        if prompt[cut:] != tail:
            raise ModelError("this model's chat template ends prompts in more than one way", "--mode call")
        return prompt[:cut]


def parted(prompt: Tokens, rendered: Tokens) -> tuple[Tokens, Tokens]:
    """Where a conversation parts from its prompt: what only the prompt has, and what follows instead."""
    pairs = zip(prompt, rendered, strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(prompt), len(rendered)))
    return prompt[same:], rendered[same:]


async def engine_at(url: str, model: str, client: httpx.AsyncClient, *, timeout: float = 600.0) -> Engine:
    """The engine for what answers at `url` (no /v1). Raises ToolkitError if it cannot tell probabilities."""
    wire = Wire(url, client, timeout)
    listed = (await wire.ask("/v1/models")).get("data") or []
    names = {str(entry.get("id")): entry.get("owned_by") for entry in listed}
    if "llamacpp" in names.values():
        return LlamaCppEngine(wire)
    if "vllm" in names.values():
        if model not in names and len(names) > 1:
            raise ToolkitError(f"vLLM at {wire.url} serves no model named {model}; it serves {', '.join(names)}")
        return VllmEngine(wire, model if model in names else next(iter(names)))
    raise ToolkitError(f"what answers at {wire.url} is neither llama.cpp nor vLLM", hint="--mode call")
