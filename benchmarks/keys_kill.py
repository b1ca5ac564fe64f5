"""A gateway of two workers killed by SIGKILL at random moments under load, in turn one worker and all of it.

After each kill and restart: the audit is clean, and no request of the dead is open longer than its bound. One gateway
on SQLite and one on Postgres, side by side, share the kills.
`python -m benchmarks keys_kill`; KEYS_KILLS sets another number than 50.
"""

import asyncio
import contextlib
import os
import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from benchmarks import _keys_rig as rig
from benchmarks._keys_storm import plan, storm
from gateway.keys.audit import audit
from gateway.keys.owners import HEARTBEAT_SECONDS
from gateway.keys.store import KeyStore, open_store

BUDGET = 10**12
BOUND = 2 * HEARTBEAT_SECONDS  # a living worker looks for the dead at every heartbeat


def main() -> None:
    kills, start = int(os.environ.get("KEYS_KILLS", "50")), time.monotonic()
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        urls = [f"sqlite:///{folders[0]}/keys.db"]
        if rig.postgres_binaries() is None:
            print("postgres: no programs on this machine, not run")
        else:
            urls.append(stack.enter_context(rig.postgres()).database("killed"))
        with ThreadPoolExecutor() as pool:
            runs = [
                pool.submit(run, folder, url, kills=kills // len(urls), seed=number)
                for number, (folder, url) in enumerate(zip(folders, urls, strict=False), start=1)
            ]
        longest = max(each.result() for each in runs)
    made = kills // len(urls) * len(urls)
    print(f"{made} kills in {time.monotonic() - start:.0f} s", flush=True)
    rig.judge(
        (True, f"every audit clean after {made} kills, nothing reserved"),  # `run` ends at the first that is not
        (longest <= BOUND, f"requests of the dead open {longest:.1f} s at most, their bound is {BOUND:.0f} s"),
    )


def run(folder: Path, url: str, *, kills: int, seed: int) -> float:
    """Prints a line for each kill; ends with an AssertionError if a promise was broken.

    Returns the longest time in seconds that requests of the dead stayed open after the load had ended.
    """
    dice = random.Random(seed)
    engine, longest = url.partition(":")[0], 0.0
    with rig.upstream(folder, UPSTREAM_PAUSE="0.02") as upstream, open_store(url) as store:
        secret = store.create("load", budget_nano=BUDGET).secret
        config = rig.document(upstream.url)
        proxy = rig.start_proxy(folder, config, url, workers=2)
        try:
            for number in range(kills):
                whole = number % 2 == 1
                with _load(proxy.url, secret, seed + number):
                    _wait_for_load(store)
                    time.sleep(dice.random() * 1.5)  # the moment of the kill is what varies here
                    open_before = audit(store).open
                    _kill(proxy, whole=whole, dice=dice)
                    if whole:
                        proxy.child.stop()
                        proxy = rig.start_proxy(folder, config, url, workers=2)
                waited = _closed(store)
                longest = max(longest, waited)
                found = audit(store)
                what = "gateway" if whole else "worker"
                print(
                    f"{engine}, kill {number + 1} ({what}): {open_before} running, closed {waited:.1f} s after the "
                    f"load ended; {found.requests} requests, {found.lost} charged by a guess, audit "
                    f"{'clean' if found.clean else found.findings}",
                    flush=True,
                )
                assert found.clean, found.findings
                assert store.get("load").reserved_nano == 0
        finally:
            proxy.child.stop()
    return longest


@contextlib.contextmanager
def _load(url: str, secret: str, seed: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Requests in the background; they end by themselves, in errors once their gateway is gone."""
    thread = threading.Thread(
        target=lambda: asyncio.run(storm([url], secret, plan(150, seed), at_once=12)), name="load"
    )
    thread.start()
    try:
        yield
    finally:
        thread.join(timeout=120)
        assert not thread.is_alive()


def _wait_for_load(store: KeyStore, within: float = 30) -> None:
    before = audit(store).requests
    deadline = time.monotonic() + within
    while audit(store).requests < before + 5:
        assert time.monotonic() < deadline, "no request arrives"
        time.sleep(0.02)


def _kill(proxy: rig.Proxy, *, whole: bool, dice: random.Random) -> None:
    """SIGKILL to one worker, or to the gateway and all its workers, by their numbers."""
    root = psutil.Process(proxy.child.pid)
    family = root.children(recursive=True)
    victims = [root, *family] if whole else [dice.choice([child for child in family if _is_worker(child)])]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "multiprocessing.spawn" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _closed(store: KeyStore) -> float:
    """Seconds until nothing is open any more; a living worker sweeps what a dead one left."""
    start = time.monotonic()
    while audit(store).open:
        assert time.monotonic() - start < BOUND, "requests of a dead process stay open"
        time.sleep(0.1)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
