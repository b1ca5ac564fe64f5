"""10,000 requests on a budget for about half of them, through two gateways of two workers each, on both engines.

A third is streamed, some are hung up, some fail or break off upstream. Says whether anything went over the budget and
whether the books balance. `python -m benchmarks keys_load`; KEYS_LOAD_REQUESTS sets another number.
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
    at_once: int = 48,
    then: Callable[[KeyStore, list[str]], None] | None = None,
) -> None:
    """One engine; prints what came of it, and ends with an AssertionError if a promise was broken.

    `then` is called with the gateways' addresses while they still run.
    """
    budget = total * AVERAGE // 2 if budget is None else budget
    with rig.upstream(folder, UPSTREAM_PAUSE="0.01") as upstream, open_store(url) as store:
        secret = store.create("load", budget_nano=budget).secret
        config = rig.document(upstream.url)
        running = []
        try:
            running = [rig.start_proxy(folder, config, url, workers=workers) for _ in range(gateways)]
            with Watcher(store, "load") as watcher:
                start = time.monotonic()
                seen = asyncio.run(
                    storm([proxy.url for proxy in running], secret, plan(total, 1), at_once=at_once)
                ).seen
                seconds = time.monotonic() - start
                settle(store)
            if then is not None:
                then(store, [proxy.url for proxy in running])
        finally:
            for proxy in running:
                proxy.child.stop()
        key, found = store.get("load"), audit(store)
        over = max(0, key.spent_nano - budget)
        print(
            f"{engine}: {total} requests in {seconds:.0f} s ({total / seconds:.0f}/s), {dict(sorted(seen.items()))}\n"
            f"  budget {format_money(budget)}, spent {format_money(key.spent_nano)}, overshoot {over}; most spent and "
            f"held at once {format_money(watcher.most)}; audit {'clean' if found.clean else found.findings}; "
            f"{found.requests} admitted, {found.open} open, {found.lost} charged by a guess, "
            f"{found.underestimated} above their estimate",
            flush=True,
        )
        assert over == 0
        assert watcher.most <= budget
        assert found.clean, found.findings
        assert found.open == 0
        assert found.underestimated == 0


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
