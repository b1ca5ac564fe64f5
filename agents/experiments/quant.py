"""What a quantisation costs: two files of one model, held against each other token by token. Talks to llama.cpp
servers that someone else started; knows nothing of processes.

A text is cut into windows. At each place of a window both models say how likely each next token is; windows are the
sampling unit of every interval. A server names the likeliest tokens only; `logits.py` sees all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import numpy as np

from agents.experiments.inference import Estimate, cluster_mean
from toolkit.core.errors import ToolkitError, UsageError

TOPS = (1, 3, 5, 10, 20)
WINDOW = 128  # tokens
SKIP = 16  # of a window's first tokens nothing is asked: too little stands before them
SEEN = 256  # likeliest tokens that are looked at; the rest counts as one
RUNS = 5  # of the speed measurement
PROMPT, REPLY = 128, 48


class Place(NamedTuple):
    """Log probabilities of the likeliest next tokens, best first, and that of the token which really comes."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    actual: float


class Speed(NamedTuple):
    """Tokens per second."""

    prompt: Estimate
    reply: Estimate


@dataclass(frozen=True)
class Profile:
    """One file measured alone. Speeds are tokens per second; `places[w]` are those of window w, if a server was asked
    for them."""

    prompt_speed: Estimate
    reply_speed: Estimate
    perplexity: Estimate
    places: tuple[tuple[Place, ...], ...] = ()


@dataclass(frozen=True)
class Distance:
    """How far the second file's next tokens are from the first's. `jaccard[n]` is the overlap of the n likeliest as a
    share of their union; `divergence` is KL(first || second) in nats, over the whole vocabulary if `exact`, else over
    the tokens that both name and the rest as one, which is a lower bound; `perplexity_ratio` is second over first,
    paired."""

    jaccard: Mapping[int, Estimate]
    divergence: Estimate
    perplexity_ratio: Estimate
    windows: int
    places: int
    exact: bool = False


def windows_of(ids: Sequence[int]) -> list[list[int]]:
    """The tokens of a text in windows; what is left over at its end is not used. Raises UsageError for a short one."""
    windows = [list(ids[start : start + WINDOW]) for start in range(0, len(ids) - WINDOW + 1, WINDOW)]
    if len(windows) < 2:
        raise UsageError(f"the text has {len(ids)} tokens, and two windows of {WINDOW} are needed", hint="--text FILE")
    return windows


async def speed(url: str, text: str) -> Speed:
    """How fast the model at `url` reads and writes, as llama.cpp times it; the first run does not count."""
    async with httpx.AsyncClient(base_url=url.rstrip("/"), timeout=600) as client:
        return await _speed(client, (await _tokenized(client, text))[:PROMPT])


async def profile(
    url: str, text: str, *, tokens: int = 2048, step: Callable[[int, int], None] = lambda done, total: None
) -> Profile:
    """Measure the model at `url` on `text`. Raises ToolkitError if the server gives no probabilities."""
    async with httpx.AsyncClient(base_url=url.rstrip("/"), timeout=600) as client:
        ids = (await _tokenized(client, text))[:tokens]
        windows = windows_of(ids)
        safe = (await _tokenized(client, "a"))[-1]
        prompt_speed, reply_speed = await _speed(client, ids[:PROMPT])
        total = len(windows) * (WINDOW - SKIP)
        places = []
        for number, window in enumerate(windows):
            row = []
            for at in range(SKIP, WINDOW):
                row.append(await _place(client, window[:at], window[at], safe))
                step(number * (WINDOW - SKIP) + at - SKIP + 1, total)
            places.append(tuple(row))
    losses = np.array([-np.mean([place.actual for place in row]) for row in places])
    return Profile(prompt_speed, reply_speed, exponential(cluster_mean(losses)), tuple(places))


def distance(first: Profile, second: Profile) -> Distance:
    """Compare two profiles on one text. Raises UsageError if the models cut the text into different tokens."""
    if len(first.places) != len(second.places):
        raise UsageError("the two files do not share a tokenizer, so their tokens cannot be compared")
    pairs = [list(zip(one, other, strict=True)) for one, other in zip(first.places, second.places, strict=True)]
    jaccard = {
        top: cluster_mean(np.array([np.mean([_overlap(a, b, top) for a, b in row]) for row in pairs])) for top in TOPS
    }
    divergence = cluster_mean(np.array([np.mean([_divergence(a, b) for a, b in row]) for row in pairs]))
    losses = np.array([np.mean([a.actual - b.actual for a, b in row]) for row in pairs])
    return Distance(jaccard, divergence, exponential(cluster_mean(losses)), len(pairs), sum(map(len, pairs)))


