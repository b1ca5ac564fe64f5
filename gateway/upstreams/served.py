"""What every upstream tells the gateway: a model it can serve, and how LiteLLM reaches it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Price:
    """Nano-dollars for one million tokens, so that fractions of a cent stay exact. None of it: free."""

    input: int = 0
    output: int = 0
    cache_read: int | None = None
    cache_write: int | None = None


@dataclass(frozen=True)
class ServedModel:
    """One model behind the gateway.

    `name` is what clients ask for. `upstream` is the kind of server (`llamacpp`, `ollama`, `lmstudio`, `vllm`,
    `openai`, ...). `litellm_params` is LiteLLM's own block of that name (model, api_base, api_key); a secret in it
    is `os.environ/NAME`, never a value. `context` is how many tokens one request may really use at that server
    (None: unknown), `trained` the longest it was trained with, where that is known. `price` is None for hosted models
    that LiteLLM's own table prices.
    """

    name: str
    upstream: str
    litellm_params: Mapping[str, Any]
    context: int | None = None
    max_output: int | None = None
    price: Price | None = field(default_factory=Price)
    note: str = ""
    local: bool = True
    trained: int | None = None
