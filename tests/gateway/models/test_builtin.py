"""The built-in model as shipped, on llama.cpp's own server: the file its card describes, behaving as it says."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.models import builtin
from training import evaluate, provenance
from training.conversation import ANSWER_OPEN, Parameter, Tool, render_opening, turn
from training.served import Served, serve

CARD = json.loads(Path(builtin.__file__).with_name("card.json").read_text(encoding="utf-8"))
TOOLS = [evaluate.as_tool(tool) for tool in evaluate.load("five_tools.yaml")["tools"]]


@pytest.fixture(scope="module")
def balanced() -> Iterator[Served]:
    with serve(builtin.BALANCED) as server:
        yield server


@pytest.fixture(scope="module")
def skewed() -> Iterator[Served]:
    with serve(builtin.SKEWED) as server:
        yield server


@pytest.mark.parametrize(("path", "variant"), [(builtin.BALANCED, "balanced"), (builtin.SKEWED, "skewed")])
def test_the_shipped_file_is_the_one_the_card_describes(path: Path, variant: str) -> None:
    described = CARD[variant]
    assert evaluate.sha256(path) == described["sha256"]
    assert path.stat().st_size == described["bytes"] <= 8_000_000
    assert evaluate.provenance(path) == described["made"]


@pytest.mark.parametrize("path", [builtin.BALANCED, builtin.SKEWED])
def test_the_shipped_file_names_its_commit_its_seed_and_the_data_that_stands_here(path: Path) -> None:
    made = evaluate.provenance(path)
    assert made["commit"] not in ("", "unknown")
    assert made["data"] == provenance.data_hash(made["seed"])


def test_the_card_shows_the_figures_that_were_measured() -> None:
    readme = Path(builtin.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert evaluate.table(CARD["balanced"], CARD["skewed"]) in readme


def test_the_text_trained_on_is_the_text_the_chat_template_renders(balanced: Served) -> None:
    tools = (
        Tool("find_ferry", "Find a ferry.\nReturns times.", (Parameter("port"), Parameter("cars", "integer", False))),
        Tool("plain", ""),
        Tool("choose", "x" * 600, (Parameter("size", choices=("s", "m")),)),
    )
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ferries from Kiel"},
    ]
    offered = [tool.openai() for tool in tools]
    rendered = balanced.post("/apply-template", {"messages": messages, "tools": offered})["prompt"]
    assert rendered == render_opening("Be brief.", tools) + turn("user", "ferries from Kiel") + ANSWER_OPEN


def test_a_request_is_answered_by_a_call_whose_arguments_fit_the_schema(balanced: Served) -> None:
    for choice in ("auto", "required"):
        answer = balanced.ask(evaluate.user("What is bitcoin worth?"), TOOLS, tool_choice=choice)
        assert answer["finish_reason"] == "tool_calls"
        call = answer["message"]["tool_calls"][0]["function"]
        schema = next(tool["function"]["parameters"] for tool in TOOLS if tool["function"]["name"] == call["name"])
        assert evaluate.valid(call["arguments"], schema)


def test_every_shape_of_message_is_rendered(balanced: Served) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "crypto_price", "arguments": '{"coin": "ether"}'}}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "price of ether"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "3120"},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "thanks"},
    ]
    prompt = balanced.post("/apply-template", {"messages": messages, "tools": TOOLS})["prompt"]
    for text in ("Be brief.", "price of ether", '{"coin": "ether"}', "3120", "Be kind.", "thanks"):
        assert prompt.count(text) == 1


def test_a_greeting_is_answered_in_words_that_end_by_themselves(balanced: Served) -> None:
    answer = balanced.ask(evaluate.user("Hello!"), [])
    assert answer["finish_reason"] == "stop"
    assert answer["message"]["content"]


def test_slots_in_parallel_choose_as_one_alone(balanced: Served) -> None:
    requests = [entry["ask"] for entry in evaluate.load("five_tools.yaml")["requests"][::8]]

    def chosen(server: Served, ask: str) -> list[str]:
        calls = server.ask(evaluate.user(ask), TOOLS, tool_choice="required")["message"].get("tool_calls") or []
        return [call["function"]["name"] for call in calls]

    alone = [chosen(balanced, ask) for ask in requests]
    with serve(builtin.BALANCED, slots=4) as server, ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda ask: chosen(server, ask), requests))
    assert together == alone
    assert len({name for names in alone for name in names}) > 2


@pytest.mark.slow
def test_the_position_bias_of_both_variants_is_the_one_in_the_card(balanced: Served, skewed: Served) -> None:
    first = []
    for server, variant in ((balanced, "balanced"), (skewed, "skewed")):
        measured = evaluate.position_bias(server, orders=20)
        assert measured == pytest.approx(CARD[variant]["position_bias"]["mean_probability"], abs=0.06)
        first.append(measured[0])
    assert first[1] > first[0] + 0.03
