"""What the key hooks cost in the proxy: the same requests with hooks and without, in one run, in alternating blocks.

CPU seconds a request of the proxy (what the machine pays) and the 99th percentile of the latency, at 1, 16 and 64
requests at once, and streamed. Which side goes first changes from round to round. The interval after each ratio is
where 90 % of the ratios lie when whole rounds are drawn anew: a difference inside it may be noise.
KEYS_OVERHEAD_REQUESTS sets the requests a block, KEYS_OVERHEAD_ROUNDS the rounds.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil

from benchmarks import _keys_rig as rig
from gateway.keys.audit import audit
from gateway.keys.store import open_store

REQUESTS = int(os.environ.get("KEYS_OVERHEAD_REQUESTS", "250"))
ROUNDS = int(os.environ.get("KEYS_OVERHEAD_ROUNDS", "8"))
WARM_UP = 300
BODY = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
LOADS: tuple[tuple[int, dict[str, Any]], ...] = ((1, BODY), (16, BODY), (64, BODY), (16, {**BODY, "stream": True}))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/keys.db"
        with (
            rig.upstream(folder) as upstream,
            open_store(url) as store,
            rig.proxy(folder, rig.document(upstream.url, hooks=False), url) as bare,
            rig.proxy(folder, rig.document(upstream.url), url) as hooked,
        ):
            secret = store.create("bench", budget_nano=10**15).secret
            sides = [(bare, rig.MASTER), (hooked, secret)]
            for proxy, key in sides:
                block(proxy, key, 16, BODY, WARM_UP)
            sent = WARM_UP
            for at_once, body in LOADS:
                rounds = []
                for number in range(ROUNDS):
                    order = (0, 1) if number % 2 == 0 else (1, 0)
                    measured = {side: block(*sides[side], at_once, body, REQUESTS) for side in order}
                    rounds.append((measured[0], measured[1]))
                    sent += REQUESTS
                report(f"{at_once} at once{', streamed' if body.get('stream') else ''}", rounds)
            found = audit(store)
            assert found.clean, found.findings
            assert (found.requests, found.open, found.lost) == (sent, 0, 0)  # each of them was accounted


# CPU seconds a request and the latencies of one block.
Block = tuple[float, list[float]]


def report(load: str, rounds: Sequence[tuple[Block, Block]]) -> None:
    """CPU, median and 99th percentile on both sides, with the ratio's interval; a line for each of the aims."""
    figures: list[tuple[str, float | None, Callable[[Sequence[Block]], float]]] = [
        ("CPU a request", 0.05, lambda blocks: float(np.mean([cpu for cpu, _ in blocks]))),
        ("median", None, lambda blocks: float(np.median(np.concatenate([times for _, times in blocks])))),
        ("p99", 0.10, lambda blocks: float(np.quantile(np.concatenate([times for _, times in blocks]), 0.99))),
    ]
    dice = np.random.default_rng(1)
    draws = [dice.integers(len(rounds), size=len(rounds)) for _ in range(1_000)]
    shown, verdicts = [], []
    for name, aim, figure in figures:
        bare, hooked = figure([pair[0] for pair in rounds]), figure([pair[1] for pair in rounds])
        ratios = [figure([rounds[i][1] for i in draw]) / figure([rounds[i][0] for i in draw]) - 1 for draw in draws]
        low, high = np.quantile(ratios, [0.05, 0.95])
        shown.append(
            f"{name} {bare * 1e3:.2f} ms without hooks, {hooked * 1e3:.2f} ms with: "
            f"{hooked / bare - 1:+.1%} ({low:+.1%} to {high:+.1%})"
        )
        if aim is not None:
            verdicts.append(f"  {verdict(low, high, aim)}: {name} within {aim:.0%}")
    print("\n".join([f"{load}: " + "; ".join(shown), *verdicts]), flush=True)


def verdict(low: float, high: float, aim: float) -> str:
    """What an interval says of an aim: too wide an interval says nothing."""
    return "kept" if high <= aim else "NOT KEPT" if low > aim else "not decided, the interval holds the aim"


def block(proxy: rig.Proxy, key: str, at_once: int, body: dict[str, Any], requests: int) -> Block:
    """CPU seconds a request of the proxy, and the latency of each."""
    root = psutil.Process(proxy.child.pid)
    before = cpu(root)
    times = asyncio.run(send(proxy.url, key, at_once, body, requests))
    after = cpu(root)
    while (later := idle(root)) > after:  # LiteLLM logs, and the hooks settle, a moment after the answer
        after = later
    return (after - before) / requests, times


def cpu(root: psutil.Process) -> float:
    """CPU seconds of a process and all that it started."""
    spent = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return float(sum(times.user + times.system for times in spent))


def idle(root: psutil.Process) -> float:
    """As `cpu`, a moment later."""
    time.sleep(0.1)
    return cpu(root)


async def send(url: str, key: str, at_once: int, body: dict[str, Any], requests: int) -> list[float]:
    times: list[float] = []
    left = iter(range(requests))
    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}, connector=connector) as session:

        async def worker() -> None:
            for _ in left:
                start = time.perf_counter()
                async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                    await answer.read()
                    assert answer.status == 200, await answer.text()
                times.append(time.perf_counter() - start)

        await asyncio.gather(*(worker() for _ in range(at_once)))
    return times


if __name__ == "__main__":
    main()
