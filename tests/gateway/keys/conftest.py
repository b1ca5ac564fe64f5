"""A store on each engine, with a clock that the test moves."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Row, func, select

from benchmarks import _keys_rig as rig
from gateway.keys.schema import keys, requests
from gateway.keys.store import KeyStore, open_store
from gateway.keys.virtual_key import VirtualKey


@dataclass
class Clock:
    """Stands still until it is moved; milliseconds since 1970."""

    now: int = 1_772_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[rig.Postgres]:
    """A real Postgres server, one for the whole run."""
    if rig.postgres_binaries() is None:
        pytest.skip("no Postgres programs on this machine")
    with rig.postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store, once on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'keys.db'}"
    server: rig.Postgres = request.getfixturevalue("postgres")
    return server.database(f"keys_{os.getpid()}_{uuid4().hex[:12]}")


@pytest.fixture
def opened() -> Iterator[Callable[..., KeyStore]]:
    """Opens stores, and closes them when the test is over."""
    stores: list[KeyStore] = []

    def open_one(url: str, clock: Callable[[], int] | None = None) -> KeyStore:
        stores.append(open_store(url) if clock is None else open_store(url, clock=clock))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(store_url: str, clock: Clock, opened: Callable[..., KeyStore]) -> KeyStore:
    """An empty store on each engine, on the test's clock."""
    return opened(store_url, clock)


@dataclass(frozen=True)
class Gateway:
    """A real proxy before the stand-in, and its store."""

    proxy: rig.Proxy
    upstream: rig.Upstream
    store: KeyStore

    def settled(self, name: str, *, within: float = 10.0) -> VirtualKey:
        """The key once none of its requests is running; fails after `within` seconds."""
        deadline = time.monotonic() + within
        while True:
            key = self.store.get(name)
            with self.store.reading() as connection:
                running = connection.scalar(
                    select(func.count()).where(requests.c.key_id == key.id, requests.c.state == "open")
                )
            if not running:
                return self.store.get(name)
            assert time.monotonic() < deadline, f"{running} requests of {name} are still open"
            time.sleep(0.02)

    def rows(self, name: str) -> list[Row[Any]]:
        """The key's requests, oldest first."""
        with self.store.reading() as connection:
            found = select(requests).join(keys).where(keys.c.name == name).order_by(requests.c.admitted_at)
            return list(connection.execute(found))


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One proxy for all tests that send requests: starting it takes ten seconds."""
    folder = tmp_path_factory.mktemp("gateway")
    url = f"sqlite:///{folder / 'keys.db'}"
    with (
        open_store(url) as store,
        rig.upstream(folder, UPSTREAM_SLOW="0.6", UPSTREAM_PAUSE="0.05") as upstream,
        rig.proxy(folder, rig.document(upstream.url), url) as proxy,
    ):
        yield Gateway(proxy, upstream, store)
