"""Ask many cells at once, in a sequence that keeps each of the server's slots on one prompt prefix, no faster than
the server wants. Knows nothing of suites, files or statistics.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from agents.chat_model import ModelError
from toolkit.core.errors import ToolkitError

T = TypeVar("T")
R = TypeVar("R")

REFUSED = frozenset({401, 402, 403, 404, 429})  # what one question met, the next will meet too
IN_A_ROW = 5  # failures one after another that end a run


class Pace:
    """How many questions may be under way: halved when the server asks for time, then slowly up to `most` again.

    The server's pressure is learnt from the waits between a model's retries: give `wait` to it as its `sleep`.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.limit = float(most)
        self._clock = clock
        self._under_way = 0
        self._pressed = -1.0
        self._free = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a free place and hold it."""
        async with self._free:
            await self._free.wait_for(lambda: self._under_way < max(1, int(self.limit)))
            self._under_way += 1
        try:
            yield
        finally:
            async with self._free:
                self._under_way -= 1
                self.limit = min(float(self.most), self.limit + 1 / self.limit / 4)
                self._free.notify_all()

    async def wait(self, seconds: float) -> None:
        """Sleep as the server asked; one halving for all that were told at the same time."""
        now = self._clock()
        if now > self._pressed:
            self.limit = max(1.0, self.limit / 2)
        self._pressed = max(self._pressed, now + seconds)
        await asyncio.sleep(seconds)


class Stretches(Generic[T]):
    """A sequence cut into one stretch per worker, so that what follows each other shares a slot's cache. A worker
    that is done takes the far half of the longest stretch left."""

    def __init__(self, items: Sequence[T], workers: int) -> None:
        size, rest = divmod(len(items), workers)
        self._left: list[deque[T]] = []
        start = 0
        for worker in range(workers):
            end = start + size + (worker < rest)
            self._left.append(deque(items[start:end]))
            start = end

    def next(self, worker: int) -> T | None:
        """The worker's next item, None when nothing is left for it."""
        own = self._left[worker]
        if not own:
            longest = max(self._left, key=len)
            taken = [longest.pop() for _ in range((len(longest) + 1) // 2)]
            own.extend(reversed(taken))
        return own.popleft() if own else None


async def ask_all(
    items: Sequence[T],
    ask: Callable[[T], Awaitable[R]],
    *,
    pace: Pace,
    done: Callable[[T, R], None],
    failed: Callable[[T, ModelError], None],
) -> None:
    """Ask every item; `done` or `failed` hears of each as it ends. Raises ToolkitError, after what was under way has
    ended, when going on makes no sense: the server refuses us, or fails time after time."""
    stretches = Stretches(items, min(pace.most, max(1, len(items))))
    stop: list[ModelError] = []
    row = 0

    async def worker(number: int) -> None:
        nonlocal row
        while not stop:
            async with pace.turn():
                item = stretches.next(number)
                if item is None or stop:
                    return
                try:
                    result = await ask(item)
                except ModelError as error:
                    if error.status in REFUSED:
                        stop.append(error)
                        return
                    failed(item, error)
                    row += 1
                    if row >= IN_A_ROW:
                        stop.append(error)
                    continue
                row = 0
                done(item, result)

    async with asyncio.TaskGroup() as group:
        for number in range(min(pace.most, max(1, len(items)))):
            group.create_task(worker(number))
    if stop:
        raise ToolkitError(
            f"stopped, since going on makes no sense: {stop[0].message}; what was measured is kept",
            hint=f"{stop[0].hint or 'see what is wrong with the model'}; then the same command goes on",
        )
