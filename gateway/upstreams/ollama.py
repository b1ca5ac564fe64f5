"""Models of a running Ollama, and the context each request may use there.

Ollama cuts a prompt silently at the context it loaded the model with, so the gateway sends `num_ctx` with every
request: the model's own setting if it has one, else what is loaded, else the default of the settings.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from gateway.settings import Discover, Settings
from gateway.upstreams.served import Price, ServedModel
from gateway.upstreams.wire import Found, ask, base_url, count, items

if TYPE_CHECKING:
    import httpx


def server(settings: Settings) -> str:
    """Where Ollama is looked for: the settings' address, or its usual one if the settings leave it out."""
    return base_url(settings.discover.ollama or str(Discover.model_fields["ollama"].default))


def discover(settings: Settings, client: "httpx.Client") -> Found:
    """Every language model Ollama has, by its tag."""
    url = settings.discover.ollama
    if not url:
        return Found()
    base = base_url(url)
    tags, notes = ask(client, f"{base}/api/tags", "Ollama")
    if tags is None:
        return Found(notes=notes)
    names = [item["name"] for item in items(tags, "models") if isinstance(item.get("name"), str)]
    loaded, _ = ask(client, f"{base}/api/ps", "Ollama")
    held = {str(item.get("name")): count(item.get("context_length")) for item in items(loaded, "models")}

    def one(name: str) -> ServedModel | None:
        shown, _ = ask(client, f"{base}/api/show", "Ollama", post={"model": name})
        shown = shown or {}
        capabilities = shown.get("capabilities")
        if isinstance(capabilities, list) and "completion" not in capabilities:
            return None  # an embedding model
        context = configured_context(shown) or held.get(name) or settings.llamacpp.context
        return served(name, name, base, min(context, trained_context(shown) or context))

    with ThreadPoolExecutor(max_workers=4) as pool:
        return Found(tuple(model for model in pool.map(one, names) if model is not None))


def served(name: str, tag: str, base: str, context: int, *, price: Price | None = None) -> ServedModel:
    """`tag` at the Ollama at `base`, with `context` tokens asked of it at every request."""
    return ServedModel(
        name=name,
        upstream="ollama",
        litellm_params={"model": f"ollama_chat/{tag}", "api_base": base, "num_ctx": context, "keep_alive": "30m"},
        context=context,
        price=price or Price(),
    )


def configured_context(shown: dict[str, object]) -> int | None:
    """`num_ctx` in the model's own parameters, as `/api/show` gives them: one `name value` a line."""
    parameters = shown.get("parameters")
    for line in parameters.splitlines() if isinstance(parameters, str) else ():
        name, _, value = line.strip().partition(" ")
        if name == "num_ctx" and value.strip().isdecimal():
            return count(int(value))
    return None


def trained_context(shown: dict[str, object]) -> int | None:
    """The longest context of the model's architecture, as `/api/show` gives it."""
    info = shown.get("model_info")
    if not isinstance(info, dict):
        return None
    return count(info.get(f"{info.get('general.architecture')}.context_length"))
