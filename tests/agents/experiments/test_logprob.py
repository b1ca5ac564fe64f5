from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.chat_model import Message, OpenAIChatModel
from agents.experiments.arms import Offer
from agents.experiments.choosers import Choice
from agents.experiments.engine import Spent, Tokens
from agents.experiments.experiment import Design, Experiment
from agents.experiments.logprob import LogprobChooser, engine_at, multiplied, trie
from agents.experiments.run import run_experiment
from agents.experiments.suites import Task
from agents.experiments.trials import read_trials
from agents.tool_host import Tool
from tests.agents.experiments.vllm_standin import vllm
from toolkit.core.errors import ToolkitError

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    Tool("get_weather", "Get the current weather for a city", CITY),
    Tool("weather_lookup", "Look up the weather forecast of a place", CITY),
    Tool("weather_report", "Weather conditions and forecast by city", CITY),
    Tool("weather", "Report today's temperature and sky conditions", CITY),
    Tool("check_weather", "Return temperature and rain forecast for a location", CITY),
]
TASK = Task("t", "how hot is it in Paris?", "get_weather", tuple(tool.name for tool in TOOLS))


def offered(tools: list[Tool]) -> Offer:
    return Offer(tuple(tools), {tool.name: tool.name for tool in tools})


async def chosen(url: str, tools: list[Tool], task: Task = TASK) -> Choice:
    async with httpx.AsyncClient() as client:
        engine = await engine_at(url, "m", client)
        return await LogprobChooser(engine, system=None).choose(task, offered(tools), seed=None)


class Scripted:
    """An engine whose template is a function: every token is as likely as its own number says."""

    def __init__(self, template: Callable[[str | None], Tokens]) -> None:
        self.template = template
        self.asked: list[Tokens] = []

    async def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Tokens:
        calls = [message["tool_calls"][0] for message in messages if "tool_calls" in message]
        return self.template(calls[0]["function"]["name"] if calls else None)

    async def chance(self, prompt: Tokens, token: int, spent: Spent) -> float:
        self.asked.append(prompt)
        return token / 1000

    async def among(self, prompt: Tokens, tokens: Tokens, spent: Spent) -> dict[int, float]:
        self.asked.append(prompt)
        return {token: token / sum(tokens) for token in tokens}


def test_a_trie_parts_where_names_part_and_multiplies_to_one() -> None:
    held = trie({"ab": (1, 2, 9), "ac": (1, 3, 9), "d": (4, 9)})
    assert held.branches == {(): (1, 4), (1,): (2, 3)}
    chances = multiplied(held, {(): {1: 0.6, 4: 0.4}, (1,): {2: 0.5, 3: 0.5}})
    assert chances == pytest.approx({"ab": 0.3, "ac": 0.3, "d": 0.4})


def test_a_name_that_begins_another_parts_at_its_end() -> None:
    held = trie({"weather": (7, 9), "weather_report": (7, 8, 9)})
    assert held.branches == {(7,): (8, 9)}
    with pytest.raises(ToolkitError, match="the beginning of another"):
        trie({"a": (1,), "ab": (1, 2)})


NUMBERS = {"a": (7, 30), "b": (7, 10)}
PAIR = offered([Tool("a", "", {}), Tool("b", "", {})])
ANY_TASK = Task("t", "ask", "a", ("a", "b"))


async def test_the_names_part_where_the_template_writes_them_whatever_stands_around_them() -> None:
    engine = Scripted(lambda name: (1, 2) if name is None else (1, 2, 5, *NUMBERS[name], 8, 9))
    found = await LogprobChooser(engine, system=None).choose(ANY_TASK, PAIR, seed=None)
    assert found.probabilities == (0.75, 0.25)
    assert found.opening == 0.005
    assert engine.asked == [(1, 2), (1, 2, 5, 7)]


async def test_a_prompt_that_opens_a_thought_is_cut_where_a_call_would_begin() -> None:
    engine = Scripted(lambda name: (1, 2, 90, 91) if name is None else (1, 2, 5, *NUMBERS[name], 8, 9))
    await LogprobChooser(engine, system=None).choose(ANY_TASK, PAIR, seed=None)
    assert engine.asked == [(1, 2), (1, 2, 5, 7)]


async def test_a_template_that_writes_no_calls_or_another_conversation_is_refused() -> None:
    silent = Scripted(lambda name: (1, 2) if name is None else (1, 2, 8, 9))
    with pytest.raises(ToolkitError, match="does not write tool calls down"):
        await LogprobChooser(silent, system=None).choose(ANY_TASK, PAIR, seed=None)
    other = Scripted(lambda name: (1, *range(100, 150)) if name is None else (1, 5, *NUMBERS[name]))
    with pytest.raises(ToolkitError, match="differently once a call is in it"):
        await LogprobChooser(other, system=None).choose(ANY_TASK, PAIR, seed=None)


async def test_vllm_gives_the_distribution_that_llama_cpp_gives_on_the_same_model(llama: str) -> None:
    exact = await chosen(llama, TOOLS)
    with vllm(llama) as url:
        found = await chosen(url, TOOLS)
    # What lies in the cache changes the shape of llama.cpp's batches, and with it the rounding.
    assert found.probabilities == pytest.approx(exact.probabilities, abs=0.03)
    assert found.opening == pytest.approx(exact.opening, abs=0.03)
    assert found.called == exact.called


