"""The key store as one worker of the proxy uses it: asynchronous, alive, and insistent. Knows nothing of LiteLLM."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.keys.owners import HEARTBEAT_SECONDS
from gateway.keys.store import KeyStore, StoreBusy, StoreUnavailable, open_instant, open_store

T = TypeVar("T")
log = logging.getLogger("toolkit.keys")

RETRY_SECONDS = 1.0


class Ledger:
    """The store as one worker of the proxy uses it: without waiting where that is possible, else in threads."""

    def __init__(self, url: str) -> None:
        self.store: KeyStore = open_store(url)
        self.store.sweep()
        self.owner = self.store.register()
        self._instant = open_instant(url)
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="keys")
        self._heart: asyncio.Task[None] | None = None
        self._unfinished: set[asyncio.Task[None]] = set()

    async def run(self, step: Callable[[KeyStore], T]) -> T:
        """What `step` returns. It may be called twice: the first time without effect, if the store was busy."""
        if self._heart is None:
            # Until the first request no heart beat: others may have taken this process for dead.
            self._heart = asyncio.create_task(self._beat())
            await asyncio.get_running_loop().run_in_executor(self._threads, self.store.beat, self.owner)
        if self._instant is not None:
            # A tenth of the cost of handing the step to a thread, and as fast as SQLite is.
            with contextlib.suppress(StoreBusy):
                return step(self._instant)
        return await asyncio.get_running_loop().run_in_executor(self._threads, step, self.store)

    async def finish(self, step: Callable[[KeyStore], object]) -> None:
        """Run a step that must not be lost: again and again while the store does not work, in the background."""
        try:
            await self.run(step)
        except StoreUnavailable as error:
            log.warning("%s", error.message)
            task = asyncio.create_task(self._insist(step))
            self._unfinished.add(task)
            task.add_done_callback(self._unfinished.discard)

    async def _insist(self, step: Callable[[KeyStore], object]) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(StoreUnavailable):
                await self.run(step)
                return

    async def close(self) -> None:
        """Stop the heartbeat and give the connections back."""
        for task in [self._heart, *self._unfinished]:
            if task is not None:
                task.cancel()
        self._threads.shutdown()
        for store in (self.store, self._instant):
            if store is not None:
                store.close()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await loop.run_in_executor(self._threads, self._housekeeping)
            except StoreUnavailable as error:
                log.warning("%s", error.message)

    def _housekeeping(self) -> None:
        self.store.beat(self.owner)
        self.store.sweep()
        self.store.tidy()