def _overlap(one: Place, other: Place, top: int) -> float:
    a, b = set(one.tokens[:top]), set(other.tokens[:top])
    return len(a & b) / len(a | b)


def _divergence(one: Place, other: Place) -> float:
    known = dict(zip(other.tokens, other.logprobs, strict=True))
    total, mass_one, mass_other = 0.0, 0.0, 0.0
    for token, logprob in zip(one.tokens, one.logprobs, strict=True):
        if token in known:
            chance = math.exp(logprob)
            total += chance * (logprob - known[token])
            mass_one += chance
            mass_other += math.exp(known[token])
    rest_one, rest_other = max(0.0, 1 - mass_one), max(1e-12, 1 - mass_other)
    if rest_one > 1e-9:
        total += rest_one * math.log(rest_one / rest_other)
    return max(0.0, total)


async def _place(client: httpx.AsyncClient, before: Sequence[int], actual: int, safe: int) -> Place:
    found = await _likeliest(client, before, SEEN, safe)
    known = dict(found)
    if actual not in known:
        # Beyond those looked at: ask for all of them this once.
        known |= dict(await _likeliest(client, before, 1_000_000, safe))
    tokens = tuple(token for token, _ in found)
    return Place(tokens, tuple(logprob for _, logprob in found), known.get(actual, -50.0))


async def _likeliest(
    client: httpx.AsyncClient, before: Sequence[int], count: int, safe: int
) -> list[tuple[int, float]]:
    body = {"prompt": list(before), "n_predict": 1, "n_probs": count, "cache_prompt": True, "id_slot": 0}
    # What is drawn does not matter, but an end of text or half a character comes back without probabilities, which are
    # those before any bias: so a token that is sure to be text is forced.
    document = await _ask(client, "/completion", body | {"temperature": 1.0, "logit_bias": [[safe, 1000.0]]})
    try:
        listed = document["completion_probabilities"][0]["top_logprobs"]
    except (KeyError, IndexError):
        raise ToolkitError("the server gives no probabilities of next tokens: it is no llama.cpp server") from None
    if any(entry["logprob"] is None for entry in listed[:1]):
        raise ToolkitError(
            "the model's probabilities are not numbers: its file is damaged", hint="toolkit models verify"
        )
    return [(int(entry["id"]), float(entry["logprob"])) for entry in listed if entry["logprob"] is not None]


async def _tokenized(client: httpx.AsyncClient, text: str) -> list[int]:
    return [int(token) for token in (await _ask(client, "/tokenize", {"content": text}))["tokens"]]


async def _speed(client: httpx.AsyncClient, ids: Sequence[int]) -> Speed:
    prompts, replies = [], []
    for run in range(RUNS + 1):
        body = {"prompt": list(ids), "n_predict": REPLY, "cache_prompt": False, "temperature": 0, "ignore_eos": True}
        timings = (await _ask(client, "/completion", body | {"id_slot": 0})).get("timings") or {}
        if run:
            prompts.append(float(timings.get("prompt_per_second") or math.nan))
            replies.append(float(timings.get("predicted_per_second") or math.nan))
    return Speed(cluster_mean(np.array(prompts)), cluster_mean(np.array(replies)))


async def _ask(client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        response = await client.post(path, json=dict(body))
        document = response.json()
    except (httpx.TransportError, ValueError) as error:
        raise ToolkitError(f"no answer from {client.base_url}: {error or type(error).__name__}") from None
    if response.status_code >= 400 or not isinstance(document, dict):
        raise ToolkitError(f"{client.base_url}{path} refused ({response.status_code}): {response.text[:200]}")
    return document


def exponential(estimate: Estimate) -> Estimate:
    """The exponential of a mean and of its interval: a perplexity from a loss."""
    return Estimate(math.exp(estimate.value), math.exp(estimate.low), math.exp(estimate.high))
