"""An upper bound of what a request can take, from its body and the prices of what may answer it. Pure functions.

No tokenizer writes more tokens than its text has UTF-8 bytes, so bytes bound tokens from above for every model; what
a chat template adds to the caller's text is bounded by generous constants. What cannot be bounded is said to be so.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from gateway.keys.admission import PER, Ask, Price

# What templates and providers put around the caller's text: default system prompts, tool instructions, role marks.
AROUND_REQUEST = 1_024
AROUND_TOOLS = 1_024
AROUND_MESSAGE = 32
AROUND_TOOL = 64
# The dearest picture known: gpt-4o-mini counts 2,833 tokens and 5,667 for each of up to 8 tiles.
IMAGE = 50_000
BYTES_PER_TOKEN = 4  # of ordinary text; only for rate limits, never for money

# The fields by which each API limits its answer (LiteLLM's names of the calls; of the others, `max_tokens`). What else
# a body may hold as a limit is passed on, or not, and can only make the bound larger.
LIMITS = {"acompletion": ("max_tokens", "max_completion_tokens"), "aresponses": ("max_output_tokens",)}
ANSWER_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "n_predict",
    "num_predict",
    "max_tokens_to_sample",
)
_COPIES = ("n", "best_of", "n_cmpl", "num_return_sequences")
_IMAGES = {"image", "image_url", "input_image", "image_file", "computer_screenshot"}
_IMAGE_FIELDS = {"image_url", "source", "file_id", "image_file"}  # its data, counted as a picture and not as text
# LiteLLM hands what it takes for a picture to Gemini as whatever it is: film, sound, a book.
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".heic", ".heif", ".bmp")
_MIME_FIELDS = ("format", "mime_type", "content_type", "media_type")
# The names of rates in LiteLLM's table, each with endings for long prompts and priority. Some models speak or draw
# without being asked to, so what they may write counts by its dearest kind.
_IN = ("input_cost_per_token", "cache_creation_input_token_cost")
_IN_MEDIA = ("input_cost_per_audio_token", "input_cost_per_image_token", "input_cost_per_video_token")
_OUT = (
    "output_cost_per_token",
    "output_cost_per_reasoning_token",
    "output_cost_per_audio_token",
    "output_cost_per_image_token",
    "output_cost_per_video_token",
)
_SOUND = {"input_audio", "audio"}
_FILES = {
    "file",
    "input_file",
    "document",
    "video",
    "input_video",
    "container_upload",
    "search_result_file",
    "item_reference",
}
# What a provider keeps and puts into the prompt when it is named.
_KEPT_ELSEWHERE = ("previous_response_id", "conversation", "container")
# Put into the body by the proxy, or never read by a model.
_NOT_PROMPT = {
    "model",
    "metadata",
    "litellm_metadata",
    "litellm_logging_obj",
    "litellm_call_id",
    "litellm_trace_id",
    "proxy_server_request",
    "secret_fields",
    "stream_options",
    "user",
    "api_key",
    "tools",
    "functions",
}
# Tools that the provider itself runs: every use is billed, and the model reads again what it brought.
_CLIENT_TOOLS = {
    "function",
    "custom",
    "bash",
    "text_editor",
    "computer",
    "memory",
    "computer_use_preview",
    "local_shell",
}
# Google's tools that it runs itself are told by a field, whatever else the tool says; here without case and lines.
_GOOGLE_TOOLS = {
    "googlesearch",
    "googlesearchretrieval",
    "enterprisewebsearch",
    "urlcontext",
    "codeexecution",
    "googlemaps",
    "filesearch",
    "retrieval",
}


@dataclass(frozen=True)
class Bound:
    """What a request body can lead to. `answer` None: it sets no limit. `prompt` None: it cannot be measured."""

    prompt: int | None
    answer: int | None
    copies: int
    expected: int
    prompt_guess: int
    provider_tools: tuple[str, ...] = ()
    premium: tuple[str, ...] = ()  # service_tier, speed, prediction, ...: asked for at another price
    media: bool = False


@dataclass(frozen=True)
class Offer:
    """One deployment that may answer: its price, and what its server holds. `local`: it refuses to hold more."""

    price: Price
    context: int | None = None
    max_output: int | None = None
    local: bool = False


def bound(body: Mapping[str, Any], *, limits: Sequence[str] = ("max_tokens",), embedding: bool = False) -> Bound:
    """The bound for one request body of any of the formats; `limits` are the fields that limit its answer."""
    counter = _Counter()
    for name, value in body.items():
        if name not in _NOT_PROMPT:
            counter.add(value)
    tools = [*_list(body.get("tools")), *_list(body.get("functions"))]
    messages = len(_list(body.get("messages"))) + len(_list(body.get("input")))
    size = counter.size + _rendered(tools)
    around = AROUND_REQUEST + AROUND_MESSAGE * messages + AROUND_TOOL * len(tools) + (AROUND_TOOLS if tools else 0)
    prompt: int | None = size + around + IMAGE * counter.images
    if embedding:
        # An embedding model adds a mark or two to each text, and no instructions.
        prompt = size + 16 * max(1, messages)
    if counter.unmeasured or any(body.get(name) for name in _KEPT_ELSEWHERE) or isinstance(body.get("prompt"), dict):
        prompt = None
    answer = 0 if embedding else _answer(body, limits)
    # Plain completions answer each of several prompts; a list of numbers is one prompt, as tokens.
    prompts = sum(1 for text in _list(body.get("prompt")) if not isinstance(text, int)) or 1
    copies = prompts * max([1, *(_positive(body.get(name)) or 1 for name in _COPIES)])
    guess = size // BYTES_PER_TOKEN + 1_000 * counter.images
    return Bound(
        prompt=prompt,
        answer=answer,
        copies=1 if embedding else copies,
        expected=guess + copies * min(answer if answer is not None else 512, 512),
        prompt_guess=guess,
        provider_tools=tuple(_provider_tools(body, tools)),
        premium=tuple(_premium(body)),
        media=counter.images > 0 or counter.unmeasured or counter.audio,
    )


def ask(found: Bound, offers: Iterable[Offer]) -> Ask | None:
    """The worst case over everything that may answer; None if the prompt has no bound there.

    A local server's context bounds prompt and answer, since it holds no more.
    """
    prompts, answers, inputs, outputs, fixed = [0], [], [0], [0], [0]
    for offer in offers:
        prompt, answer = found.prompt, found.answer
        if offer.context is not None and (prompt is None or offer.local):
            prompt = offer.context if prompt is None else min(prompt, offer.context)
        if prompt is None:
            return None
        if answer is None:
            answer = offer.max_output or offer.context
        elif offer.local and offer.context is not None:
            answer = min(answer, offer.context)
        prompts.append(prompt)
        answers.append(answer)
        inputs.append(offer.price.input)
        outputs.append(offer.price.output)
        fixed.append(offer.price.fixed)
    known = [answer for answer in answers if answer is not None]
    return Ask(
        prompt=max(prompts),
        answer=max(known) if known and len(known) == len(answers) else found.answer,
        price=Price(max(inputs), max(outputs), max(fixed)),
        copies=found.copies,
        expected=found.expected,
        clippable=found.answer != 0,
    )


def price_of(info: Mapping[str, Any], *, found: Bound) -> Price | None:
    """The dearest reading of one entry of LiteLLM's price table for this request; None if it has no token price.

    Rates above a length of prompt, for writing a cache, for thinking and for media count where they can apply.
    """
    rates_in, rates_out = [], []
    for name, value in info.items():
        if "cost" not in name or "batch" in name or "flex" in name:
            continue
        rate = _rate(value)
        if rate is None:
            continue
        if "priority" in name and "service_tier" not in found.premium:
            continue
        above = _above(name)
        if above is not None and found.prompt is not None and found.prompt <= above:
            continue
        if name.startswith(_IN) or (found.media and name.startswith(_IN_MEDIA)):
            rates_in.append(rate)
        elif name.startswith(_OUT):
            rates_out.append(rate)
    for tier in _list(info.get("tiered_pricing")):
        rates_in += [
            rate for name, value in tier.items() if name.startswith("input") and (rate := _rate(value)) is not None
        ]
        rates_out += [
            rate for name, value in tier.items() if name.startswith("output") and (rate := _rate(value)) is not None
        ]
    fixed = _rate(info.get("input_cost_per_request")) or 0
    if "search" in str(info.get("key")):  # such a model searches for every answer, unasked
        fixed += max(
            (_rate(cost) or 0 for cost in (info.get("search_context_cost_per_query") or {}).values()), default=0
        )
    if not rates_in and not rates_out and not fixed:
        return None
    return Price(input=max(rates_in, default=0), output=max(rates_out, default=0), fixed=-(-fixed // PER))


def limit_answer(body: dict[str, Any], limit: int, *, limits: Sequence[str] = ("max_tokens",)) -> None:
    """Set the limit on the answer in every field of a request body that sets one, and in one of `limits` at least."""
    present = [name for name in ANSWER_LIMITS if body.get(name) is not None]
    for name in present if set(present) & set(limits) else [*present, limits[0]]:
        body[name] = limit
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and (_positive(thinking.get("budget_tokens")) or 0) >= limit:
        # Anthropic refuses a thinking budget that is not below max_tokens, and one below 1,024.
        least = 1_024
        body["thinking"] = {**thinking, "budget_tokens": limit // 2} if limit // 2 >= least else {"type": "disabled"}


class _Counter:
    """Adds up the UTF-8 bytes of all text in a body; pictures, sound and files are counted apart."""

    def __init__(self) -> None:
        self.size = 0
        self.images = 0
        self.unmeasured = False
        self.audio = False

    def add(self, node: Any, *, quoted: bool = False) -> None:
        """Count a part of the body. `quoted`: LiteLLM may send it as JSON in a text, where many letters become six."""
        if isinstance(node, str):
            self.size += len(json.dumps(node)) if quoted else _bytes(node)
        elif isinstance(node, dict):
            kind = node["type"] if isinstance(node.get("type"), str) else ""
            picture = kind in _IMAGES or _url(node) is not None
            if picture and _is_picture(node):
                self.images += 1
            elif picture or _is_elsewhere(kind, node):
                self.unmeasured = True
            if kind in _SOUND:
                self.audio = True  # its base64 text is longer than any count of its tokens
            # Whatever a part says it is, all else in it counts too: a message may call itself a picture.
            for name, value in node.items():
                self.size += (len(json.dumps(name)) if quoted else _bytes(name)) + 6
                if name == "input" and kind.endswith("tool_use"):
                    self.size += len(json.dumps(value))
                elif not (picture and name in _IMAGE_FIELDS):
                    self.add(value, quoted=quoted or (name == "output" and not isinstance(value, str)))
        elif isinstance(node, list | tuple):
            for value in node:
                self.size += 2
                self.add(value, quoted=quoted)
        elif isinstance(node, int | float):
            self.size += 24


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _is_elsewhere(kind: str, part: Mapping[str, Any]) -> bool:
    """Whether the provider puts something into the prompt that is not in the body, or that is no text."""
    source = part.get("source")
    if isinstance(source, dict) and source.get("type") in ("text", "content"):
        return False
    spoken = part.get("audio")  # an answer of earlier, by its number
    if kind in _SOUND and "http" in json.dumps(part)[:200]:
        return True
    return kind in _FILES or kind.endswith("_url") or (isinstance(spoken, dict) and spoken.get("id") is not None)


def _url(part: Mapping[str, Any]) -> str | None:
    """Where a part says that its picture is; a picture in the body itself is a `data:` address."""
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    return url if isinstance(url, str) else None


def _is_picture(part: Mapping[str, Any]) -> bool:
    """Whether what a part calls a picture cannot be something longer: film, sound, a book."""
    inner = [part, *(value for name in _IMAGE_FIELDS if isinstance(value := part.get(name), dict))]
    told = [str(each[name]) for each in inner for name in _MIME_FIELDS if each.get(name) is not None]
    source = part.get("source")
    url = source.get("url") if isinstance(source, dict) else _url(part)
    if isinstance(url, str) and url.startswith("data:"):
        told.append(url[5:21])
    elif isinstance(url, str) and not told:
        return urlsplit(url).path.lower().endswith(_IMAGE_ENDINGS)
    return all(kind.startswith("image/") for kind in told)


def _rendered(tools: list[Any]) -> int:
    """Bytes of the tools as JSON, with room for a template that indents them."""
    if not tools:
        return 0
    text = json.dumps(tools, ensure_ascii=False, default=str)
    return len(text.encode("utf-8", "surrogatepass")) + text.count('"')


def _answer(body: Mapping[str, Any], limits: Sequence[str]) -> int | None:
    if all(body.get(name) is None for name in limits):
        return None
    given = [_positive(body[name]) for name in ANSWER_LIMITS if body.get(name) is not None]
    known = [limit for limit in given if limit is not None]
    return max(known) if len(known) == len(given) else None


def _provider_tools(body: Mapping[str, Any], tools: list[Any]) -> Iterable[str]:
    if body.get("web_search_options") is not None:
        yield "web_search_options"
    if body.get("mcp_servers"):
        yield "mcp_servers"
    for tool in tools:
        if not isinstance(tool, dict):
            continue
        kind = tool.get("type")
        if isinstance(kind, str) and kind.rstrip("0123456789").rstrip("_") not in _CLIENT_TOOLS:
            yield kind
        yield from (name for name in tool if name.replace("_", "").lower() in _GOOGLE_TOOLS)


def _premium(body: Mapping[str, Any]) -> Iterable[str]:
    if body.get("prediction") is not None:
        yield "prediction"  # what of it is rejected is billed as written
    if body.get("service_tier") not in (None, "default", "standard_only", "flex"):
        yield "service_tier"
    if body.get("speed") not in (None, "standard"):
        yield "speed"
    if body.get("inference_geo") not in (None, "global"):
        yield "inference_geo"
    given = body.get("context_management")
    edits = given.get("edits") if isinstance(given, dict) else given
    if any(isinstance(edit, dict) and str(edit.get("type")).startswith("compact") for edit in _list(edits)):
        yield "context_management"  # the provider writes a summary first, at the caller's cost


def _above(name: str) -> int | None:
    """`input_cost_per_token_above_200k_tokens` -> 200,000."""
    _, found, rest = name.partition("_above_")
    digits = rest.partition("k_tokens")[0]
    return int(digits) * 1_000 if found and digits.isdigit() else None


def _rate(value: object) -> int | None:
    """Dollars a token (as LiteLLM's table has it) -> nano-dollars a million tokens, rounded up."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        dollars = float(value)
    except ValueError:
        return None
    if not isfinite(dollars) or dollars < 0:
        return None
    exact = dollars * 1e15
    return -int(-exact // 1) if abs(exact - round(exact)) > 1e-3 else round(exact)


def _positive(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
