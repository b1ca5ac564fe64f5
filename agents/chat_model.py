"""A model that is asked with messages and tools and gives one reply. Knows the OpenAI wire format over HTTP,
and nothing of gateways, keys' origin, tools' meaning or loops.

    ChatModel               the seam: one question, one reply
    +-- OpenAIChatModel     any OpenAI-compatible endpoint
    +-- ScriptedModel       replies written beforehand, for tests and demonstrations
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

from toolkit.core.errors import ToolkitError
from toolkit.core.units import NANO

Message = Mapping[str, Any]  # as the OpenAI chat format has it: role, content, tool_calls, tool_call_id
ToolSchema = Mapping[str, Any]  # {"type": "function", "function": {...}}

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT = 60.0  # seconds; a server that asks for more gets no retry, and the user is told


class ModelError(ToolkitError):
    """The model could not answer. `status` is the HTTP status, None if there was no answer at all."""

    def __init__(self, message: str, hint: str | None = None, *, status: int | None = None) -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True)
class ToolCall:
    """A model's wish to call a tool. `arguments` is the raw JSON text, which may be invalid."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Usage:
    """Tokens of one or several requests. `cached_tokens` are those of the prompt that the server did not recompute."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True)
class Reply:
    """What the model said. `latency` is in seconds, `cost` in nano-dollars or None where the endpoint names none,
    `raw` the server's document (a streamed one is put together)."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    usage: Usage = Usage()
    latency: float = 0.0
    raw: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str = ""
    cost: int | None = None

    def message(self) -> dict[str, Any]:
        """The reply as the assistant's message of the next request."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return message


class ChatModel(Protocol):
    """Answers one question at a time; several may be asked at once. Raises ModelError."""

    @property
    def name(self) -> str: ...

    async def ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        tool_choice: str | Mapping[str, Any] = "auto",
        max_tokens: int | None = None,
        temperature: float | None = 0.0,
        seed: int | None = None,
    ) -> Reply: ...


class OpenAIChatModel:
    """A model behind `{base_url}/chat/completions`.

    `base_url` ends in `/v1` as a rule. With `on_text` the reply is streamed, and every piece of text is handed over
    as it comes. `extra` is added to every request body (`{"cache_prompt": False}`). `timeout` (seconds) is for the
    longest silence of the server: a local model reads a long prompt for minutes before it says a word. A failure
    that may pass (busy, restarting, connection lost) is tried `retries` times more, as the server asks or with
    growing waits. `free` says that a reply which names no cost costs nothing. Use as an async context manager, or
    pass a `client` that someone else closes.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        model: str,
        client: httpx.AsyncClient | None = None,
        *,
        timeout: float = 600.0,
        retries: int = 3,
        on_text: Callable[[str], None] | None = None,
        extra: Mapping[str, Any] | None = None,
        free: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.name = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, 10.0))
        self._client = client or httpx.AsyncClient()
        self._owns_client = client is None
        self._retries = retries
        self._on_text = on_text
        self._extra = dict(extra or {})
        self._free = free
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, unless they are someone else's."""
        if self._owns_client:
            await self._client.aclose()

    async def ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        tool_choice: str | Mapping[str, Any] = "auto",
        max_tokens: int | None = None,
        temperature: float | None = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """One request. Raises ModelError with the server's own sentence."""
        body: dict[str, Any] = {"model": self.name, "messages": list(messages)}
        if tools:
            body |= {"tools": list(tools), "tool_choice": tool_choice}
        optional = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        body |= {key: value for key, value in optional.items() if value is not None}
        if self._on_text is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        body |= self._extra
        for attempt in range(self._retries + 1):
            try:
                return await self._attempt(body)
            except _Passing as failure:
                wait = failure.wait if failure.wait is not None else _backoff(attempt)
                if attempt == self._retries or wait > LONGEST_WAIT:
                    raise failure.error from None
                await self._sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, body: Mapping[str, Any]) -> Reply:
        """One try. Raises _Passing if another may succeed, ModelError if not."""
        started = time.perf_counter()
        said = _Said(self._on_text)
        url = f"{self.base_url}/chat/completions"
        try:
            async with self._client.stream(
                "POST", url, json=body, headers=self._headers, timeout=self._timeout
            ) as response:
                if response.status_code >= 400:
                    await response.aread()
                    error = self._refused(response)
                    if response.status_code in RETRIED:
                        raise _Passing(error, _retry_after(response.headers))
                    raise error
                if "text/event-stream" in response.headers.get("content-type", ""):
                    document = await _assemble(response.aiter_lines(), said)
                else:
                    await response.aread()
                    document = self._document(response)
        except httpx.InvalidURL as error:
            raise ModelError(
                f"{self.base_url} is not an address: {error}", "write it as http://127.0.0.1:4000/v1"
            ) from None
        except httpx.UnsupportedProtocol:
            raise ModelError(f"{self.base_url} is not an HTTP address", f"write it as http://{self.base_url}") from None
        except httpx.ReadTimeout:
            raise ModelError(
                f"{self.name} at {self.base_url} said nothing for {self._timeout.read:g} seconds",
                "ask for less, or give it longer with --timeout",
            ) from None
        except httpx.TransportError as error:
            lost = ModelError(
                f"no answer from {self.base_url}: {_reason(error)}", "toolkit gateway status, or check --base-url"
            )
            if said.anything:
                raise lost from None  # a second try would say it all again
            raise _Passing(lost, None) from None
        reply = _reply(document, time.perf_counter() - started, self.name, response.headers)
        return replace(reply, cost=0) if self._free and reply.cost is None else reply

    def _refused(self, response: httpx.Response) -> ModelError:
        status = response.status_code
        sentence = _sentence(response.text) or response.reason_phrase or "no reason given"
        if status in (401, 403):
            hint = "check the key: toolkit keys list, then --key env:NAME"
        elif status == 404:
            hint = f"curl {self.base_url}/models"
        elif status == 429:
            hint = "try again later"
        elif status >= 500:
            hint = "toolkit gateway logs"
        else:
            hint = None
        return ModelError(f"{self.name} refused ({status}): {sentence}", hint, status=status)

    def _document(self, response: httpx.Response) -> dict[str, Any]:
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ModelError(
                f"{self.base_url} answered with something that is no chat completion: {_cut(response.text)}",
                "the address of an OpenAI-compatible endpoint ends in /v1 as a rule",
                status=response.status_code,
            )
        return document


