"""Many requests at once through real gateways: nothing over the budget, nothing lost, limits across workers."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import keys_load
from benchmarks._keys_storm import CHAT, storm
from gateway.keys.store import KeyStore


@pytest.mark.slow
@pytest.mark.timeout(420)  # starting gateways takes minutes on a machine that is busy
@pytest.mark.parametrize(
    ("store_url", "gateways", "workers"),
    [("sqlite", 1, 2), ("postgres", 2, 1)],
    indirect=["store_url"],
    ids=["sqlite, two workers", "postgres, two gateways"],
)
def test_a_storm_of_requests_neither_overshoots_nor_loses_anything(
    store_url: str, gateways: int, workers: int, tmp_path: Path, opened: Callable[..., KeyStore]
) -> None:
    """The small sister of `benchmarks/keys_load.py`; then the limit of requests a minute on the same gateways."""
    keys_load.run(
        "small",
        tmp_path,
        store_url,
        240,
        budget=110_000_000,
        gateways=gateways,
        workers=workers,
        at_once=10,
        then=limited,
    )


def limited(store: KeyStore, urls: list[str]) -> None:
    """Six of thirty requests pass, whichever worker or gateway each of them meets."""
    secret = store.create("limited", rpm=6).secret
    body = {"model": "free", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    seen = asyncio.run(storm(urls, secret, [(CHAT, body, False)] * 30, at_once=15)).seen
    assert seen == {"200": 6, "422": 24}
