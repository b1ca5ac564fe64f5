"""Whether a request may start, and with how many tokens of answer: pure decisions on numbers.

Knows nothing of stores, clocks or HTTP. The promise kept here: what is reserved for all running requests together
plus what is spent never exceeds the budget, and what is reserved for one request is at least what it can cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

# An answer clipped below this many tokens helps nobody: the request is refused instead.
LEAST_ANSWER = 256
PER = 1_000_000  # prices are nano-dollars for a million tokens


class Reason(StrEnum):
    """Why a request is refused; the names are part of the error that clients see."""

    UNKNOWN_KEY = "unknown_key"
    BLOCKED = "key_blocked"
    EXPIRED = "key_expired"
    MODEL = "model_not_allowed"
    UNKNOWN_MODEL = "model_not_found"
    BUDGET = "budget_exceeded"
    TOKENS = "token_budget_exceeded"
    REQUEST_RATE = "too_many_requests"
    TOKEN_RATE = "too_many_tokens"  # noqa: S105
    UNPRICED = "price_unknown"
    UNBOUNDED = "cost_not_bounded"
    NOT_ACCEPTED = "not_accepted"
    STORE = "key_store_unavailable"


@dataclass(frozen=True)
class Price:
    """Nano-dollars for a million tokens, and `fixed` nano-dollars a request."""

    input: int
    output: int
    fixed: int = 0

    def cost(self, prompt: int, answer: int) -> int:
        """Nano-dollars, rounded up."""
        return self.fixed + -(-(prompt * self.input + answer * self.output) // PER)


@dataclass(frozen=True)
class Ask:
    """The worst case of one request.

    `prompt`: no more tokens than this are read. `answer`: no more than this are written in one of `copies`
    answers; None: nothing bounds it but a limit that we set. `expected`: a fair guess of all tokens, for rate limits.
    `clippable`: a smaller limit on the answer can be set on it.
    """

    prompt: int
    answer: int | None
    price: Price
    copies: int = 1
    expected: int = 0
    clippable: bool = True


@dataclass(frozen=True)
class Purse:
    """What a key has left in this period, running requests taken off. None: no limit."""

    nano: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Admission:
    """Reserve this much. `answer`: the limit that an answer must keep for that to be enough; None: any length."""

    nano: int
    tokens: int
    answer: int | None = None


@dataclass(frozen=True)
class Shortage:
    """Why it does not fit, and how much the least useful answer would need."""

    reason: Reason
    needed: int


def admit(ask: Ask, purse: Purse, *, clip: bool) -> Admission | Shortage:
    """Admit `ask` against `purse`, whole, clipped, or not at all.

    With `clip`, an answer may take half of what is left (so that a long default limit cannot hold the rest of a small
    budget while others wait), or `LEAST_ANSWER` tokens where half is less. A request whose declared worst case is
    within that is left as it is. Without `clip` the declared worst case must fit as it stands.
    """
    if purse.tokens is None and (purse.nano is None or not ask.price.output):
        whole = _reserve(ask, ask.answer or 0)  # the length of the answer costs this key nothing
        return _shortage(whole, purse) or replace(whole, answer=None)
    if ask.answer is not None:
        whole = _reserve(ask, ask.answer)
        if not clip or not ask.clippable:
            return _shortage(whole, purse) or whole
        if _fits(whole, purse) and _fits(whole, _half(purse, ask)):
            return whole
    elif not ask.clippable or not clip:
        return Shortage(Reason.UNBOUNDED, 0)
    least = LEAST_ANSWER if ask.answer is None else min(ask.answer, LEAST_ANSWER)
    short = _shortage(_reserve(ask, least), purse)
    if short is not None:
        return short
    answer = max(least, _payable(ask, _half(purse, ask)))
    return _reserve(ask, answer if ask.answer is None else min(answer, ask.answer))


def too_fast(ask: Ask, rpm: int | None, tpm: int | None, *, requests: int, tokens: int) -> Shortage | None:
    """Whether one more request would exceed the limits a minute, given what the last minute held.

    A request larger than the whole token limit passes when the minute is empty: otherwise it never could.
    """
    if rpm is not None and requests >= rpm:
        return Shortage(Reason.REQUEST_RATE, 1)
    if tpm is not None and tokens and tokens + ask.expected > tpm:
        return Shortage(Reason.TOKEN_RATE, ask.expected)
    return None


def matches(model: str, patterns: Sequence[str]) -> bool:
    """Whether a model is one of the key's; no patterns: every model is."""
    from fnmatch import fnmatchcase

    return not patterns or any(fnmatchcase(model, pattern) for pattern in patterns)


def _reserve(ask: Ask, answer: int) -> Admission:
    written = answer * ask.copies
    return Admission(ask.price.cost(ask.prompt, written), ask.prompt + written, answer)


def _fits(need: Admission, purse: Purse) -> bool:
    return _shortage(need, purse) is None


def _shortage(need: Admission, purse: Purse) -> Shortage | None:
    if purse.nano is not None and need.nano > max(0, purse.nano):
        return Shortage(Reason.BUDGET, need.nano)
    if purse.tokens is not None and need.tokens > max(0, purse.tokens):
        return Shortage(Reason.TOKENS, need.tokens)
    return None


def _half(purse: Purse, ask: Ask) -> Purse:
    """The prompt may cost what it must; its answer, half of what then is left."""
    prompt = _reserve(ask, 0)
    return Purse(
        None if purse.nano is None else prompt.nano + max(0, purse.nano - prompt.nano) // 2,
        None if purse.tokens is None else prompt.tokens + max(0, purse.tokens - prompt.tokens) // 2,
    )


def _payable(ask: Ask, purse: Purse) -> int:
    """The longest answer that `purse` pays, in tokens; one of its limits depends on that length."""
    bounds = []
    if purse.nano is not None and ask.price.output:
        spare = (purse.nano - ask.price.fixed) * PER - ask.prompt * ask.price.input
        bounds.append(spare // (ask.price.output * ask.copies))
    if purse.tokens is not None:
        bounds.append((purse.tokens - ask.prompt) // ask.copies)
    return max(0, min(bounds))
