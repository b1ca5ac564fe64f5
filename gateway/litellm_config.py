"""The LiteLLM configuration for a set of served models. Pure: settings in, a document out; no secret is in it.

Secrets stay references (`os.environ/NAME`) that LiteLLM resolves in its own process.
"""

from collections.abc import Sequence
from typing import Any

from gateway.mcp import Server, entries
from gateway.settings import Settings
from gateway.upstreams.served import Price, ServedModel
from toolkit.core.errors import UsageError
from toolkit.core.units import NANO

MASTER_KEY = "TOOLKIT_MASTER_KEY"


def build(models: Sequence[ServedModel], settings: Settings, servers: Sequence[Server] = ()) -> dict[str, Any]:
    """The document that `litellm --config` reads.

    Raises UsageError if two upstreams offer the same name, or a fallback names a model that is not served.
    """
    _refuse_twins(models)
    return ({"mcp_servers": entries(servers)} if servers else {}) | {
        "model_list": [_entry(model) for model in models],
        "litellm_settings": {
            "drop_params": True,
            "request_timeout": settings.gateway.request_timeout,
            "callbacks": ["gateway.keys.hooks.proxy_logger", "gateway.mend_hooks.proxy_mends"],
            "suppress_debug_info": True,
            "turn_off_message_logging": not settings.gateway.log_prompts,
        },
        "general_settings": {
            "master_key": f"os.environ/{MASTER_KEY}",
            "custom_auth": "gateway.keys.hooks.user_api_key_auth",
            "disable_budget_reservation": True,  # the key store reserves, across processes
            "allow_requests_on_db_unavailable": False,
        },
        "router_settings": {
            "disable_cooldowns": True,  # with one upstream a model, a cooldown turns one fault into many
            "num_retries": 0,  # clients retry; a second silent try would be paid for twice
            "fallbacks": _fallbacks(models, settings),
        },
    }


def _entry(model: ServedModel) -> dict[str, Any]:
    info: dict[str, Any] = {"mode": "chat"}
    if model.context is not None:
        info["max_input_tokens"] = model.context
    if model.max_output is not None:
        info["max_output_tokens"] = model.max_output
    if model.price is not None:
        info |= _price(model.price)
    return {"model_name": model.name, "litellm_params": dict(model.litellm_params), "model_info": info}


def _price(price: Price) -> dict[str, float]:
    """Dollars a token, as LiteLLM counts. An explicit zero means free; absent would mean unknown."""
    per_token = 1 / NANO / 1_000_000
    costs = {
        "input_cost_per_token": price.input * per_token,
        "output_cost_per_token": price.output * per_token,
    }
    if price.cache_read is not None:
        costs["cache_read_input_token_cost"] = price.cache_read * per_token
    if price.cache_write is not None:
        costs["cache_creation_input_token_cost"] = price.cache_write * per_token
    return costs


def _refuse_twins(models: Sequence[ServedModel]) -> None:
    seen: dict[str, ServedModel] = {}
    for model in models:
        first = seen.setdefault(model.name, model)
        if first is not model:
            raise UsageError(
                f"two upstreams offer a model named {model.name}: {first.upstream} and {model.upstream}",
                hint="give one of them another name under models: in gateway.yaml",
            )


def _fallbacks(models: Sequence[ServedModel], settings: Settings) -> list[dict[str, list[str]]]:
    served = {model.name for model in models}
    for model in settings.models:
        for name in model.fallback:
            if name not in served:
                raise UsageError(
                    f"model {model.name} falls back to {name}, which is not served",
                    hint="toolkit gateway status",
                )
    return [{model.name: list(model.fallback)} for model in settings.models if model.fallback]
