"""What a server must be able to tell for the exact distribution of a choice: the tokens of a conversation, and the
probabilities of single tokens after it. The two that can are in engine_llamacpp.py and engine_vllm.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from agents.chat_model import Message, ModelError

Tokens = tuple[int, ...]


@dataclass
class Spent:
    """Requests and prompt tokens of one choice."""

    requests: int = 0
    evaluated: int = 0
    cached: int = 0

    def add(self, evaluated: int, cached: int) -> None:
        self.requests += 1
        self.evaluated += evaluated
        self.cached += cached


class Engine(Protocol):
    """One served model, in its own tokens. Every method raises ModelError."""

    async def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Tokens:
        """The conversation as the chat template writes it, up to where the model's reply begins."""

    async def chance(self, prompt: Tokens, token: int, spent: Spent) -> float:
        """Probability of `token` after `prompt`, among all tokens."""

    async def among(self, prompt: Tokens, tokens: Tokens, spent: Spent) -> dict[int, float]:
        """Probabilities of `tokens` after `prompt`, given that it is one of them: they sum to 1."""


class Wire:
    """JSON over HTTP to the server at `url` (no /v1)."""

    def __init__(self, url: str, client: httpx.AsyncClient, timeout: float = 600.0) -> None:
        self.url = url.rstrip("/")
        self._client = client
        self._timeout = timeout

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to `body`, or to a GET without one. Raises ModelError."""
        try:
            response = await self._client.request(
                "GET" if body is None else "POST", self.url + path, json=body, timeout=self._timeout
            )
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ModelError(f"no answer from {self.url}: {reason}", hint="toolkit gateway status") from None
        try:
            document = response.json()
        except ValueError:
            document = None
        if response.status_code >= 400 or not isinstance(document, dict):
            said = document.get("error", document) if isinstance(document, dict) else response.text[:200]
            raise ModelError(f"{self.url}{path} refused ({response.status_code}): {said}", status=response.status_code)
        return document
