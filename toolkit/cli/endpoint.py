"""Which endpoint a command asks: the one named, or the gateway that runs here, with the llama.cpp servers behind it."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from toolkit.core.errors import ToolkitError, UsageError


class Endpoint(NamedTuple):
    """`base_url` ends in /v1; `direct` maps models to the llama.cpp server that serves them, where one does."""

    base_url: str
    api_key: str | None
    direct: Mapping[str, str]


def endpoint(base_url: str | None, key: str | None, models: Sequence[str], direct: str | None = None) -> Endpoint:
    """The endpoint for `models`. `key` is env:NAME; without it TOOLKIT_KEY is used."""
    from toolkit.core.config import secret

    api_key = secret(key, what="--key") if key else os.environ.get("TOOLKIT_KEY") or None
    if base_url is not None:
        return Endpoint(base_url, api_key, dict.fromkeys(models, direct) if direct else {})

    from gateway.supervisor import running

    gateway = running()
    if gateway is None:
        raise ToolkitError("no gateway is running, and no --base-url was given", hint="toolkit gateway up")
    for name in models:
        if gateway.model(name) is None:
            served = ", ".join(model.name for model in gateway.models) or "nothing"
            raise UsageError(f"the gateway serves no model named {name}; it serves {served}", "toolkit gateway status")
    if api_key is None:
        raise UsageError(
            "the gateway asks for a virtual key",
            hint="export TOOLKIT_KEY=$(toolkit keys create experiments --quiet)",
        )
    behind = {
        model.name: model.api_base.removesuffix("/v1")
        for model in gateway.models
        if model.name in models and model.upstream == "llamacpp" and model.api_base
    }
    if direct:
        behind = dict.fromkeys(models, direct)
    return Endpoint(f"{gateway.url}/v1", api_key, behind)
