"""LiteLLM's documented extension points, bound to the key store: who calls, may it start, what did it take.

Loaded by the proxy (`custom_auth`, `callbacks`). Thin: decisions are made elsewhere; here LiteLLM's objects become
ours. Writes no key, prompt or answer to any log.
"""

import asyncio
import hmac
import logging
import os
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import litellm
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import (
    LiteLLM_ObjectPermissionTable,
    LitellmUserRoles,
    ProxyException,
    UserAPIKeyAuth,
)
from litellm.types.utils import all_litellm_params

from gateway.keys import estimate, refusals
from gateway.keys.admission import Ask, Price, Reason, matches
from gateway.keys.fields import refused_field, refused_header
from gateway.keys.ledger import Ledger
from gateway.keys.routes import ACCOUNTED, ANTHROPIC_ROUTES, COUNT_TOKENS, MCP, client_name, is_open, tool_model
from gateway.keys.store import Admitted, Call, KeyStore, Refused, StoreUnavailable, Usage
from gateway.mcp import NAMES

log = logging.getLogger("toolkit.keys")

STORE_URL = "TOOLKIT_KEYS_URL"
UNKNOWN_PRICE = "TOOLKIT_UNKNOWN_PRICE"
# LiteLLM reports how a request ended a moment after it did.
REPORT_SECONDS = 5.0
LONGEST_NAME = 255
MCP_CALL = "call_mcp_tool"  # LiteLLM's name
FREE = Ask(prompt=0, answer=0, price=Price(0, 0), clippable=False)
KEY_ID = "toolkit_key_id"
PATTERNS = "toolkit_models"
LOCAL_PROVIDERS = {"hosted_vllm", "ollama_chat", "lm_studio"}
FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
_LITELLMS = frozenset(all_litellm_params)
# LiteLLM refuses some fields itself, before it asks who calls: `Rejected Request: api_base is not allowed ...`
_REJECTED = re.compile(r"Rejected Request: (fallback|URL-valued fallback|\w+)")

# A caller's `no-log` would keep a request out of the accounts.
litellm.global_disable_no_log_param = True


_opened: Ledger | None = None


def _ledger() -> Ledger:
    global _opened
    if _opened is None:
        _opened = Ledger(os.environ[STORE_URL])
    return _opened


async def user_api_key_auth(request: Any, api_key: str) -> UserAPIKeyAuth:
    """Who calls: the operator with the master key, or a virtual key on one of the routes open to it."""
    from litellm.proxy.proxy_server import master_key

    if master_key and hmac.compare_digest((api_key or "").encode(), str(master_key).encode()):
        return UserAPIKeyAuth(api_key=api_key, user_id="operator", user_role=LitellmUserRoles.PROXY_ADMIN)
    # LiteLLM rewrites the path of its other MCP routes to /mcp, and keeps the one that was asked for.
    path, method = request.scope.get("_original_path") or request.url.path, request.scope.get("method", "")
    try:
        ledger = _ledger()
        found = await ledger.run(lambda store: store.authenticate(api_key or ""))
    except StoreUnavailable as error:
        raise _unavailable(error) from None
    if isinstance(found, Refused):
        refusal = _refusal(found, anthropic=path in ANTHROPIC_ROUTES, now=ledger.store.clock())
        if path == MCP:  # a 401 would send the client to a login that there is not, and LiteLLM rewords it
            refusal.code = "403"
        raise refusal
    if not is_open(method, path) or (path == MCP and NAMES not in os.environ):
        raise ProxyException(f"The route {path} is closed to virtual keys.", Reason.NOT_ACCEPTED.value, "path", 403)
    header = refused_header(request.headers)
    if header is not None:
        raise ProxyException(refusals.not_settable(header), Reason.NOT_ACCEPTED.value, header, 422)
    if path == COUNT_TOKENS and found.models:
        model = await _asked_for(request)
        if not matches(model, found.models):
            barred = await ledger.run(lambda store: store.refusal(found.id, Reason.MODEL))
            raise _refusal(barred, model=model, anthropic=True, now=ledger.store.clock())
    return UserAPIKeyAuth(
        api_key=api_key,
        key_alias=found.name,
        user_id=found.name,
        user_role=LitellmUserRoles.INTERNAL_USER,
        allowed_routes=[path],
        models=list(_allowed(_router(), found.models)),
        metadata={KEY_ID: found.id, PATTERNS: found.models},
        object_permission=_servers(found.name, found.models) if path == MCP else None,
    )