class ScriptedModel:
    """Gives the replies of `script` in turn, and keeps what it was asked in `asked`.

    A step is a Reply, an exception to raise, a text, or a function of (messages, tools) to any of these. When the
    script is at its end, asking again is an error: the loop asked more often than it should.
    """

    def __init__(self, script: Iterable["Step"], *, name: str = "scripted") -> None:
        self.name = name
        self.asked: list[tuple[list[Message], list[ToolSchema]]] = []
        self._script = iter(script)

    async def ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        tool_choice: str | Mapping[str, Any] = "auto",
        max_tokens: int | None = None,
        temperature: float | None = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """The next step of the script."""
        self.asked.append((list(messages), list(tools)))
        step = next(self._script, None)
        if step is None:
            raise ModelError(f"the script of {self.name} has only {len(self.asked) - 1} replies")
        if callable(step):
            step = step(messages, tools)
        if isinstance(step, Exception):
            raise step
        return Reply(step) if isinstance(step, str) else step


Said = Reply | str | Exception
Step = Said | Callable[[Sequence[Message], Sequence[ToolSchema]], Said]


def calling(*calls: tuple[str, Mapping[str, Any] | str], text: str = "") -> Reply:
    """A reply that calls tools, for scripts: `calling(("add", {"a": 1}))`; text arguments are sent as they are."""
    return Reply(
        text,
        tuple(
            ToolCall(f"call_{number}", name, arguments if isinstance(arguments, str) else json.dumps(arguments))
            for number, (name, arguments) in enumerate(calls)
        ),
        "tool_calls",
    )


