"""Hosted providers whose API keys are in the environment: a short list of their current models.

Sizes come from the price table in the installed LiteLLM package, read without importing it; the prices stay with
LiteLLM. A key is never read here, only whether it is set.
"""

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway.settings import Settings
from gateway.upstreams.served import ServedModel
from gateway.upstreams.wire import Found, count

# What a coding agent would be pointed at, largest first; each must stand in LiteLLM's table (a test checks).
MODELS: Mapping[str, tuple[str, ...]] = {
    "openai": ("gpt-6-astra", "gpt-6.1-sol", "gpt-6-sol", "gpt-6-luna", "gpt-5.4-mini"),
    "anthropic": ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-haiku-4-5"),
    "gemini": ("gemini-pro-latest", "gemini-3.8-flash", "gemini-flash-latest", "gemini-3.5-flash-lite"),
    "mistral": ("mistral-large-4", "mistral-medium-latest", "mistral-small-latest", "devstral-latest"),
    "openrouter": (),
}


def discover(settings: Settings) -> Found:
    """The listed models of every provider in `discover.hosted` whose key is set."""
    models: list[ServedModel] = []
    notes: list[str] = []
    for provider in settings.discover.hosted:
        variable = f"{provider.upper()}_API_KEY"
        if not os.environ.get(variable):
            continue
        if not MODELS[provider]:
            notes.append(
                f"{variable} is set, but nobody here knows {provider}'s prices: name the models you want under models: "
                f"in gateway.yaml (litellm: {provider}/VENDOR/MODEL, api_key: env:{variable}, price: ...)"
            )
        for name in MODELS[provider]:
            known = price_table().get(litellm_name(provider, name))
            if known is not None:
                models.append(_served(provider, name, variable, known))
    return Found(tuple(models), tuple(notes))


def litellm_name(provider: str, name: str) -> str:
    """How LiteLLM's table calls a provider's model."""
    return name if provider in ("openai", "anthropic") else f"{provider}/{name}"


@cache
def price_table() -> Mapping[str, Mapping[str, Any]]:
    """LiteLLM's own table of models: sizes and prices, as shipped with the installed version."""
    spec = find_spec("litellm")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    path = folder / "model_prices_and_context_window_backup.json"
    table: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return table


def _served(provider: str, name: str, variable: str, known: Mapping[str, Any]) -> ServedModel:
    return ServedModel(
        name=name,
        upstream=provider,
        litellm_params={"model": f"{provider}/{name}", "api_key": f"os.environ/{variable}"},
        context=count(known.get("max_input_tokens")),
        max_output=count(known.get("max_output_tokens")),
        price=None,
        local=False,
    )
