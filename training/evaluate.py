"""Measures the built-in model through llama.cpp's own server, on requests written by hand, and writes the model card.

    python -m training.evaluate                    # the table of the card, of the files in gateway/models/builtin
    python -m training.evaluate --write            # the same, written to card.json and into the card's README
    python -m training.evaluate --model some.gguf  # another file, without the skewed variant

Every choice is asked for with `tool_choice: auto` at temperature 0; an answer in words counts as wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import jsonschema
import yaml

from training.served import Served, serve

HERE = Path(__file__).parent
BUILTIN = HERE.parent / "gateway" / "models" / "builtin"
BALANCED, SKEWED = BUILTIN / "toolkit-tiny-q8_0.gguf", BUILTIN / "toolkit-tiny-skewed-q8_0.gguf"
TARGETS = {
    "five tools": 0.95,
    "five tools renamed": 0.88,
    "held-out kinds, 5 offered": 0.65,
    "held-out kinds, 10 offered": 0.50,
    "arguments valid for the schema": 0.99,
    "argument copied": 0.80,
    "nothing fits: answered in words": 0.70,
}
SEED = 7
MARK = "<!-- figures -->"


@dataclass
class Tally:
    """Right of asked, per name of a figure."""

    counts: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, right: bool) -> None:
        count = self.counts.setdefault(name, [0, 0])
        count[0] += right
        count[1] += 1


def load(name: str) -> Any:
    return yaml.safe_load((HERE / "eval" / name).read_text(encoding="utf-8"))


def as_tool(entry: dict[str, Any]) -> dict[str, Any]:
    """A tool of the YAML files as a request carries it; a type that ends in `?` makes the parameter optional."""
    properties = {name: {"type": type_.rstrip("?")} for name, type_ in entry["parameters"].items()}
    required = [name for name, type_ in entry["parameters"].items() if not type_.endswith("?")]
    schema = {"type": "object", "properties": properties, "required": required}
    return {
        "type": "function",
        "function": {"name": entry["name"], "description": entry["description"], "parameters": schema},
    }


def rotations(tools: Sequence[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    for first in range(len(tools)):
        yield [*tools[first:], *tools[:first]]


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def judge(
    server: Served, tally: Tally, name: str, request: dict[str, Any], right: str, tools: list[dict[str, Any]]
) -> None:
    """Ask once; count the choice, and for a call whether its arguments are valid and hold the words they should."""
    message = server.ask(user(request["ask"]), tools)["message"]
    calls = message.get("tool_calls") or []
    chosen = calls[0]["function"]["name"] if calls else ""
    tally.add(name, chosen == right)
    if not calls:
        return
    schema = next((t["function"]["parameters"] for t in tools if t["function"]["name"] == chosen), None)
    tally.add("arguments valid for the schema", schema is not None and valid(calls[0]["function"]["arguments"], schema))
    if chosen == right and "words" in request:
        tally.add("argument copied", copied(calls[0]["function"]["arguments"], request["words"]))


def valid(arguments: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(arguments), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def copied(arguments: str, words: str) -> bool:
    """Whether the words stand in one of the values."""
    try:
        values = json.loads(arguments).values()
    except ValueError:
        return False
    return any(words.lower() in str(value).lower() for value in values)


def five_tools(server: Served, tally: Tally) -> None:
    data = load("five_tools.yaml")
    original = [as_tool(tool) for tool in data["tools"]]
    renamed = [as_tool(data["renamed"][tool["name"]]) for tool in data["tools"]]
    new_name = {tool["name"]: data["renamed"][tool["name"]]["name"] for tool in data["tools"]}
    for request in data["requests"]:
        for tools in rotations(original):
            judge(server, tally, "five tools", request, request["tool"], tools)
        for tools in rotations(renamed):
            judge(server, tally, "five tools renamed", request, new_name[request["tool"]], tools)


def held_out(server: Served, tally: Tally, offered: int) -> None:
    """Five rotations of each request's tools: all of them with 5 offered, every second one with 10."""
    kinds = load("held_out.yaml")
    draw = random.Random(SEED)
    for kind in kinds:
        for request in kind["requests"]:
            others = draw.sample([other for other in kinds if other is not kind], offered - 1)
            tools = [as_tool(tool) for tool in [kind, *others]]
            draw.shuffle(tools)
            for order in list(rotations(tools))[:: offered // 5]:
                judge(server, tally, f"held-out kinds, {offered} offered", request, kind["name"], order)


def in_words(server: Served, tally: Tally) -> None:
    data = load("words_only.yaml")
    tools = [as_tool(tool) for tool in load("five_tools.yaml")["tools"]]

    def answered(choice: dict[str, Any]) -> bool:
        message = choice["message"]
        return not message.get("tool_calls") and bool(message.get("content")) and choice["finish_reason"] == "stop"

    for ask in data["nothing_fits"]:
        for order in rotations(tools):
            tally.add("nothing fits: answered in words", answered(server.ask(user(ask), order)))
    for ask in data["chat"]:
        tally.add("chat: answered in words, tools offered", answered(server.ask(user(ask), tools)))
        tally.add("chat: answered in words, no tools", answered(server.ask(user(ask), [])))
    for case in data["after_result"]:
        call = {"name": case["tool"], "arguments": json.dumps(case["arguments"])}
        messages = [
            *user(case["ask"]),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": case["result"]},
        ]
        for order in rotations(tools):
            choice = server.ask(messages, order)
            tally.add("after a result: answered in words", answered(choice))
            tally.add("after a result: quotes it", case["quote"] in (choice["message"].get("content") or ""))


def latency(server: Served) -> float:
    """Median seconds of a five-tool request, each with tools in another order so that no prompt is cached."""
    data = load("five_tools.yaml")
    tools = [as_tool(tool) for tool in data["tools"]]
    spent = []
    for request, order in zip(data["requests"][:20], itertools.permutations(tools), strict=False):
        began = time.perf_counter()
        server.ask(user(request["ask"]), list(order))
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def position_bias(server: Served, orders: int = 120) -> list[float]:
    """Mean P(the tool at a place), over equivalent tools, their requests and the first `orders` of all orders."""
    sums = [0.0] * 5
    count = 0
    for group in load("equivalents.yaml"):
        tools = [as_tool(tool) for tool in group["tools"]]
        every = list(itertools.permutations(tools))
        # A stride that shares no factor with 120 spreads a smaller number of orders evenly.
        for number in range(orders):
            order = every[number * 7 % len(every)] if orders < len(every) else every[number]
            for request in group["requests"]:
                for place, chance in enumerate(server.probabilities(user(request), list(order))):
                    sums[place] += chance
                count += 1
    return [total / count for total in sums]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def provenance(path: Path) -> dict[str, Any]:
    """What the file says of itself: commit, seed, data hash and plan."""
    reader = gguf.GGUFReader(path)
    keys = ("toolkit.commit", "toolkit.seed", "toolkit.data", "toolkit.plan")
    return {key.removeprefix("toolkit."): reader.fields[key].contents() for key in keys if key in reader.fields}


def measure(path: Path, orders: int) -> dict[str, Any]:
    tally = Tally()
    with serve(path) as server:
        five_tools(server, tally)
        held_out(server, tally, 5)
        held_out(server, tally, 10)
        in_words(server, tally)
        bias = position_bias(server, orders)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "made": provenance(path),
        "right": {name: {"right": right, "asked": asked} for name, (right, asked) in tally.counts.items()},
        "position_bias": {"orders": orders, "mean_probability": [round(share, 4) for share in bias]},
    }


