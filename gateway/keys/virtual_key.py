"""A virtual key as the store holds it, and the names of things one can be given. Knows nothing of SQL or HTTP."""

import hashlib
import re
import secrets as random
import time
from dataclasses import dataclass, field, replace

from gateway.keys.admission import Purse
from gateway.keys.periods import Span, turn
from toolkit.core.errors import UsageError

PREFIX = "sk-toolkit-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def now_ms() -> int:
    """The wall clock, in the unit of the store."""
    return time.time_ns() // 1_000_000


def new_secret() -> str:
    """A secret nobody can guess: 32 random bytes."""
    return PREFIX + random.token_urlsafe(32)


def digest(secret: str) -> str:
    """What the store keeps of a secret. The secret is random, so a plain hash cannot be turned back."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hint(secret: str) -> str:
    """What may be shown of a secret."""
    return f"{PREFIX}…{secret[-4:]}"


def check_name(name: str) -> str:
    """`name` if a key may be called so. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a key: up to 64 letters, digits and . _ @ -, starting with a letter or digit",
            hint="toolkit keys create my-laptop --budget 5usd",
        )
    return name


@dataclass(frozen=True)
class Secret:
    """A secret that is honoured: what may be shown of it, and until when if it was rotated away (milliseconds)."""

    hint: str
    expires_at: int | None


@dataclass(frozen=True)
class VirtualKey:
    """A key with its limits and counters. Times are milliseconds since 1970, money nano-dollars; None: no limit."""

    id: int
    name: str
    created_at: int
    expires_at: int | None
    blocked: bool
    models: tuple[str, ...]
    budget_nano: int | None
    budget_tokens: int | None
    when_tight: str
    period: str | None
    time_zone: str
    generation: int
    period_start: int
    period_end: int | None
    spent_nano: int
    spent_tokens: int
    reserved_nano: int
    reserved_tokens: int
    total_nano: int
    total_tokens: int
    rpm: int | None
    tpm: int | None
    secrets: tuple[Secret, ...] = field(default=())  # the one without an end first

    def at(self, now: int) -> "VirtualKey":
        """The key as it stands at the moment `now`: in a new period if the old one is over."""
        due = turn(now, Span(self.period_start, self.period_end), self.period, time_zone=self.time_zone)
        if due is None:
            return self
        moved = replace(self, period_start=due.span.start, period_end=due.span.end)
        if not due.fresh:
            return moved
        return replace(moved, generation=self.generation + 1, spent_nano=0, spent_tokens=0)

    @property
    def purse(self) -> Purse:
        """What can still be promised to a request."""
        return Purse(
            None if self.budget_nano is None else self.budget_nano - self.spent_nano - self.reserved_nano,
            None if self.budget_tokens is None else self.budget_tokens - self.spent_tokens - self.reserved_tokens,
        )

    def expired(self, now: int) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True)
class NewKey:
    """A key just made, with the only copy of its secret."""

    key: VirtualKey
    secret: str
