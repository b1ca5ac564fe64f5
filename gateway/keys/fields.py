"""Fields and headers that a virtual key may not set. Pure; knows nothing of LiteLLM but the names it reads.

LiteLLM, and some providers behind it, take more from a request than a client's API has: another server or key, other
models, retries, a price. Each would make it a request that was not estimated, or one that is not accounted.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

# Of what LiteLLM calls its own: what clients send in good faith, and what the proxy itself puts into every request.
_HARMLESS = {
    "metadata",
    "litellm_metadata",
    "litellm_call_id",
    "litellm_logging_obj",
    "litellm_session_id",
    "litellm_trace_id",
    "_litellm_strip_stream_usage",
    "proxy_server_request",
    "secret_fields",
    "tags",
}
# What the proxy makes of the headers that every client of the Anthropic API sends. Whether the caller's own body
# had one, it notes in `credential_fields`.
_FROM_HEADERS = "provider_specific_header"
# Not its own, and still read by it.
_READ_BY_LITELLM = {
    "additional_drop_params",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "extra_body",
    "extra_headers",
    "extra_query",
    "model_group_retry_policy",
    "router_settings_override",
    "specific_deployment",
    "user_config",
}
# Read by a provider: another model or answer than was asked for (OpenRouter), more answers, a longer one, or a prompt
# that is kept elsewhere (Gemini), a longer context (Ollama). An answer made in the background is billed when nobody
# looks any more.
_READ_BY_PROVIDERS = {
    "background",
    "cached_content",
    "cachedContent",
    "candidate_count",
    "candidateCount",
    "generation_config",
    "generationConfig",
    "maxOutputTokens",
    "models",
    "num_ctx",
    "plugins",
    "preset",
    "provider",
    "route",
    "transforms",
}
_READ_BESIDES = _READ_BY_LITELLM | _READ_BY_PROVIDERS
_PREFIXES = ("litellm_", "_litellm_")
_HEADERS = "x-litellm-"
_HARMLESS_HEADERS = {"x-litellm-api-key", "x-litellm-session-id", "x-litellm-tags", "x-litellm-trace-id"}


def refused_field(body: Mapping[str, Any], *, litellms: AbstractSet[str]) -> str | None:
    """The first field of a request body that a virtual key may not set; None: there is none.

    `litellms`: the fields that LiteLLM takes for its own. A field that is null or false sets nothing.
    """
    sent = body.get("proxy_server_request")
    sent_so = sent.get("credential_fields", ()) if isinstance(sent, Mapping) else ()
    for name, value in body.items():
        if value is None or value is False or name in _HARMLESS or (name == _FROM_HEADERS and name not in sent_so):
            continue
        if name in litellms or name in _READ_BESIDES or name.startswith(_PREFIXES):
            return name
    return None


def refused_header(names: Iterable[str]) -> str | None:
    """The first header that a virtual key may not send: it would steer LiteLLM, or take the place of another request.

    None: there is none.
    """
    lowered = (name.lower() for name in names)
    return next((name for name in lowered if name.startswith(_HEADERS) and name not in _HARMLESS_HEADERS), None)
