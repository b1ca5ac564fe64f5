"""The key store alone: admit and settle a request, per second and in microseconds, on both engines.

Alone, by the way that the proxy's event loop takes; together, from several threads.
Compared, in the same run, with the least that any store could do: one empty write transaction of the same database.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable

from benchmarks import _keys_rig as rig
from gateway.keys.admission import Ask, Price
from gateway.keys.store import Admitted, Call, KeyStore, Usage, open_instant, open_store

REQUESTS = int(os.environ.get("KEYS_STORE_REQUESTS", "2000"))
THREADS = 4


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        measure("sqlite", f"sqlite:///{name}/keys.db")
    if rig.postgres_binaries() is None:
        print("postgres: no programs on this machine, not run")
        return
    with rig.postgres() as server:
        measure("postgres (no fsync)", server.database("bench"))


def measure(engine: str, url: str) -> None:
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(open_store(url))
        owner = store.register()
        made = store.create("bench", budget_nano=10**15)
        door = stack.enter_context(open_instant(url) or contextlib.nullcontext(store))

        def pair(door: KeyStore, number: str) -> None:
            ask = Ask(prompt=100, answer=100, price=Price(1_000_000, 1_000_000))
            assert isinstance(door.admit(made.key.id, Call(number, "m"), ask, owner), Admitted)
            door.settle(number, Usage(cost_nano=50, prompt_tokens=20, completion_tokens=30))

        look = timed(lambda _: door.authenticate(made.secret), "look")
        empty = timed(lambda _: nothing(store), "empty")
        alone = timed(lambda number: pair(door, number), "one")
        together = together_timed(lambda number: pair(store, number))
        print(
            f"{engine}: look up {look * 1e6:.0f} us; admit + settle {alone * 1e6:.0f} us ({1 / alone:.0f}/s) alone, "
            f"{1 / together:.0f}/s from {THREADS} threads; two empty write transactions {2 * empty * 1e6:.0f} us, "
            f"so the ratio is {alone / (2 * empty):.1f}",
            flush=True,
        )


def nothing(store: KeyStore) -> None:
    with store.writing() as connection:
        connection.exec_driver_sql("delete from owners where id = 'nobody'")


def timed(step: Callable[[str], object], name: str) -> float:
    """Seconds a step."""
    for number in range(50):
        step(f"{name}-warm-{number}")
    start = time.perf_counter()
    for number in range(REQUESTS):
        step(f"{name}-{number}")
    return (time.perf_counter() - start) / REQUESTS


def together_timed(step: Callable[[str], object]) -> float:
    """Seconds a step, from several threads on the same key."""

    def work(thread: int) -> None:
        for number in range(REQUESTS // THREADS):
            step(f"together-{thread}-{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - start) / (REQUESTS // THREADS * THREADS)


if __name__ == "__main__":
    main()