class _Passing(Exception):
    """A failure that another try may not meet, and how long the server asks to wait."""

    def __init__(self, error: ModelError, wait: float | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


class _Said:
    """Hands streamed text over, and remembers whether there was any."""

    def __init__(self, hear: Callable[[str], None] | None) -> None:
        self._hear = hear
        self.anything = False

    def __call__(self, text: str) -> None:
        self.anything = True
        if self._hear is not None:
            self._hear(text)


async def _assemble(lines: AsyncIterator[str], said: _Said) -> dict[str, Any]:
    """The document that a stream of `data:` lines amounts to."""
    document: dict[str, Any] = {}
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    finish = None
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            break
        try:
            chunk = json.loads(data)
        except ValueError:
            raise ModelError(f"the stream broke off inside a chunk: {_cut(data)}") from None
        if not isinstance(chunk, dict):
            raise ModelError(f"the stream holds something that is no chunk: {_cut(data)}")
        document |= {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        for choice in (chunk.get("choices") or [])[:1]:
            delta = choice.get("delta") or {}
            finish = choice.get("finish_reason") or finish
            if delta.get("content"):
                text.append(delta["content"])
                said(delta["content"])
            reasoning.append(delta.get("reasoning_content") or delta.get("reasoning") or "")
            for piece in delta.get("tool_calls") or []:
                _add_piece(calls, piece)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(text), "reasoning_content": "".join(reasoning)}
    if calls:
        message["tool_calls"] = calls
    if "error" not in document and finish is None and not (text or calls):
        raise ModelError("the stream ended before the model said anything")
    return document | {"choices": [{"index": 0, "message": message, "finish_reason": finish or "stop"}]}


def _add_piece(calls: list[dict[str, Any]], piece: Mapping[str, Any]) -> None:
    """Add one streamed piece to the call it belongs to. Servers differ: a new index, only a new id, or no index."""
    function = piece.get("function") or {}
    index, identity = piece.get("index"), piece.get("id")
    started = [call for call in calls if call["index"] == index]
    if not started or (identity and started[-1]["id"] not in ("", identity)):
        started = [{"index": index, "id": "", "type": "function", "function": {"name": "", "arguments": ""}}]
        calls += started
    call = started[-1]
    call["id"] = call["id"] or identity or ""
    call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
    call["function"]["arguments"] += _as_text(function.get("arguments"))


def _reply(document: Mapping[str, Any], latency: float, model: str, headers: Mapping[str, str]) -> Reply:
    """The server's document as a Reply. Raises ModelError if it is none."""
    if document.get("error"):
        raise ModelError(f"{model} failed: {_sentence(json.dumps(document)) or 'no reason given'}")
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ModelError(f"{model} answered without a message: {_cut(json.dumps(document))}")
    calls = []
    for number, call in enumerate(message.get("tool_calls") or []):
        function = call.get("function") or {}
        identity = call.get("id") or f"call_{number}"
        arguments = _whole(_as_text(function.get("arguments")))
        calls.append(ToolCall(identity, _whole(function.get("name") or ""), arguments))
    return Reply(
        text=_whole(_content(message.get("content"))),
        tool_calls=tuple(calls),
        finish_reason=choice.get("finish_reason") or "stop",
        usage=_usage(document),
        latency=latency,
        raw=document,
        reasoning=_whole(message.get("reasoning_content") or message.get("reasoning") or ""),
        cost=_cost(document, headers),
    )


def _whole(text: str) -> str:
    """`text` with the surrogate pairs joined that a stream cut in two; half a pair becomes the replacement sign."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _usage(document: Mapping[str, Any]) -> Usage:
    """Tokens from `usage`; what llama.cpp took from its cache also from its `timings`."""
    usage = document.get("usage") or {}
    timings = document.get("timings") or {}
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or timings.get("cache_n") or 0
    prompt = usage.get("prompt_tokens")
    if prompt is None:
        prompt = (timings.get("cache_n") or 0) + (timings.get("prompt_n") or 0)
    completion = usage.get("completion_tokens")
    return Usage(int(prompt), int(timings.get("predicted_n") or 0 if completion is None else completion), int(cached))


def _cost(document: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
    """Nano-dollars, from `usage.cost` (OpenRouter, LiteLLM's streams) or LiteLLM's header."""
    named = (document.get("usage") or {}).get("cost")
    if named is None:
        named = headers.get("x-litellm-response-cost")
    try:
        return None if named is None else round(float(named) * NANO)
    except (TypeError, ValueError):
        return None


def _content(content: object) -> str:
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _as_text(arguments: object) -> str:
    """Arguments as JSON text; some servers send the object itself."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _sentence(body: str) -> str:
    """The server's own sentence, out of the shapes that errors come in."""
    try:
        found: Any = json.loads(body)
    except ValueError:
        return "" if body.lstrip().startswith("<") else _cut(body)
    for key in ("error", "detail", "message"):
        while isinstance(found, dict) and found.get(key):
            found = found[key]
    return _cut(found if isinstance(found, str) else json.dumps(found))


def _cut(text: str, longest: int = 500) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[:longest]}..."


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if value is not None:
            return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value or "") - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _backoff(attempt: int) -> float:
    """0.5, 1, 2, ... seconds, up to 8, each with up to a quarter more, so that many callers do not return at once."""
    return float(min(0.5 * 2**attempt, 8.0) * random.uniform(1.0, 1.25))  # noqa: S311
