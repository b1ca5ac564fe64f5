"""Which endpoint a command asks: the one named, or the gateway that runs here, with the servers behind it."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from toolkit.core.errors import ToolkitError, UsageError


class Endpoint(NamedTuple):
    """`base_url` ends in /v1; `direct` maps models to the llama.cpp or vLLM server that serves them, where one does.

    `free`: every one of `models` is known to run on this machine, and so costs nothing.
    """

    base_url: str
    api_key: str | None
    models: Sequence[str]
    direct: Mapping[str, str]
    free: bool = False


def endpoint(
    base_url: str | None,
    key: str | None,
    models: Sequence[str],
    direct: str | None = None,
    *,
    purpose: str = "experiments",
) -> Endpoint:
    """The endpoint for `models`, or for the only one there is. `key` is env:NAME; without it TOOLKIT_KEY is used.

    `purpose` names the key that a hint proposes.
    """
    from toolkit.core.config import secret

    api_key = secret(key, what="--key") if key else os.environ.get("TOOLKIT_KEY") or None
    if base_url is not None:
        if not models:
            raise UsageError("--base-url needs --model", hint=f"curl {base_url.rstrip('/')}/models")
        return Endpoint(base_url, api_key, models, dict.fromkeys(models, direct) if direct else {})

    from gateway.supervisor import running

    gateway = running()
    if gateway is None:
        raise ToolkitError("no gateway is running, and no --base-url was given", hint="toolkit gateway up")
    names = [model.name for model in gateway.models]
    wanted = models or (names if len(names) == 1 else [])
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        wrong = f"the gateway serves no model named {unknown[0]}" if unknown else "name a model"
        raise UsageError(f"{wrong}; it serves {', '.join(names) or 'nothing'}", hint="toolkit gateway status")
    if api_key is None:
        raise UsageError(
            "the gateway asks for a virtual key",
            hint=f"export TOOLKIT_KEY=$(toolkit keys create {purpose} --quiet)",
        )
    chosen = [model for model in gateway.models if model.name in wanted]
    behind = {
        model.name: model.api_base.removesuffix("/v1")
        for model in chosen
        if model.upstream in ("llamacpp", "vllm") and model.api_base
    }
    if direct:
        behind = dict.fromkeys(wanted, direct)
    return Endpoint(f"{gateway.url}/v1", api_key, wanted, behind, free=all(model.local for model in chosen))
