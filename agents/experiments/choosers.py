"""Put one offer of tools before a model and learn what it chose: by a native tool call, or in text (ReAct).
The exact distribution over tools is in logprob.py. Knows nothing of orders, trials or files.
"""

from dataclasses import dataclass, field
from typing import Protocol

from agents.chat_model import ChatModel, Message, Usage
from agents.experiments.arms import Offer
from agents.experiments.scoring import Verdict, verdict
from agents.experiments.suites import Task


@dataclass(frozen=True)
class Choice:
    """What a model did with one offer. `probabilities` are those of the offered tools, in their order, as exactly as
    the mode knows them; `called` is the name as the model wrote it."""

    verdict: Verdict
    called: str | None = None
    calls: int = 0
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    cost: int | None = None
    latency: float = 0.0
    requests: int = 1
    probabilities: tuple[float, ...] | None = None
    opening: float | None = None


class Chooser(Protocol):
    """Chooses among the offered tools; several may be asked at once. Raises ModelError."""

    async def choose(self, task: Task, offer: Offer, *, seed: int | None) -> Choice: ...


class CallChooser:
    """Asks with the tools and takes the reply's first call."""

    def __init__(
        self, model: ChatModel, *, temperature: float, max_tokens: int, tool_choice: str, system: str | None
    ) -> None:
        self._model = model
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._tool_choice = tool_choice
        self._system = system

    async def choose(self, task: Task, offer: Offer, *, seed: int | None) -> Choice:
        """One request. Raises ModelError."""
        reply = await self._model.ask(
            messages(task, self._system),
            [tool.openai() for tool in offer.tools],
            tool_choice=self._tool_choice,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
            seed=seed,
        )
        call = reply.tool_calls[0] if reply.tool_calls else None
        schemas = {tool.name: tool.parameters for tool in offer.tools}
        return Choice(
            verdict(call, offer.meaning, schemas, task.right),
            called=call.name if call else None,
            calls=len(reply.tool_calls),
            text=reply.text[:300],
            usage=reply.usage,
            cost=reply.cost,
            latency=reply.latency,
        )


def messages(task: Task, system: str | None) -> list[Message]:
    """The conversation that asks a task; the task's own system message goes before the experiment's."""
    told = task.system or system
    head: list[Message] = [{"role": "system", "content": told}] if told else []
    return [*head, {"role": "user", "content": task.ask}]
