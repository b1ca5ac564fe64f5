"""10,000 requests on a budget for about half of them, through two gateways of two workers each, on both engines.

A third is streamed, some are hung up, some fail or break off upstream. Says whether anything went over the budget and
whether the books balance. `python -m benchmarks keys_load`; KEYS_LOAD_REQUESTS sets another number (fewer are sent
fewer at once: what all of them hold together would be more than the budget).
"""

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import _keys_rig as rig
from benchmarks._keys_storm import plan, storm
from gateway.keys.audit import audit
from gateway.keys.store import KeyStore, open_store
from toolkit.core.units import format_money

# What one request of the plan costs on average, so that the budget covers about half of them.
AVERAGE = 40 * 10_000


def main() -> None:
    total = int(os.environ.get("KEYS_LOAD_REQUESTS", "10000"))
    with tempfile.TemporaryDirectory() as name:
        run("sqlite", Path(name), f"sqlite:///{name}/keys.db", total)
    if rig.postgres_binaries() is None:
        print("postgres: no programs on this machine, not run")
        return
    with tempfile.TemporaryDirectory() as name, rig.postgres() as server:
        run("postgres", Path(name), server.database("load"), total)


def run(
    engine: str,
    folder: Path,
    url: str,
    total: int,
    *,
    budget: int | None = None,
    gateways: int = 2,
    workers: int = 2,
    at_once: int | None = None,
    then: Callable[[KeyStore, list[str]], None] | None = None,
) -> None:
    """One engine; prints what came of it, and ends with an AssertionError if a promise was broken.

    `then` is called with the gateways' addresses while they still run.
    """
    budget = total * AVERAGE // 2 if budget is None else budget
    at_once = min(48, max(4, total // 200)) if at_once is None else at_once
    planned = plan(total, 1)
    with rig.upstream(folder, UPSTREAM_PAUSE="0.01") as upstream, open_store(url) as store:
        secret = store.create("load", budget_nano=budget).secret
        config = rig.document(upstream.url)
        running = []
        try:
            running = [rig.start_proxy(folder, config, url, workers=workers) for _ in range(gateways)]
            with Watcher(store, "load") as watcher:
                start = time.monotonic()
                seen = asyncio.run(storm([proxy.url for proxy in running], secret, planned, at_once=at_once)).seen
                seconds = time.monotonic() - start
                settle(store)
            if then is not None:
                then(store, [proxy.url for proxy in running])
        finally:
            for proxy in running:
                proxy.child.stop()
        key, found = store.get("load"), audit(store)
        bill = upstream.counts()["counts"]["billed_tokens"] * rig.PRICE.input // 1_000_000
    over = max(0, key.spent_nano - budget, watcher.most - budget)
    streamed = sum(body["stream"] for _, body, _ in planned)
    leaving = sum(hang_up for _, _, hang_up in planned)
    failing = sum(body["model"] in ("fails", "breaks") for _, body, _ in planned)
    print(
        f"{engine}: {total} requests in {seconds:.0f} s ({total / seconds:.0f}/s), {at_once} at once: {streamed} "
        f"streamed, {leaving} that hang up, {failing} that fail upstream; came back {dict(sorted(seen.items()))}; "
        f"{found.requests} admitted, {found.lost} charged by a guess; the stand-in would bill {format_money(bill)}",
        flush=True,
    )
    rig.judge(
        (
            over == 0,
            f"overshoot {over} of {format_money(budget)}: {format_money(key.spent_nano)} spent, at most "
            f"{format_money(watcher.most)} spent and held at once",
        ),
        (seen["422"] > 0, f"the budget was the limit: {seen['422']} requests refused"),
        (found.clean and found.open == 0, f"audit clean, {found.open} open {found.findings or ''}".rstrip()),
        (found.underestimated == 0, f"{found.underestimated} requests above their estimate"),
    )


class Watcher:
    """Looks at a key again and again while it is used: what is spent and held must never exceed the budget."""

    def __init__(self, store: KeyStore, name: str) -> None:
        self.most = 0
        self._store, self._name = store, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            key = self._store.get(self._name)
            self.most = max(self.most, key.spent_nano + key.reserved_nano)


def settle(store: KeyStore, within: float = 30) -> None:
    """Wait until no request is running."""
    deadline = time.monotonic() + within
    while audit(store).open and time.monotonic() < deadline:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
