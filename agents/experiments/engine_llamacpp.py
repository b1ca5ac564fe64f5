"""Probabilities of single tokens from llama.cpp's own server. A bias of +40 on the tokens asked for leaves them alone
in the field, with their ratios unchanged. Each worker keeps to one slot of the server, where its last prompt lies.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from agents.chat_model import Message, ModelError
from agents.experiments.engine import Spent, Tokens, Wire

BIAS = 40.0
SEEN = 100  # likeliest tokens among which one is looked for


class LlamaCppEngine:
    """The model of a llama.cpp server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._slots = 0
        self._slot_of: dict[object, int] = {}

    async def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Tokens:
        """Rendered and tokenized as the server does it with a chat."""
        document = await self._wire.ask("/apply-template", {"messages": list(messages), "tools": list(tools)})
        body = {"content": document["prompt"], "add_special": True, "parse_special": True}
        return tuple(int(token) for token in (await self._wire.ask("/tokenize", body))["tokens"])

    async def chance(self, prompt: Tokens, token: int, spent: Spent) -> float:
        """0 if it is not among the likeliest."""
        # These are the probabilities before any bias. The token is forced because a drawn end of text has none.
        found = await self._complete(prompt, spent, n_probs=SEEN, logit_bias=[[token, 1000.0]])
        for candidate in found["top_logprobs"]:
            if candidate["id"] == token:
                return math.exp(candidate["logprob"])
        return 0.0

    async def among(self, prompt: Tokens, tokens: Tokens, spent: Spent) -> dict[int, float]:
        """One request. Raises ModelError if the server does not heed the bias."""
        found = await self._complete(
            prompt,
            spent,
            n_probs=len(tokens),
            logit_bias=[[token, BIAS] for token in tokens],
            post_sampling_probs=True,
            samplers=[],
        )
        chances = {candidate["id"]: float(candidate["prob"]) for candidate in found["top_probs"]}
        total = sum(chances.get(token, 0.0) for token in tokens)
        if total <= 0.5:  # the bias leaves nothing for other tokens, unless the server ignored it
            raise ModelError("the server does not give the probabilities that mode logprob needs", "--mode call")
        return {token: chances.get(token, 0.0) / total for token in tokens}

    async def _complete(self, prompt: Tokens, spent: Spent, **settings: Any) -> Mapping[str, Any]:
        if not self._slots:
            self._slots = max(1, int((await self._wire.ask("/props")).get("total_slots") or 1))
        slot = self._slot_of.setdefault(asyncio.current_task(), len(self._slot_of)) % self._slots
        body = {"prompt": list(prompt), "n_predict": 1, "temperature": 1.0, "cache_prompt": True, "id_slot": slot}
        document = await self._wire.ask("/completion", body | settings)
        timings = document.get("timings") or {}
        spent.add(
            int(timings.get("prompt_n") or document.get("tokens_evaluated") or 0), int(timings.get("cache_n") or 0)
        )
        try:
            found: Mapping[str, Any] = document["completion_probabilities"][0]
        except (KeyError, IndexError):
            raise ModelError(f"llama.cpp at {self._wire.url} gives no probabilities", "--mode call") from None
        return found