async def _asked_for(request: Any) -> str:
    """The model of a request whose tokens are only counted: LiteLLM calls no hook for it that knows the body."""
    try:
        body = await request.json()
    except (ValueError, RuntimeError):  # no JSON, or a form, whose stream LiteLLM has read
        body = None
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str):
        raise ProxyException("The request names no model in a JSON body.", Reason.NOT_ACCEPTED.value, "model", 422)
    return model


@dataclass
class Running:
    """A request between its admission and its end: what it is known to have taken so far."""

    key_id: int
    price: Price
    prompt: int  # a fair guess of its tokens
    chunks: int = 0  # of the answer; about a token each

    def usage(self) -> Usage:
        """The best guess of what it took, where the upstream's own count never came."""
        return Usage(
            cost_nano=self.price.cost(self.prompt, self.chunks),
            prompt_tokens=self.prompt,
            completion_tokens=self.chunks,
        )


class KeyHooks(CustomLogger):
    """Reserve before a request; settle or release after it."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, Running] = {}
        self._closing: set[asyncio.Future[None]] = set()

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Admit the request, with a shorter limit on its answer if need be, or raise the refusal."""
        if user_api_key_dict.user_role == LitellmUserRoles.PROXY_ADMIN:
            return data
        ledger = _ledger()
        anthropic = call_type == "anthropic_messages"
        known = user_api_key_dict.metadata
        if call_type == MCP_CALL:
            await _enter_tool_call(known, data)
            return data
        call_id, model, key_id = data.get("litellm_call_id"), data.get("model"), known.get(KEY_ID)
        named = isinstance(model, str) and len(model) <= LONGEST_NAME
        if call_type not in ACCOUNTED or not call_id or key_id is None or not isinstance(model, str) or not named:
            raise ProxyException("This request is closed to virtual keys.", Reason.NOT_ACCEPTED.value, "path", 422)
        field = refused_field(data, litellms=_LITELLMS)
        if field is not None:
            raise ProxyException(refusals.not_settable(field), Reason.NOT_ACCEPTED.value, field, 422)
        limits = estimate.LIMITS.get(call_type, ("max_tokens",))
        found = estimate.bound(data, embedding=call_type == "aembedding", limits=limits)
        if "mcp" in found.provider_tools:  # LiteLLM would call them itself and ask the model again, past the estimate
            raise ProxyException(
                f"The gateway does not call MCP tools for a model; a client calls them itself, at {MCP}.",
                Reason.NOT_ACCEPTED.value,
                "tools",
                422,
            )
        sent = data.get("proxy_server_request") or {}
        call = Call(
            id=call_id,
            model=model,
            route=urlsplit(str(sent.get("url", ""))).path,
            client=client_name((sent.get("headers") or {}).get("user-agent", "")),
            streamed=bool(data.get("stream")),
        )
        patterns = tuple(known[PATTERNS])
        ask = _ask(model, found, patterns)
        try:
            if isinstance(ask, Reason):
                reason = ask
                refused = await ledger.run(lambda store: store.refusal(key_id, reason))
                raise _refusal(refused, model=model, anthropic=anthropic, now=ledger.store.clock())
            wanted = ask
            result = await ledger.run(lambda store: store.admit(key_id, call, wanted, ledger.owner))
        except StoreUnavailable as error:
            raise _unavailable(error) from None
        if isinstance(result, Refused):
            raise _refusal(result, model=model, anthropic=anthropic, now=ledger.store.clock())
        self._watch(call_id, Running(key_id, ask.price, found.prompt_guess))
        limit = result.answer
        if limit is not None and limit != found.answer:
            estimate.limit_answer(data, limit, limits=limits)
        if patterns:  # the operator's fallbacks, less those that this key may not use
            data.update((kind, _fallbacks(_router(), kind, patterns)) for kind in FALLBACKS)
        return data

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Count the pieces of a streamed answer, for the case that its end is never seen."""
        running = self._running.get(request_data.get("litellm_call_id", ""))
        async for chunk in response:
            if running is not None:
                running.chunks += 1
            yield chunk

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Settle what the request took; also called with the part that was streamed before a client left."""
        call_id = kwargs.get("litellm_call_id")
        if not call_id:
            return
        running = self._running.pop(call_id, None)
        record = kwargs.get("standard_logging_object") or {}
        known = (kwargs.get("litellm_params") or {}).get("metadata") or {}
        ledger = _ledger()
        usage, answered_by = _usage(record), record.get("model")
        if running is not None and record.get("response_cost_failure_debug_info") is not None:
            # LiteLLM found no price and says 0; a model without one is 0 in the estimate too, if it was let through.
            usage = replace(usage, cost_nano=running.price.cost(usage.prompt_tokens, usage.completion_tokens))
        outcome = "client left" if known.get("client_disconnected") else "done"
        await ledger.finish(lambda store: store.settle(call_id, usage, outcome=outcome, answered_by=answered_by))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: UserAPIKeyAuth,
        traceback_str: str | None = None,
    ) -> HTTPException | None:
        """Free what was reserved for a request that failed; one that broke off while it answered is charged so far.

        Returns what the caller is told instead of the error, if that is LiteLLM's about a field of the request.
        """
        call_id = str(request_data.get("litellm_call_id", ""))
        running = self._running.get(call_id)
        # Before it is known who calls, the id is one that the caller chose: that of another request, maybe.
        if running is None or running.key_id != user_api_key_dict.metadata.get(KEY_ID):
            return _rejected(original_exception)
        del self._running[call_id]
        ledger = _ledger()
        if running.chunks:
            usage = running.usage()
            await ledger.finish(lambda store: store.lose(call_id, outcome="upstream broke off", usage=usage))
        elif isinstance(original_exception, litellm.Timeout):
            await ledger.finish(lambda store: store.lose(call_id, outcome="upstream timed out"))
        else:
            outcome = type(original_exception).__name__
            await ledger.finish(lambda store: store.release(call_id, outcome=outcome))
        return None

    def _watch(self, call_id: str, running: Running) -> None:
        """Close the request if its task ends and neither success nor failure is reported."""
        self._running[call_id] = running
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is not None:
            task.add_done_callback(lambda _: loop.call_later(REPORT_SECONDS, self._unreported, call_id))

    def _unreported(self, call_id: str) -> None:
        running = self._running.pop(call_id, None)
        if running is None:
            return
        usage = running.usage()
        closing = asyncio.ensure_future(
            _ledger().finish(lambda store: store.lose(call_id, outcome="no end seen", usage=usage))
        )
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _servers(key: str, patterns: tuple[str, ...]) -> LiteLLM_ObjectPermissionTable:
    """The MCP servers that a key with these patterns may list and call, for LiteLLM to enforce."""
    usable = [name for name in os.environ[NAMES].split(",") if matches(tool_model(name), patterns)]
    if not usable:
        told = f"The key {key} may use no MCP server: its models name none, as {tool_model('files')} would."
        raise ProxyException(told, Reason.MODEL.value, "key", 403)
    return LiteLLM_ObjectPermissionTable(object_permission_id="", mcp_servers=usable)


