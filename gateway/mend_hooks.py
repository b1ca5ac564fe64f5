"""The mends as the proxy applies them: before a request goes to a model that only local servers answer, and after.

Loaded by LiteLLM (`callbacks`). Decides which model is local; what is mended, and how, is in `gateway.mends`.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.llms.ollama.chat.transformation import OllamaChatConfig
from litellm.proxy._types import ProxyException

from gateway.mends import mended, separate_calls, unreachable

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


class SeparateCalls(OllamaChatConfig):
    """LiteLLM's Ollama, which reads an answer once each tool call stands in a line of its own."""

    def get_model_response_iterator(self, streaming_response: Any, sync_stream: bool, json_mode: Any = False) -> Any:
        lines = streaming_response if sync_stream else _separated(streaming_response)
        return super().get_model_response_iterator(lines, sync_stream, json_mode)


# No hook sees these lines before LiteLLM has read them. It looks the class up under this name for each request.
litellm.OllamaChatConfig = SeparateCalls


async def _separated(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    seen = 0
    async for line in lines:
        if '"tool_calls"' not in line:
            yield line
            continue
        for answer in separate_calls(json.loads(line), seen):
            seen += len((answer.get("message") or {}).get("tool_calls") or ())
            yield json.dumps(answer)


def _is_local(model: object) -> bool:
    """Whether everything that answers under this name runs on this machine."""
    from litellm.proxy.proxy_server import llm_router

    if llm_router is None or not isinstance(model, str):
        return False
    deployments = llm_router.get_model_list(model_name=model) or []
    providers = {str(found["litellm_params"].get("model", "")).partition("/")[0] for found in deployments}
    return bool(providers) and providers <= LOCAL


proxy_mends = MendHooks()
