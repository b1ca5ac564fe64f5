"""The disk full, the database gone and back, the store locked: said in a sentence, and nothing lost."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from benchmarks import _keys_rig as rig
from gateway.keys.admission import Ask, Price
from gateway.keys.audit import audit
from gateway.keys.ledger import Ledger
from gateway.keys.store import Admitted, Call, KeyStore, Refused, StoreBusy, StoreUnavailable, Usage, open_instant
from toolkit.core.errors import ToolkitError

ONE = Price(input=0, output=1_000_000)


def admit(store: KeyStore, key_id: int, call: str, tokens: int = 10) -> object:
    return store.admit(key_id, Call(call, "m"), Ask(0, tokens, ONE), "owner")


def test_a_full_disk_refuses_in_a_sentence_and_loses_nothing(tmp_path: Path, opened: Callable[..., KeyStore]) -> None:
    store = opened(f"sqlite:///{tmp_path / 'keys.db'}")
    key = store.create("laptop", budget_nano=10**9).key
    with store.engine.connect() as connection:  # the pool's one connection: it may not take one more page
        connection.exec_driver_sql("PRAGMA max_page_count=1")
    admitted: list[str] = []

    def admit_until_it_is_full() -> None:
        for number in range(10_000):
            admit(store, key.id, str(number))
            admitted.append(str(number))

    with pytest.raises(StoreUnavailable, match="full") as caught:
        admit_until_it_is_full()
    assert "make room on the disk" in (caught.value.hint or "")
    assert audit(store).open == len(admitted)
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    for call in admitted:
        assert store.settle(call, Usage(cost_nano=3))
    assert store.get("laptop").spent_nano == 3 * len(admitted)
    assert audit(store).clean


def test_a_store_held_by_another_process_makes_the_instant_door_busy_and_the_other_wait(
    tmp_path: Path, opened: Callable[..., KeyStore]
) -> None:
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    store = opened(url)
    key = store.create("laptop", budget_nano=100).key
    instant = open_instant(url)
    assert instant is not None
    holder = sqlite3.connect(tmp_path / "keys.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        admit(instant, key.id, "1")
    release = threading.Timer(0.3, holder.execute, ["COMMIT"])
    release.start()
    assert isinstance(admit(store, key.id, "1"), Admitted)
    release.join()
    holder.close()
    assert isinstance(admit(instant, key.id, "2"), Admitted)
    assert isinstance(admit(instant, key.id, "2"), Refused)  # what it began is taken back, and blocks nobody
    assert store.settle("2", Usage(cost_nano=1))
    instant.close()


def test_a_ledger_falls_back_to_a_thread_when_the_store_is_busy(
    tmp_path: Path, opened: Callable[..., KeyStore]
) -> None:
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    key = opened(url).create("laptop", budget_nano=100).key
    holder = sqlite3.connect(tmp_path / "keys.db", isolation_level=None, check_same_thread=False)

    async def run() -> object:
        ledger = Ledger(url)
        try:
            holder.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(ledger.run(lambda store: admit(store, key.id, "1")))
            await asyncio.sleep(0)
            assert not waiting.done()  # and the loop goes on meanwhile
            holder.execute("COMMIT")
            return await asyncio.wait_for(waiting, 10)
        finally:
            await ledger.close()

    assert isinstance(asyncio.run(run()), Admitted)
    holder.close()


def test_postgres_that_restarts_loses_nothing(postgres: rig.Postgres, opened: Callable[..., KeyStore]) -> None:
    url = postgres.database(f"restart_{uuid4().hex[:12]}")
    store = opened(url)
    key = store.create("laptop", budget_nano=100).key
    admit(store, key.id, "1")
    postgres.restart()
    assert store.settle("1", Usage(cost_nano=4))
    assert store.get("laptop").spent_nano == 4
    assert not audit(store).findings


def test_an_end_that_cannot_be_written_is_written_when_the_database_is_back(
    postgres: rig.Postgres, opened: Callable[..., KeyStore]
) -> None:
    url = postgres.database(f"away_{uuid4().hex[:12]}")
    store = opened(url)
    key = store.create("laptop", budget_nano=100).key

    async def run() -> None:
        ledger = Ledger(url)
        try:
            await ledger.run(lambda store: store.admit(key.id, Call("1", "m"), Ask(0, 10, ONE), ledger.owner))
            await asyncio.to_thread(postgres.stop)
            with pytest.raises(StoreUnavailable) as caught:
                await ledger.run(lambda store: store.get("laptop"))
            assert "check that Postgres answers" in (caught.value.hint or "")
            await ledger.finish(lambda store: store.settle("1", Usage(cost_nano=4)))
            await asyncio.to_thread(postgres.start)
            async with asyncio.timeout(30):
                while ledger._unfinished:
                    await asyncio.sleep(0.05)
        finally:
            await ledger.close()

    asyncio.run(run())
    after = store.get("laptop")
    assert (after.spent_nano, after.reserved_nano) == (4, 0)
    assert audit(store).clean


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path, opened: Callable[..., KeyStore]) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ToolkitError, match="cannot be made"):
        opened(f"sqlite:///{tmp_path / 'file' / 'deep' / 'keys.db'}")
