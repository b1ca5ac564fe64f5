"""What a run may use, what it has used, and why it ends. Pure; knows nothing of models' answers or of tools."""

from dataclasses import dataclass, field
from enum import StrEnum

from agents.chat_model import Reply, Usage
from toolkit.core.units import format_money


class Ending(StrEnum):
    """Why a run ended. Only ANSWERED is a success."""

    ANSWERED = "answered"
    STEPS = "steps"
    TOKENS = "tokens"
    MONEY = "money"
    TIME = "time"
    BAD_CALLS = "bad calls"
    CUT_OFF = "cut off"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Limits:
    """What a run may use; None is no limit. `tokens` counts prompts and replies of all steps, `cost` is in
    nano-dollars, `bad_calls` are calls in a row that could not be made, `output` is characters of one result."""

    steps: int = 20
    tokens: int | None = None
    cost: int | None = None
    seconds: float | None = None
    bad_calls: int = 5
    output: int = 20_000


@dataclass
class Account:
    """What the run has used so far."""

    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: int | None = 0
    bad_calls: int = 0

    def add(self, reply: Reply) -> None:
        """One more step, and what it took."""
        self.steps += 1
        self.usage += reply.usage
        self.cost = None if self.cost is None or reply.cost is None else self.cost + reply.cost

    def ending(self, limits: Limits) -> tuple[Ending, str] | None:
        """Why no further request may be made, or None."""
        if self.bad_calls >= limits.bad_calls:
            return Ending.BAD_CALLS, f"{self.bad_calls} calls in a row could not be made"
        if self.steps >= limits.steps:
            return Ending.STEPS, f"the limit of {limits.steps} steps was reached"
        if limits.tokens is not None and self.usage.total_tokens >= limits.tokens:
            return Ending.TOKENS, f"{self.usage.total_tokens} tokens were used, the limit is {limits.tokens}"
        if limits.cost is not None and self.cost is None:
            return Ending.MONEY, "the endpoint does not say what a request costs, so the budget cannot be kept"
        if limits.cost is not None and self.cost and self.cost >= limits.cost:
            return Ending.MONEY, f"{format_money(self.cost)} were spent, the budget is {format_money(limits.cost)}"
        return None
