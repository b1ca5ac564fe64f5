"""The exact distribution of a choice, from llama.cpp's server: the probability of each tool's name, multiplied along
its tokens right after the opening of a call, given that a call is made. Knows llama.cpp's own HTTP API.

A reply need not be generated: at each point where names part, one token's probabilities are asked for. A bias of +40
on the tokens that continue some name leaves them alone in the field, with their ratios unchanged.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx

from agents.chat_model import Message, ModelError, Usage
from agents.experiments.arms import Offer
from agents.experiments.choosers import Choice, messages
from agents.experiments.scoring import Verdict, outcome_of
from agents.experiments.suites import NONE, Task
from toolkit.core.errors import ToolkitError

BIAS = 40.0
MARK = "toolkitprobename"  # a name that no tool has, to find where a template puts it
SEEN = 100  # first tokens of a reply whose probability is looked at for that of a call

Tokens = tuple[int, ...]


class Frame(NamedTuple):
    """What a template puts between the prompt and a called tool's name, and what follows the name."""

    opening: str
    closing: str


@dataclass(frozen=True)
class Trie:
    """Names as token sequences after the opening: `branches` are the points where they part, with the tokens that
    may follow; `paths` the sequence of each name."""

    branches: Mapping[Tokens, tuple[int, ...]]
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
    """Reads choices off a llama.cpp server at `url` (no /v1). Each worker keeps to one slot of the server, where its
    last prompt lies."""

    def __init__(self, url: str, client: httpx.AsyncClient, *, system: str | None, timeout: float = 600.0) -> None:
        self._url = url.rstrip("/")
        self._client = client
        self._system = system
        self._timeout = timeout
        self._frame: Frame | None = None
        self._opening_token: int | None = None
        self._paths: dict[str, Tokens] = {}
        self._slots = 0
        self._slot_of: dict[object, int] = {}
        self._ready = asyncio.Lock()

    async def choose(self, task: Task, offer: Offer, *, seed: int | None) -> Choice:
        """The distribution over the offered tools. Raises ModelError."""
        started = time.perf_counter()
        told = messages(task, self._system)
        tools = [tool.openai() for tool in offer.tools]
        async with self._ready:
            frame = await self._prepared(told, tools)
            await self._learn([tool.name for tool in offer.tools], frame)
        prompt = await self._template(told, tools)
        held = trie({tool.name: self._paths[tool.name] for tool in offer.tools})
        counter = _Counter()
        opening = await self._opening(prompt, counter)
        conditional = {
            at: await self._parting(prompt + frame.opening, at, tokens, counter)
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
            usage=Usage(counter.evaluated + counter.cached, counter.requests, counter.cached),
            latency=time.perf_counter() - started,
            requests=counter.requests,
            probabilities=probabilities,
            opening=opening,
        )

    async def _prepared(self, told: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Frame:
        """Learn the template's frame once, from a conversation in which MARK is called."""
        if self._frame is not None:
            return self._frame
        props = await self._ask("/props", None)
        self._slots = max(1, int(props.get("total_slots") or 1))
        call = {"id": "call00001", "type": "function", "function": {"name": MARK, "arguments": "{}"}}
        after: list[Message] = [
            *told,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call00001", "content": "done"},
        ]
        prompt, rendered = await self._template(told, tools), await self._template(after, tools)
        self._frame = frame_of(prompt, rendered)
        tokens = await self._tokenize(self._frame.opening)
        self._opening_token = tokens[0]
        return self._frame

    async def _learn(self, names: Sequence[str], frame: Frame) -> None:
        """Tokenize names that are new: what follows the tokens of the opening when the name follows its text."""
        new = [name for name in names if name not in self._paths]
        if not new:
            return
        bare = await self._tokenize(frame.opening)
        for name in new:
            whole = await self._tokenize(frame.opening + name + frame.closing)
            # The name may melt into the opening's last tokens; then the trie starts before them.
            shared = next((i for i, (a, b) in enumerate(zip(bare, whole, strict=False)) if a != b), len(bare))
            if shared < len(bare):
                raise ToolkitError(
                    f"this model's tokens of {name} reach into the opening of the call", hint="--mode call"
                )
            self._paths[name] = tuple(whole[shared:])

    async def _template(self, told: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        document = await self._ask("/apply-template", {"messages": list(told), "tools": list(tools)})
        return str(document["prompt"])

    async def _tokenize(self, text: str) -> Tokens:
        body = {"content": text, "add_special": False, "parse_special": True}
        return tuple(int(token) for token in (await self._ask("/tokenize", body))["tokens"])

    async def _opening(self, prompt: str, counter: "_Counter") -> float:
        """Probability that the reply begins with a call; 0 if its first token is not among the likeliest."""
        body: dict[str, Any] = {
            "prompt": prompt,
            "n_probs": SEEN,
            "n_predict": 1,
            "temperature": 1.0,
            "cache_prompt": True,
        }
        # These are the probabilities before any bias. The token is forced because a drawn end of text has none.
        body["logit_bias"] = [[self._opening_token, 1000.0]]
        found = await self._complete(body, counter)
        for candidate in found["top_logprobs"]:
            if candidate["id"] == self._opening_token:
                return math.exp(candidate["logprob"])
        return 0.0

    async def _parting(self, prompt: str, at: Tokens, tokens: tuple[int, ...], counter: "_Counter") -> dict[int, float]:
        """Probabilities of the tokens that may follow `at`, summing to 1."""
        body = {
            "prompt": [prompt, *at] if at else prompt,
            "n_predict": 1,
            "n_probs": len(tokens),
            "logit_bias": [[token, BIAS] for token in tokens],
            "post_sampling_probs": True,
            "samplers": [],
            "temperature": 1.0,
            "cache_prompt": True,
        }
        found = await self._complete(body, counter)
        chances = {candidate["id"]: float(candidate["prob"]) for candidate in found["top_probs"]}
        total = sum(chances.get(token, 0.0) for token in tokens)
        if total <= 0.5:  # the bias leaves nothing for other tokens, unless the server ignored it
            raise ModelError("the server does not give the probabilities that mode logprob needs", "--mode call")
        return {token: chances.get(token, 0.0) / total for token in tokens}

    async def _complete(self, body: dict[str, Any], counter: "_Counter") -> Mapping[str, Any]:
        document = await self._ask("/completion", body | {"id_slot": self._slot()})
        counter.add(document)
        try:
            found: Mapping[str, Any] = document["completion_probabilities"][0]
        except (KeyError, IndexError):
            raise ModelError(
                f"what answers at {self._url} gives no probabilities: it is no llama.cpp server", "--mode call"
            ) from None
        return found

    def _slot(self) -> int:
        return self._slot_of.setdefault(asyncio.current_task(), len(self._slot_of)) % self._slots

    async def _ask(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            response = await self._client.request(
                "GET" if body is None else "POST", self._url + path, json=body, timeout=self._timeout
            )
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ModelError(f"no answer from {self._url}: {reason}", hint="toolkit gateway status") from None
        try:
            document = response.json()
        except ValueError:
            document = None
        if response.status_code >= 400 or not isinstance(document, dict):
            said = document.get("error", document) if isinstance(document, dict) else response.text[:200]
            raise ModelError(f"{self._url}{path} refused ({response.status_code}): {said}", status=response.status_code)
        return document


class _Counter:
    """Requests and tokens of one choice."""

    def __init__(self) -> None:
        self.requests = self.evaluated = self.cached = 0

    def add(self, document: Mapping[str, Any]) -> None:
        timings = document.get("timings") or {}
        self.requests += 1
        self.evaluated += int(timings.get("prompt_n") or document.get("tokens_evaluated") or 0)
        self.cached += int(timings.get("cache_n") or 0)


def frame_of(prompt: str, rendered: str) -> Frame:
    """The frame of a call, from the prompt that asks for a reply and the same conversation with a call of MARK in it.
    Raises ToolkitError if the template does not write calls down."""
    start = rendered.rfind(MARK)
    if start < 0:
        raise ToolkitError(
            "this model's chat template does not write tool calls down, so their opening is not known",
            hint="--mode call",
        )
    same = 0
    for one, other in zip(prompt, rendered, strict=False):
        if one != other:
            break
        same += 1
    after = rendered[start + len(MARK) :]
    closing = next((after[:end] for end, letter in enumerate(after) if letter.isalnum() or end > 8), after)
    return Frame(rendered[min(same, start) : start], closing or after[:1])
