"""The mends as the proxy applies them: before a request goes to a model that only local servers answer.

Loaded by LiteLLM (`callbacks`). Decides which model is local; what is mended, and how, is in `gateway.mends`.
"""

from typing import Any

from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException

from gateway.mends import mended, unreachable

LOCAL = {"hosted_vllm", "ollama_chat", "lm_studio"}  # LiteLLM's names of the providers that run on this machine
UNPROCESSABLE = 422  # of the request's kind: both clients show it at once, and other 4xx not always
CALLS = {"acompletion", "completion", "anthropic_messages"}


class MendHooks(CustomLogger):
    """Mends requests to local models; leaves every other as it is."""

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """The request as it goes on."""
        if call_type not in CALLS or not _is_local(data.get("model")):
            return data
        return dict(mended(data))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Say at once that a local server is gone. The exception itself is reworded: of what this hook may return,
        the Anthropic route takes no notice."""
        model = request_data.get("model")
        if isinstance(original_exception, ProxyException) or not _is_local(model):
            return
        told = unreachable(str(original_exception), str(model))
        if told is not None:
            original_exception.status_code = UNPROCESSABLE  # type: ignore[attr-defined]
            original_exception.message = told  # type: ignore[attr-defined]
            original_exception.type = "upstream_unreachable"  # type: ignore[attr-defined]


def _is_local(model: object) -> bool:
    """Whether everything that answers under this name runs on this machine."""
    from litellm.proxy.proxy_server import llm_router

    if llm_router is None or not isinstance(model, str):
        return False
    deployments = llm_router.get_model_list(model_name=model) or []
    providers = {str(found["litellm_params"].get("model", "")).partition("/")[0] for found in deployments}
    return bool(providers) and providers <= LOCAL


proxy_mends = MendHooks()