async def _enter_tool_call(known: dict[str, Any], data: dict[str, Any]) -> None:
    """Enter a call of a tool in the books: it costs nothing, and is one of the key's requests of this minute.

    Raises HTTPException, the only error of a hook that LiteLLM passes to an MCP client as it is.
    """
    ledger, key_id = _ledger(), known[KEY_ID]
    headers = (data.get("metadata") or {}).get("headers") or {}
    call = Call(
        id=str(uuid.uuid4()),
        model=tool_model(str(data.get("mcp_server_name"))),
        route=MCP,
        client=client_name(headers.get("user-agent", "")),
        streamed=False,
    )

    def enter(store: KeyStore) -> Admitted | Refused:
        admitted = store.admit(key_id, call, FREE, ledger.owner)
        store.settle(call.id, Usage())
        return admitted

    try:
        entered = await ledger.run(enter)
    except StoreUnavailable as error:
        raise HTTPException(503, _unavailable(error).message) from None
    if isinstance(entered, Refused):
        raise HTTPException(429, refusals.sentence(entered, model=call.model, now=ledger.store.clock()))


def _router() -> Any:
    from litellm.proxy.proxy_server import llm_router

    return llm_router


@lru_cache(maxsize=4096)
def _allowed(router: Any, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The names a key sees in the list of models; the patterns themselves are checked at admission."""
    if not patterns or router is None:
        return ()
    return tuple(name for name in router.get_model_names() if matches(name, patterns)) or ("none",)


def _fallbacks(router: Any, kind: str, patterns: tuple[str, ...]) -> list[dict[str, list[str]]]:
    """The operator's fallbacks of one kind, as a key with these patterns may use them."""
    entries = [entry for given in getattr(router, kind, None) or [] for entry in given.items()]
    usable = [(source, [name for name in names if matches(name, patterns)]) for source, names in entries]
    return [{source: names} for source, names in usable if names]


def _ask(model: str, found: estimate.Bound, patterns: tuple[str, ...]) -> Ask | Reason:
    if not matches(model, patterns):
        return Reason.MODEL
    router, offers = _router(), []
    free = os.environ.get(UNKNOWN_PRICE) == "free"
    for info, local in _deployments(router, model, patterns) if router is not None else ():
        price = estimate.price_of(info, found=found)
        if price is None and not free:
            return Reason.UNPRICED
        offers.append(
            estimate.Offer(
                price or Price(0, 0), info.get("max_input_tokens"), info.get("max_output_tokens"), local=local
            )
        )
    if not offers:  # LiteLLM would take some of these names apart (`a,b`), or look them up elsewhere
        return Reason.UNKNOWN_MODEL
    if (found.provider_tools or found.premium) and any(offer.price and offer.price.output for offer in offers):
        return Reason.UNBOUNDED
    return estimate.ask(found, offers) or Reason.UNBOUNDED


@lru_cache(maxsize=4096)
def _deployments(router: Any, model: str, patterns: tuple[str, ...]) -> tuple[tuple[dict[str, Any], bool], ...]:
    """Price and limits of everything that may answer a request for `model`: its deployments and its fallbacks'.

    Looked up once: without a database of its own, LiteLLM changes its models only with its process.
    """
    found: list[tuple[dict[str, Any], bool]] = []
    waiting, seen = [model], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for deployment in router.get_model_list(model_name=name) or []:
            served = str(deployment["litellm_params"].get("model", ""))
            own = {**deployment["litellm_params"], **(deployment.get("model_info") or {})}
            info = {key: value for key, value in own.items() if value is not None}
            local = served.partition("/")[0] in LOCAL_PROVIDERS
            if not local:
                # LiteLLM's own table. Not for local servers: it mixes up deployments of one model there.
                table = router.get_deployment_model_info(str(info.get("id", "")), served)
                info = {**(table or {}), **info}
            found.append((info, local))
        for kind in FALLBACKS:
            for entry in _fallbacks(router, kind, patterns):
                for source, names in entry.items():
                    if source in (name, "*"):
                        waiting.extend(names)
    return tuple(found)


def _usage(record: dict[str, Any]) -> Usage:
    took = (record.get("metadata") or {}).get("usage_object") or {}
    details = took.get("prompt_tokens_details") or {}
    return Usage(
        cost_nano=_nano(record.get("response_cost")),
        prompt_tokens=int(record.get("prompt_tokens") or 0),
        completion_tokens=int(record.get("completion_tokens") or 0),
        cache_read_tokens=int(details.get("cached_tokens") or took.get("cache_read_input_tokens") or 0),
        cache_write_tokens=int(details.get("cache_creation_tokens") or took.get("cache_creation_input_tokens") or 0),
    )


def _nano(dollars: float | None) -> int:
    """LiteLLM's dollars as whole nano-dollars. Its float's noise is far below half of one."""
    return round((dollars or 0.0) * 1e9)


def _refusal(refused: Refused, *, model: str = "", anthropic: bool, now: int) -> ProxyException:
    return ProxyException(
        message=refusals.sentence(refused, model=model, now=now),
        type=refused.reason.value,
        param="key",
        code=refusals.status(refused.reason, anthropic=anthropic),
    )


def _rejected(error: Exception) -> HTTPException | None:
    """LiteLLM's refusal of a field, as ours; without the packages of its database it answers with a bare 500."""
    found = _REJECTED.match(str(error)) if isinstance(error, ValueError) else None
    if found is None:
        return None
    field = "fallbacks" if "fallback" in found[1] else found[1]
    return HTTPException(422, refusals.not_settable(field))


def _unavailable(error: StoreUnavailable) -> ProxyException:
    log.error("%s", error.message)
    return ProxyException(
        "The gateway's key store does not work at the moment, so no budget can be checked.",
        Reason.STORE.value,
        "key",
        503,
    )


proxy_logger = KeyHooks()
if STORE_URL in os.environ:
    _ledger()  # at the start of the proxy: what a killed one left open is closed now, not at the first request
