"""Probabilities of single tokens from a vLLM server, by its documented API: `/tokenize` renders a conversation with its
tools, `/v1/completions` takes token ids and gives the likeliest tokens and the one drawn, with their log probabilities
before `allowed_token_ids` masks the rest (`--logprobs-mode raw_logprobs`, the default since version 0.10).

Not run against a real vLLM: it needs a machine that this project is not tested on.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from agents.chat_model import Message, ModelError
from agents.experiments.engine import Spent, Tokens, Wire
from toolkit.core.errors import ToolkitError

MOST = 20  # log probabilities that a server gives at once, unless told otherwise (--max-logprobs)
MASKED = -9000.0  # vLLM writes minus infinity as -9999


class VllmEngine:
    """One model of a vLLM server, by the name it has there."""

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire = wire
        self._model = model

    async def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Tokens:
        """Rendered and tokenized as the server does it with a chat."""
        body = {"model": self._model, "messages": list(messages), "tools": list(tools), "add_generation_prompt": True}
        return tuple(int(token) for token in (await self._wire.ask("/tokenize", body))["tokens"])

    async def chance(self, prompt: Tokens, token: int, spent: Spent) -> float:
        """Exact. Raises ToolkitError if the server gives probabilities after masking, which says nothing of it."""
        found = await self._complete(prompt, (token,), 2, spent)
        others = [logprob for other, logprob in found.items() if other != token]
        if not others or min(others) < MASKED or max(found.values()) > 1e-3:
            raise ToolkitError(
                f"vLLM at {self._wire.url} gives no log probabilities of the model itself",
                hint="start it with --logprobs-mode raw_logprobs, or --mode call",
            )
        return math.exp(found[token])

    async def among(self, prompt: Tokens, tokens: Tokens, spent: Spent) -> dict[int, float]:
        """One request, and one more for each token that is not among the likeliest."""
        found = await self._complete(prompt, tokens, min(len(tokens), MOST), spent)
        missing = [token for token in tokens if token not in found]
        for forced in await asyncio.gather(*(self._complete(prompt, (token,), 1, spent) for token in missing)):
            found |= forced
        highest = max(found[token] for token in tokens)
        weights = {token: math.exp(found[token] - highest) for token in tokens}
        total = sum(weights.values())
        return {token: weight / total for token, weight in weights.items()}

    async def _complete(self, prompt: Tokens, tokens: Tokens, count: int, spent: Spent) -> dict[int, float]:
        """Log probabilities of the `count` likeliest tokens and of the one drawn, which is one of `tokens`."""
        body = {
            "model": self._model,
            "prompt": list(prompt),
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": count,
            "allowed_token_ids": list(tokens),
            "return_tokens_as_token_ids": True,
        }
        document = await self._wire.ask("/v1/completions", body)
        usage = document.get("usage") or {}
        cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        spent.add(int(usage.get("prompt_tokens") or 0) - cached, cached)
        try:
            listed: Mapping[str, float] = document["choices"][0]["logprobs"]["top_logprobs"][0]
            return {int(name.removeprefix("token_id:")): float(value) for name, value in listed.items()}
        except (KeyError, IndexError, TypeError, ValueError):
            raise ModelError(f"vLLM at {self._wire.url} gives no log probabilities by token", "--mode call") from None
