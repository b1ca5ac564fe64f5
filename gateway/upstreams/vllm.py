"""Models of a running vLLM server: its OpenAI-compatible list says how long a request may be (`max_model_len`)."""

from typing import TYPE_CHECKING

from gateway.settings import Settings
from gateway.upstreams.served import ServedModel
from gateway.upstreams.wire import Found, ask, base_url, count, items

if TYPE_CHECKING:
    import httpx


def discover(settings: Settings, client: "httpx.Client") -> Found:
    """What vLLM serves. A server at that address that is not vLLM is left out, and said so."""
    url = settings.discover.vllm
    if not url:
        return Found()
    base = base_url(url)
    listed, notes = ask(client, f"{base}/v1/models", "vLLM")
    if listed is None:
        return Found(notes=notes)
    entries = [item for item in items(listed, "data") if item.get("owned_by") == "vllm" or "max_model_len" in item]
    if not entries:
        return Found(notes=(f"what listens at {base} is no vLLM server: left out",))
    return Found(
        tuple(
            ServedModel(
                name=item["id"],
                upstream="vllm",
                litellm_params={"model": f"hosted_vllm/{item['id']}", "api_base": f"{base}/v1", "api_key": "none"},
                context=count(item.get("max_model_len")),
            )
            for item in entries
            if isinstance(item.get("id"), str)
        )
    )
