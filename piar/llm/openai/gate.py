"""The gate in front of an endpoint: one pacer, many waiting workers, one event loop."""

import asyncio
import math
import time
from collections import deque
from contextlib import suppress

from piar.llm.base import Failure
from piar.llm.openai.pacing import Pacer


class Halted(Exception):
    """Nothing more is asked; the failure says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Gate:
    """Lets requests through as the pacer allows, first come first served; a halt wakes everyone who waits."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._queue: deque[asyncio.Future[None]] = deque()
        self._asleep: set[asyncio.Future[None]] = set()
        self._halted: Failure | None = None

    async def enter(self, tokens: int) -> None:
        """Wait for a slot and take it. Raises `Halted`."""
        while (seconds := self._pacer.wait(time.monotonic(), tokens)) > 0:
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            await self._wait(turn, seconds)
        self._check()
        self._pacer.started(time.monotonic(), tokens)

    def leave(self, tokens: int) -> None:
        """Give the slot back and wake as many as there are free slots."""
        self._pacer.ended(tokens)
        free = int(self._pacer.limit) - self._pacer.in_flight
        while free > 0 and self._queue:
            free -= _wake(self._queue.popleft())

    async def sleep(self, seconds: float) -> None:
        """Wait, but not beyond a halt. Raises `Halted`."""
        alarm = asyncio.get_running_loop().create_future()
        self._asleep.add(alarm)
        try:
            await self._wait(alarm, seconds)
        finally:
            self._asleep.discard(alarm)

    def halt(self, failure: Failure) -> None:
        """Stop asking; what is in flight still comes back."""
        self._halted = self._halted or failure
        for future in (*self._queue, *self._asleep):
            _wake(future)

    async def _wait(self, future: asyncio.Future[None], seconds: float) -> None:
        self._check()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await future
        self._check()

    def _check(self) -> None:
        if self._halted is not None:
            raise Halted(self._halted)


def _wake(future: asyncio.Future[None]) -> bool:
    if future.done():
        return False
    future.set_result(None)
    return True
