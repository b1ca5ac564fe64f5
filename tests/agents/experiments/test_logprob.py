from collections import Counter
from pathlib import Path

import httpx
import pytest

from agents.chat_model import OpenAIChatModel
from agents.experiments.arms import Offer
from agents.experiments.choosers import Choice
from agents.experiments.experiment import Design, Experiment
from agents.experiments.logprob import MARK, LogprobChooser, frame_of, multiplied, trie
from agents.experiments.run import run_experiment
from agents.experiments.suites import Task
from agents.experiments.trials import read_trials
from agents.tool_host import Tool
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
        return await LogprobChooser(url, client, system=None).choose(task, offered(tools), seed=None)


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


def test_the_frame_of_a_call_is_what_the_template_writes_around_the_name() -> None:
    prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    call = f'<tool_call>\n{{"name": "{MARK}", "arguments": {{}}}}\n</tool_call>'
    frame = frame_of(prompt, prompt + call)
    assert frame == ('<tool_call>\n{"name": "', '", "')


def test_a_template_that_writes_no_calls_is_refused() -> None:
    with pytest.raises(ToolkitError, match="does not write tool calls down"):
        frame_of("a", "a b")


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