async def test_vllm_tells_the_chance_of_a_call_also_where_another_answer_is_likelier(llama: str) -> None:
    thanks = Task("t", "Thank you, that is all.", "none", TASK.tools)
    exact = await chosen(llama, TOOLS, thanks)
    with vllm(llama) as url:
        found = await chosen(url, TOOLS, thanks)
    assert exact.opening is not None
    assert exact.opening < 0.5
    assert found.opening == pytest.approx(exact.opening, abs=0.03)
    assert found.verdict.outcome == "right"


async def test_vllm_is_asked_one_by_one_for_names_that_are_not_among_its_likeliest_tokens(llama: str) -> None:
    strange = [Tool(name, "Nothing at all", CITY) for name in ("zebra", "quartz", "vexing", "jumbo", "oxbow")]
    exact = await chosen(llama, strange)
    with vllm(llama) as url:
        found = await chosen(url, strange)
    assert found.requests > exact.requests
    assert found.probabilities == pytest.approx(exact.probabilities, abs=0.03)


async def test_a_vllm_that_gives_probabilities_after_masking_is_refused(llama: str) -> None:
    with (
        vllm(llama, mode="processed_logprobs") as url,
        pytest.raises(ToolkitError, match="of the model itself") as error,
    ):
        await chosen(url, TOOLS)
    assert "--logprobs-mode raw_logprobs" in (error.value.hint or "")


async def test_a_server_that_is_neither_is_refused() -> None:
    listed = {"data": [{"id": "m", "owned_by": "library"}]}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=listed))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(ToolkitError, match=r"neither llama\.cpp nor vLLM"):
            await engine_at("http://127.0.0.1:9", "m", client)


async def test_the_distribution_of_a_real_model_sums_to_one_and_hardly_depends_on_the_cache(llama: str) -> None:
    one, other = await chosen(llama, TOOLS), await chosen(llama, TOOLS)
    assert one.probabilities is not None
    assert other.probabilities is not None
    assert sum(one.probabilities) == pytest.approx(1, abs=1e-9)
    # What lies in the cache changes the shape of llama.cpp's batches, and with it the rounding.
    assert one.probabilities == pytest.approx(other.probabilities, abs=0.03)
    assert one.opening is not None
    assert 0 < one.opening <= 1
    assert one.requests >= 3  # whether to call, where names part first, where those of one stem part


async def test_the_prompt_is_evaluated_once_however_many_names_part(llama: str) -> None:
    found = await chosen(llama, TOOLS)
    again = await chosen(llama, TOOLS)
    whole = found.usage.prompt_tokens / found.requests
    assert again.usage.prompt_tokens - again.usage.cached_tokens < whole / 2


@pytest.mark.slow
async def test_sampled_tool_calls_come_as_often_as_the_distribution_says(llama: str) -> None:
    exact = await chosen(llama, TOOLS)
    assert exact.probabilities is not None
    runs = 200
    counts: Counter[str] = Counter()
    sampling = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    async with OpenAIChatModel(f"{llama}/v1", None, "m", extra=sampling) as model:
        for seed in range(runs):
            reply = await model.ask(
                [{"role": "user", "content": TASK.ask}],
                [tool.openai() for tool in TOOLS],
                tool_choice="required",
                max_tokens=40,
                temperature=1.0,
                seed=seed,
            )
            if reply.tool_calls:
                counts[reply.tool_calls[0].name] += 1
    total = sum(counts.values())
    assert total > runs / 2
    for tool, chance in zip(TOOLS, exact.probabilities, strict=True):
        error = (chance * (1 - chance) / total) ** 0.5
        assert abs(counts[tool.name] / total - chance) < 4 * error + 0.02


async def test_an_experiment_in_logprob_mode_keeps_the_probabilities_of_every_trial(llama: str, tmp_path: Path) -> None:
    suite = tmp_path / "own.yaml"
    lines = "\n".join(
        f"  - {{name: {tool.name}, description: '{tool.description.replace(chr(39), '')}', parameters: {{city: City}}}}"
        for tool in TOOLS
    )
    suite.write_text(
        f"name: own\ntools:\n{lines}\ntasks:\n  any:\n    - how hot is it in Paris\n    - is it raining in Rome\n"
    )
    found = await run_experiment(
        Experiment(models=["m"], suite=str(suite), mode="logprob", design=Design(repeats=0)),
        base_url=f"{llama}/v1",
        api_key=None,
        out=tmp_path / "out",
        direct={"m": llama},
        concurrency=2,
    )
    trials = read_trials(tmp_path / "out")
    assert len(trials) == 10
    assert all(trial.probabilities and sum(trial.probabilities) == pytest.approx(1) for trial in trials)
    assert sum(effect.value for effect in found.models[0].effects) == pytest.approx(0, abs=1e-9)


async def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(ToolkitError, match=r"no answer|refused"):
        await chosen("http://127.0.0.1:9", TOOLS)