def time_alone(path: Path) -> dict[str, float]:
    """Seconds to load and to answer, on both cores and with nothing else running."""
    with serve(path, threads=2) as server:
        return {"load_seconds": round(server.load_seconds, 3), "five_tool_seconds": round(latency(server), 4)}


def table(balanced: dict[str, Any], skewed: dict[str, Any] | None) -> str:
    lines = ["| figure | balanced | skewed | aim |", "|---|---|---|---|"]
    models = [balanced, skewed]

    def row(name: str, values: list[str], aim: str = "") -> None:
        lines.append(f"| {name} | {' | '.join(values)} | {aim} |")

    def each(show: Any) -> list[str]:
        return [show(model) if model else "" for model in models]

    for name in balanced["right"]:
        aim = f"{TARGETS[name]:.0%}" if name in TARGETS else ""
        row(name, each(lambda m, name=name: "{:.1%} of {}".format(*share(m["right"][name]))), aim)
    row("median seconds of a five-tool request", each(lambda m: f"{m['five_tool_seconds']:.3f}"), "0.100")
    row("seconds to load", each(lambda m: f"{m['load_seconds']:.2f}"), "1.00")
    row("megabytes", each(lambda m: f"{m['bytes'] / 1e6:.2f}"), "8")
    for place in range(5):
        bias = each(lambda m, place=place: f"{m['position_bias']['mean_probability'][place]:.3f}")
        row(f"probability of equivalent tool at place {place + 1}", bias, "0.200 if unbiased" if not place else "")
    return "\n".join(lines)


def share(count: dict[str, int]) -> tuple[float, int]:
    return count["right"] / count["asked"], count["asked"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="measure this file alone")
    parser.add_argument("--orders", type=int, default=120, help="orders of five equivalent tools, of 120")
    parser.add_argument("--write", action="store_true", help="write card.json and the table in the card's README")
    options = parser.parse_args()
    files = [options.model] if options.model else [BALANCED, SKEWED]
    with ProcessPoolExecutor(len(files)) as pool:
        measured = list(pool.map(measure, files, itertools.repeat(options.orders)))
    measured = [found | time_alone(path) for found, path in zip(measured, files, strict=True)]
    balanced, skewed = measured[0], measured[1] if len(measured) > 1 else None
    shown = table(balanced, skewed)
    print(shown)
    if options.write and options.model is None:
        card = {"balanced": balanced, "skewed": skewed}
        (BUILTIN / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        readme = BUILTIN / "README.md"
        before, _, rest = readme.read_text(encoding="utf-8").partition(MARK)
        _, _, after = rest.partition(MARK)
        readme.write_text(f"{before}{MARK}\n{shown}\n{MARK}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
