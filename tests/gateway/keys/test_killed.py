"""Processes killed at any moment: the books balance after each, and nothing stays reserved."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import keys_kill
from gateway.keys.audit import audit
from gateway.keys.store import KeyStore

# One process that admits and ends requests as fast as it can, in three threads, until it is killed.
BUSY = """
import itertools, os, random, sys, threading
from gateway.keys.admission import Ask, Price
from gateway.keys.store import Admitted, Call, Usage, open_store
store = open_store(sys.argv[1])
owner, key = store.register(), store.get("busy")
def work(thread):
    for number in itertools.count():
        call = f"{owner}-{thread}-{number}"
        ask = Ask(prompt=0, answer=random.randint(1, 50), price=Price(0, 1_000_000))
        if isinstance(store.admit(key.id, Call(call, "m"), ask, owner), Admitted):
            end = random.random()
            if end < 0.6:
                store.settle(call, Usage(cost_nano=random.randint(0, ask.answer), completion_tokens=1))
            elif end < 0.9:
                store.release(call, outcome="failed")
        if number == 3:
            os.write(1, b"busy\\n")
for thread in range(3):
    threading.Thread(target=work, args=(thread,), daemon=True).start()
threading.Event().wait(60)
"""


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_books_that_balance(
    store_url: str, opened: Callable[..., KeyStore]
) -> None:
    store = opened(store_url)
    store.create("busy", budget_nano=10**12)
    dice = random.Random(1)
    lost = 0
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", BUSY, store_url], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"busy\n"
                time.sleep(dice.random() * 0.2)  # the moment of the kill is what varies here
            finally:
                process.kill()
        left = audit(store).open
        assert store.sweep() == left
        lost += left
        found = audit(store)
        assert found.clean, found.findings
        assert found.open == 0
        key = store.get("busy")
        assert key.reserved_nano == 0
    assert lost > 0


@pytest.mark.slow
@pytest.mark.timeout(420)  # starting gateways takes minutes on a machine that is busy
def test_a_gateway_killed_under_load_leaves_nothing_reserved_when_it_is_back(tmp_path: Path) -> None:
    """The small sister of `benchmarks/keys_kill.py`: one worker killed, then the whole gateway."""
    keys_kill.run(tmp_path, f"sqlite:///{tmp_path / 'keys.db'}", kills=2, seed=3)
