"""What an experiment will cost and could find, before it is run: calls, tokens, time, money, smallest effect."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.chat_model import ModelError
from agents.experiments.arms import Offer, offer
from agents.experiments.choosers import Choice, Chooser
from agents.experiments.designs import Cell, pool_size
from agents.experiments.experiment import Experiment
from agents.experiments.inference import detectable, expected_spread, power
from agents.experiments.suites import Suite, Task
from agents.tool_host import Tool
from toolkit.core.errors import ToolkitError

CHARACTERS = 4.0  # per token, as a rule of thumb for English and JSON; a probe replaces it
ACCURACIES = (0.6, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Prepared:
    """An experiment ready to be asked: its suite, the tools of each set by name, and its cells in sequence."""

    experiment: Experiment
    suite: Suite
    sets: Mapping[str, Mapping[str, Tool]]
    cells: Sequence[Cell]
    tools_digest: str

    @property
    def tasks(self) -> dict[str, Task]:
        return {task.id: task for task in self.suite.tasks}

    def offer(self, cell: Cell) -> Offer:
        """The tools of a cell as the model sees them."""
        return offer(cell.order, self.sets[self.tasks[cell.task].set], cell.arm, cell.target)


@dataclass(frozen=True)
class Probe:
    """A few real calls: seconds, tokens and nano-dollars of one, on average."""

    calls: int
    seconds: float
    prompt_tokens: float
    completion_tokens: float
    money: float | None


@dataclass(frozen=True)
class Plan:
    """The bill for one model. `evaluated` are the prompt tokens left to compute if the server keeps the prefix that
    neighbours in the sequence share; `original` those of the original experiment (ten random orders, nothing kept).
    Time and money are None without a probe. `units` are the sampling units: tasks, or base orders where tasks share
    them. `detectable[a]` is the smallest effect of a position, as a share, that is found with 80 % chance at accuracy
    a, `chance[a]` the chance to find one of three points; where tasks share orders, both leave out what other orders
    would change."""

    tasks: int
    units: int
    calls: int
    orders: int
    prompt_tokens: int
    evaluated: int
    original: int
    seconds: float | None
    money: int | None
    detectable: dict[float, float]
    chance: dict[float, float]


def plan(prepared: Prepared, probe: Probe | None, *, concurrency: int) -> Plan:
    """Count it. Tokens are characters / 4 unless a probe has counted some."""
    lengths: list[int] = []
    shared = 0
    before = ""
    for cell in prepared.cells:
        prompt = _prompt(prepared, cell)
        common = _common(before, prompt)
        shared += common
        lengths.append(len(prompt))
        before = prompt
    mean = sum(lengths) / len(lengths)
    rate = probe.prompt_tokens / mean if probe and probe.prompt_tokens else 1 / CHARACTERS
    calls = len(prepared.cells)
    tasks = len(prepared.suite.tasks)
    tools = min(len(task.tools) for task in prepared.suite.tasks)
    groups = max(cell.groups for cell in prepared.cells)
    units = _units(prepared)
    averaged = (units / tasks) ** 0.5  # a unit's value is the mean over its tasks
    spreads = {a: averaged * expected_spread(a, groups if groups > 1 else tools) for a in ACCURACIES}
    return Plan(
        tasks=tasks,
        units=units,
        calls=calls,
        orders=len({cell.order for cell in prepared.cells}),
        prompt_tokens=round(sum(lengths) * rate),
        evaluated=round((sum(lengths) - shared) * rate),
        original=round(mean * 10 * tasks * rate),
        seconds=probe.seconds * calls / concurrency if probe else None,
        money=round(probe.money * calls) if probe and probe.money is not None else None,
        detectable={accuracy: detectable(spread, units) for accuracy, spread in spreads.items()},
        chance={accuracy: power(0.03, spread, units) for accuracy, spread in spreads.items()},
    )


async def probed(prepared: Prepared, chooser: Chooser, count: int) -> Probe:
    """Ask `count` cells and forget what was answered. Raises ToolkitError if none is answered."""
    found: list[Choice] = []
    failure: ModelError | None = None
    step = max(1, len(prepared.cells) // count)
    for cell in prepared.cells[::step][:count]:
        try:
            found.append(await chooser.choose(prepared.tasks[cell.task], prepared.offer(cell), seed=0))
        except ModelError as error:
            failure = error
    if not found:
        message = failure.message if failure else "nothing was asked"
        raise ToolkitError(f"the probe got no answer: {message}", hint="add --probe 0 to plan without asking")
    n = len(found)
    costs: Sequence[int | None] = [choice.cost for choice in found]
    return Probe(
        calls=n,
        seconds=sum(choice.latency for choice in found) / n,
        prompt_tokens=sum(choice.usage.prompt_tokens for choice in found) / n,
        completion_tokens=sum(choice.usage.completion_tokens for choice in found) / n,
        money=None if None in costs else sum(cost or 0 for cost in costs) / n,
    )


def _units(prepared: Prepared) -> int:
    """How many sampling units the tasks are."""
    tasks = Counter(task.tools for task in prepared.suite.tasks)
    return sum(min(count, pool_size(prepared.experiment.design, len(tools)) or count) for tools, count in tasks.items())


def _prompt(prepared: Prepared, cell: Cell) -> str:
    told = [tool.openai()["function"] for tool in prepared.offer(cell).tools]
    return json.dumps(told) + prepared.tasks[cell.task].ask


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low
