"""Models of a running LM Studio, by its REST API (`/api/v0/models`), or by `/v1/models` where that is off."""

from typing import TYPE_CHECKING

from gateway.settings import Settings
from gateway.upstreams.served import ServedModel
from gateway.upstreams.wire import Found, ask, base_url, count, items

if TYPE_CHECKING:
    import httpx


def discover(settings: Settings, client: "httpx.Client") -> Found:
    """The language models LM Studio holds. `context` is the loaded one; it loads the others when asked for."""
    url = settings.discover.lmstudio
    if not url:
        return Found()
    base = base_url(url)
    listed, _ = ask(client, f"{base}/api/v0/models", "LM Studio")
    entries = [item for item in items(listed, "data") if item.get("type") in ("llm", "vlm")]
    if not entries:
        listed, notes = ask(client, f"{base}/v1/models", "LM Studio")
        if listed is None:
            return Found(notes=notes)
        entries = [item for item in items(listed, "data") if "embed" not in str(item.get("id", "")).lower()]
    return Found(tuple(_served(item, base) for item in entries if isinstance(item.get("id"), str)))


def _served(item: dict[str, object], base: str) -> ServedModel:
    loaded = count(item.get("loaded_context_length"))
    trained = count(item.get("max_context_length"))
    return ServedModel(
        name=str(item["id"]),
        upstream="lmstudio",
        litellm_params={"model": f"lm_studio/{item['id']}", "api_base": f"{base}/v1", "api_key": "none"},
        context=loaded,
        note="" if loaded or not trained else f"not loaded; up to {trained:,} tokens as LM Studio is set",
    )
