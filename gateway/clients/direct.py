"""A target without a gateway: a running Ollama or LM Studio, which speak both clients' formats themselves."""

import httpx

from gateway.clients.target import Model, Target
from gateway.settings import Settings
from gateway.upstreams import lmstudio, ollama
from gateway.upstreams.wire import ask, base_url, count, items
from toolkit.core.errors import ToolkitError, UsageError


def direct_target(server: str, settings: Settings) -> Target:
    """The models of `server` (`ollama` or `lmstudio`), with the context each is really held with.

    Raises ToolkitError if it does not run or has no model.
    """
    with httpx.Client(timeout=settings.discover.timeout, trust_env=False) as client:
        if server == "ollama":
            url, models = settings.discover.ollama, _ollama(settings, client)
        elif server == "lmstudio":
            url, models = settings.discover.lmstudio, _lmstudio(settings, client)
        else:
            raise UsageError(f"--direct is ollama or lmstudio, not {server}", hint="--direct ollama")
    if not models:
        raise ToolkitError(f"no model was found at {url or server}", hint=_START[server])
    return Target(base_url(str(url)), models)


def refuse_if_unknown(model: Model, server: str) -> None:
    """Raise ToolkitError if `server` does not say how much `model` holds: it does so once it is loaded."""
    if model.context is None:
        raise ToolkitError(
            f"{server} does not say how much {model.name} holds before it is loaded", hint=_LOAD[server] + model.name
        )


def _ollama(settings: Settings, client: httpx.Client) -> tuple[Model, ...]:
    """Without a gateway nobody sends `num_ctx`: what counts is what the model sets itself, or is loaded with."""
    base = base_url(str(settings.discover.ollama or ""))
    loaded, _ = ask(client, f"{base}/api/ps", "Ollama")
    held = {str(item.get("name")): count(item.get("context_length")) for item in items(loaded, "models")}
    found = []
    for model in ollama.discover(settings, client).models:
        context = held.get(model.name)
        if context is None:
            shown, _ = ask(client, f"{base}/api/show", "Ollama", post={"model": model.name})
            context = ollama.configured_context(shown or {})
        found.append(Model(model.name, context, upstream="ollama"))
    return tuple(found)


def _lmstudio(settings: Settings, client: httpx.Client) -> tuple[Model, ...]:
    return tuple(
        Model(model.name, model.context, model.max_output, upstream="lmstudio")
        for model in lmstudio.discover(settings, client).models
    )


_START = {"ollama": "ollama serve, and ollama pull gemma3:4b", "lmstudio": "lms server start"}
_LOAD = {"ollama": "ollama run ", "lmstudio": "lms load "}
