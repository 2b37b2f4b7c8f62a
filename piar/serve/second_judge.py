"""A cascade behind the server: rows that the student is not sure of go to its second judge, together, in bounded time.

It fails closed: a judge that is down, slow or out of budget leaves the row undecided, with the reason. What it answers
after the time is up is kept by whoever asks it, so that the same row is known when it comes again. While a batch is
overdue, and for as long after one that failed, nobody waits for it.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from piar.serve.meters import Meters
from store.cascade import Cascade
from store.errors import PiarError
from store.ids import sample_id
from store.task import Task
from store.types import Sample, Verdict
from trainers.scoring import Scored

log = logging.getLogger(__name__)
Ask = Callable[[list[Sample]], list[Verdict]]
BATCH = 256  # samples that are asked together, if no single request has more
WAITING = 4096  # samples that may wait for it; more are not asked


@dataclass(eq=False)
class _Asked:
    """Rows of one request; nobody waits for them any more once `answer` is done."""

    samples: list[Sample]
    answer: "asyncio.Future[Sequence[Verdict] | str]"

    def settle(self, found: Sequence[Verdict] | str) -> None:
        """From the asking thread: an answer, or why there is none."""
        with suppress(RuntimeError):  # the server has stopped
            self.answer.get_loop().call_soon_threadsafe(self._resolve, found)

    def _resolve(self, found: Sequence[Verdict] | str) -> None:
        if not self.answer.done():
            self.answer.set_result(found)


class SecondJudge:
    """Decides what the student has judged, by a cascade.

    Args:
        ask: asks the second judge and raises PiarError where it cannot be asked; None where there is none.
        seconds: that a request waits for its answer.
    """

    def __init__(self, cascade: Cascade, ask: Ask | None, task: Task, seconds: float, meters: Meters) -> None:
        self.cascade = cascade
        self._ask, self._task, self._seconds, self._meters = ask, task, seconds, meters
        self._waiting: deque[_Asked] = deque()
        self._since: float | None = None  # when the batch under way was sent
        self._failed = float("-inf")  # when one could not be asked
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="second judge", daemon=True)
        self._thread.start()

    async def closed(self, samples: Sequence[Mapping[str, str]], scored: Sequence[Scored]) -> list[Verdict]:
        """The verdict of who decides each sample; of judge `people`, without grade, where nobody does."""
        rows = [self._sample(fields) for fields in samples]
        name, symbols = self.cascade.tiers[0].judge, self._task.symbols
        firsts = [Verdict("", row.id, name, "", 0, one.grade, one.probs) for row, one in zip(rows, scored, strict=True)]
        handed = self.cascade.handed_on(firsts, symbols)
        seconds: Sequence[Verdict] | str = ""
        if handed and self._ask is not None:
            seconds = await self._said([rows[place] for place in handed])
        found = self.cascade.closed(firsts, handed, seconds, symbols)
        for verdict in found:
            self._meters.decided.labels(verdict.judge.partition(":")[0]).inc()
        return found

    def close(self) -> None:
        """Ask nothing more; waits for what is under way no longer than a request does."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(self._seconds)

    def _sample(self, fields: Mapping[str, str]) -> Sample:
        group = fields.get(self._task.group_by, "")
        return Sample(sample_id(group, [fields[name] for name in self._task.fields]), group, fields)

    async def _said(self, samples: list[Sample]) -> Sequence[Verdict] | str:
        name = self.cascade.tiers[1].name
        late = f"{name}: no answer within {self._seconds:g} s"
        asked = _Asked(samples, asyncio.get_running_loop().create_future())
        with self._wake:
            now = time.monotonic()
            if self._since is not None and now - self._since > self._seconds:
                return late
            if now - self._failed < self._seconds:
                return f"{name}: cannot be asked"
            if sum(len(one.samples) for one in self._waiting) + len(samples) > WAITING:
                return f"{name}: too much waits for it"
            self._waiting.append(asked)
            self._wake.notify()
        try:
            return await asyncio.wait_for(asked.answer, self._seconds)
        except TimeoutError:
            return late

    # --- the asking thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while batch := self._next():
            found = self._answers([sample for one in batch for sample in one.samples])
            for one in batch:
                if isinstance(found, str):
                    one.settle(found)
                else:
                    one.settle(found[: len(one.samples)])
                    found = found[len(one.samples) :]
            with self._wake:
                self._since = None

    def _next(self) -> list[_Asked]:
        """Requests to ask together; none to stop."""
        with self._wake:
            while True:
                chosen: list[_Asked] = []
                while self._waiting and (not chosen or _size(chosen) + len(self._waiting[0].samples) <= BATCH):
                    one = self._waiting.popleft()
                    chosen += [] if one.answer.done() else [one]
                if self._closing or chosen:
                    self._since = time.monotonic()
                    return [] if self._closing else chosen
                self._wake.wait()

    def _answers(self, samples: list[Sample]) -> Sequence[Verdict] | str:
        assert self._ask is not None
        try:
            return self._ask(samples)
        except PiarError as error:
            if not self._closing:
                log.warning("the second judge cannot be asked: %s", error)
        except Exception:
            log.exception("the second judge failed on %d samples", len(samples))
        self._failed = time.monotonic()
        return f"{self.cascade.tiers[1].name}: cannot be asked"


def _size(batch: Sequence[_Asked]) -> int:
    return sum(len(one.samples) for one in batch)
