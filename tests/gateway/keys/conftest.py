"""A store on each engine, with a clock that the test moves."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from benchmarks import _keys_rig as rig
from gateway.keys.store import KeyStore, open_store


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
