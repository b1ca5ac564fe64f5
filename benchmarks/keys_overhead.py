"""What the key hooks cost in the proxy: the same requests with hooks and without, in one run, in alternating blocks.

CPU seconds a request of the proxy process (what the machine pays), and the 99th percentile of the latency, at 1, 16
and 64 requests at once. KEYS_OVERHEAD_REQUESTS sets the requests a block, KEYS_OVERHEAD_ROUNDS the rounds.
"""

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

from benchmarks import _keys_rig as rig
from gateway.keys.store import open_store

REQUESTS = int(os.environ.get("KEYS_OVERHEAD_REQUESTS", "400"))
ROUNDS = int(os.environ.get("KEYS_OVERHEAD_ROUNDS", "5"))
BODY = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}


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
            sides = {"without": (bare, rig.MASTER), "with": (hooked, secret)}
            for proxy, key in sides.values():
                block(proxy, key, 16, 100)
            for at_once in (1, 16, 64):
                cpu: dict[str, list[float]] = {side: [] for side in sides}
                latencies: dict[str, list[float]] = {side: [] for side in sides}
                for _ in range(ROUNDS):
                    for side, (proxy, key) in sides.items():
                        used, times = block(proxy, key, at_once, REQUESTS)
                        cpu[side].append(used)
                        latencies[side] += times
                least = {side: statistics.median(values) for side, values in cpu.items()}
                p99 = {side: statistics.quantiles(values, n=100)[98] for side, values in latencies.items()}
                p50 = {side: statistics.median(values) for side, values in latencies.items()}
                print(
                    f"{at_once} at once: CPU a request {least['without'] * 1e3:.2f} ms without hooks, "
                    f"{least['with'] * 1e3:.2f} ms with: {least['with'] / least['without'] - 1:+.1%}; "
                    f"median {p50['with'] / p50['without'] - 1:+.1%}, p99 {p99['without'] * 1e3:.0f} ms and "
                    f"{p99['with'] * 1e3:.0f} ms: {p99['with'] / p99['without'] - 1:+.1%}",
                    flush=True,
                )


def block(proxy: rig.Proxy, key: str, at_once: int, requests: int) -> tuple[float, list[float]]:
    """CPU seconds a request of the proxy, and the latency of each."""
    process = psutil.Process(proxy.child.pid)
    before = process.cpu_times()
    times = asyncio.run(send(proxy.url, key, at_once, requests))
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / requests, times


async def send(url: str, key: str, at_once: int, requests: int) -> list[float]:
    times: list[float] = []
    left = iter(range(requests))
    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}, connector=connector) as session:

        async def worker() -> None:
            for _ in left:
                start = time.perf_counter()
                async with session.post(f"{url}/v1/chat/completions", json=BODY) as answer:
                    await answer.read()
                    assert answer.status == 200, await answer.text()
                times.append(time.perf_counter() - start)

        await asyncio.gather(*(worker() for _ in range(at_once)))
    return times


if __name__ == "__main__":
    main()
