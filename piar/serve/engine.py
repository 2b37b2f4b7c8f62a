"""One thread owns the model: it judges what waits in small batches, and between two batches writes traces on.

A batch forms while the one before it runs; nothing ever waits for company. Grades go first: a trace
being written gives way after every token.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from piar.serve.meters import Meters
from piar.serve.settings import ServeSettings
from piar.serve.shadow import Shadow
from trainers.session import TooLong
from trainers.students import AnySession

if TYPE_CHECKING:
    from store.trace import Parsed
    from trainers.layout import Tokens
    from trainers.scoring import Scored
    from trainers.session import Writing
    from trainers.students import AnyStudent

log = logging.getLogger(__name__)
Sample = Mapping[str, str]
T = TypeVar("T")


class Busy(Exception):
    """Too much waits already; `retry_after` is the seconds after which it should have been worked off."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"busy for about {retry_after} s")
        self.retry_after = retry_after


class Failed(Exception):
    """The model raised an error; the log has it."""

    def __init__(self) -> None:
        super().__init__("the model failed on this request; the server's log says why")


class TooMuch(Exception):
    """The samples of one request have more tokens than the asker wants to have read."""


class Unfit(Exception):
    """A sample that the student cannot read: its place in the request, and why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


@dataclass(frozen=True, slots=True)
class Judged:
    """The answer to one request: an opinion of each sample, in the order asked.

    Attributes:
        tokens: of all prompts.
        cached: of these, how many are kept ready, because all prompts begin with them.
    """

    scored: "list[Scored]"
    tokens: int
    cached: int


@dataclass(eq=False)
class _Asked:
    """Samples of one request, judged in as many batches as it takes."""

    samples: Sequence[Sample]
    most: int | None
    cut: bool
    answer: "asyncio.Future[Judged]"
    since: float
    session: AnySession | None = None  # all of a request is judged by the student that read it
    prompts: "list[Tokens]" = field(default_factory=list)
    found: "list[Scored]" = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.samples) - len(self.found)


class Explanation:
    """An answer under way: the grade is known, its trace is being written."""

    def __init__(self, sample: Sample, loop: asyncio.AbstractEventLoop) -> None:
        self.sample, self.since = sample, time.perf_counter()
        self.begun: asyncio.Future[Scored] = loop.create_future()
        self.cancelled = False
        self.writing: Writing | None = None
        self._loop = loop
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()

    async def texts(self) -> AsyncIterator[str]:
        """What follows the grade, piece by piece."""
        while (text := await self._texts.get()) is not None:
            yield text

    @property
    def parsed(self) -> "Parsed":
        """The whole answer, read as a trace."""
        assert self.writing is not None
        return self.writing.parsed

    @property
    def agrees(self) -> bool | None:
        """Whether the trace's verdict is the grade; None where it says none."""
        assert self.writing is not None
        return self.writing.agrees

    @property
    def text(self) -> str:
        """The answer so far."""
        assert self.writing is not None
        return self.writing.text

    def put(self, text: str | None) -> None:
        """From the model's thread: more text, or None at the end."""
        self._loop.call_soon_threadsafe(self._texts.put_nowait, text)


class Engine:
    """Answers with one student, from any number of requests at once.

    Args:
        session: the student; only the engine's own thread touches it.
        shadow: judges after it, while nothing else is to be done.
    """

    def __init__(
        self, session: AnySession, settings: ServeSettings, meters: Meters, shadow: Shadow | None = None
    ) -> None:
        self._session, self._settings, self._meters, self._shadow = session, settings, meters, shadow
        self._asked: deque[_Asked] = deque()
        self._to_explain: deque[Explanation] = deque()
        self._explaining: list[Explanation] = []
        self._waiting = 0
        self._seconds_a_sample = 0.01
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Samples that wait for the model."""
        return self._waiting

    @property
    def student(self) -> "AnyStudent":
        """Who answers requests that come now."""
        return self._session.student

    @property
    def explains(self) -> bool:
        """Whether there are traces to write."""
        return self._session.explains

    def replace(self, session: AnySession) -> None:
        """Let another student answer what comes from now on; what was begun is finished by the one that began it."""
        with self._wake:
            self._session = session

    async def score(self, samples: Sequence[Sample], most: int | None = None, *, cut: bool = False) -> Judged:
        """Judge samples, in the order given.

        Args:
            most: tokens that they may have, beside those that all prompts begin with.
            cut: shorten the longest field of a sample that is too long.

        Raises:
            Busy: too many wait already.
            Unfit: a sample is too long for the model.
            TooMuch: they have more tokens.
            Failed: the model raised an error.
        """
        loop = asyncio.get_running_loop()
        asked = _Asked(samples, most, cut, loop.create_future(), time.perf_counter())
        with self._wake:
            if self._waiting + len(samples) > self._settings.waiting and self._waiting:
                raise Busy(max(1, math.ceil(self._waiting * self._seconds_a_sample)))
            self._waiting += len(samples)
            self._meters.waiting.set(self._waiting)
            self._asked.append(asked)
            self._wake.notify()
        return await asked.answer

    async def explain(self, sample: Sample) -> Explanation:
        """Judge one sample and begin to write its trace; returns when the grade is known.

        Raises:
            Busy: too many traces are being written already.
            Unfit: the sample is too long for the model, or the student writes no traces.
        """
        explanation = Explanation(sample, asyncio.get_running_loop())
        with self._wake:
            if len(self._to_explain) + len(self._explaining) >= self._settings.explaining:
                raise Busy(1)
            self._to_explain.append(explanation)
            self._wake.notify()
        try:
            await explanation.begun
        except asyncio.CancelledError:
            explanation.cancelled = True
            raise
        return explanation

    def close(self) -> None:
        """Stop the thread after the batch under way."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    # --- the model's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        while (work := self._next()) is not None:
            batch, begin = work
            if batch:
                self._guarded(partial(self._score, batch), batch)
            if begin is not None:
                self._guarded(partial(self._begin, begin), [begin])
            for explanation in list(self._explaining):
                self._guarded(partial(self._write, explanation), [explanation])
            if self._shadow and not (self._asked or self._to_explain or self._explaining):
                self._shadow.step()

    def _next(self) -> tuple[list[_Asked], Explanation | None] | None:
        """What to do now, or None to stop: requests of the next batch, and an explanation to begin."""
        with self._wake:
            while not (self._asked or self._to_explain or self._explaining or self._closing or self._shadow):
                self._wake.wait()
            if self._closing:
                return None
            chosen: list[_Asked] = []
            room = self._settings.batch
            while room > 0 and len(chosen) < len(self._asked):
                chosen.append(self._asked[0])
                room -= self._asked[0].left
                self._asked.rotate(-1)  # who is not done waits for those who came meanwhile
            return chosen, self._to_explain.popleft() if self._to_explain else None

    def _guarded(self, act: Callable[[], None], on: "Sequence[_Asked | Explanation]") -> None:
        """A fault of one batch fails that batch, never the server."""
        try:
            act()
        except Unfit as unfit:  # of an explanation, which is begun alone
            for one in on:
                self._fail(one, unfit)
        except Exception:
            log.exception("the model failed")
            for one in on:
                self._fail(one, Failed())

    def _score(self, chosen: list[_Asked]) -> None:
        started = time.perf_counter()
        shares = self._shares([asked for asked in chosen if self._read(asked)])
        size = sum(n for _, n in shares)
        for session in dict.fromkeys(asked.session for asked, _ in shares):  # two while one takes over from another
            assert session is not None
            theirs = [(asked, n) for asked, n in shares if asked.session is session]
            scored = session.score(
                [p for asked, n in theirs for p in asked.prompts[len(asked.found) : len(asked.found) + n]]
            )
            for asked, n in theirs:
                self._settle(asked, scored[:n])
                del scored[:n]
        if size:
            self._meters.batch.observe(size)
            self._seconds_a_sample += 0.1 * ((time.perf_counter() - started) / size - self._seconds_a_sample)

    def _read(self, asked: _Asked) -> bool:
        """Make the prompts of a request, once; False, and it is answered, if they cannot be judged or nobody waits."""
        if asked.answer.cancelled():  # its client has left
            self._forget(asked, asked.left, whole=True)
            return False
        if asked.session is not None:
            return True
        asked.session = session = self._session
        read = session.student.fitting if asked.cut else session.prompts
        for i, prompt in enumerate(read(asked.samples)):
            if isinstance(prompt, TooLong):
                self._fail(asked, Unfit(i, _too_long(prompt)))
                return False
            asked.prompts.append(prompt)
        own = sum(map(len, asked.prompts)) - len(asked.prompts) * len(session.root)
        if asked.most is not None and own > asked.most:
            words = f"the samples have {own:,} tokens together; this server reads {asked.most:,} for one request"
            self._fail(asked, TooMuch(words))
            return False
        return True

    def _shares(self, chosen: list[_Asked]) -> list[tuple[_Asked, int]]:
        room, shares = self._settings.batch, []
        for asked in chosen:
            shares.append((asked, min(room, asked.left)))
            room -= shares[-1][1]
        return shares

    def _settle(self, asked: _Asked, found: "list[Scored]") -> None:
        """Take in what a batch found for a request; the last part answers it."""
        asked.found += found
        self._forget(asked, len(found), whole=not asked.left)
        if not asked.left:
            self._meters.judged(asked.found, time.perf_counter() - asked.since)
            if self._shadow is not None:
                self._shadow.add(asked.samples, asked.found)
            cached = len(asked.prompts) * len(asked.session.root) if asked.session else 0
            _resolve(asked.answer, Judged(asked.found, sum(map(len, asked.prompts)), cached))

    def _fail(self, one: "_Asked | Explanation", error: Exception) -> None:
        if isinstance(one, _Asked):
            if one in self._asked:  # and not answered already
                self._forget(one, one.left, whole=True)
                _reject(one.answer, error)
        else:
            if one in self._explaining:
                self._explaining.remove(one)
            _reject(one.begun, error)
            one.put(None)

    def _forget(self, asked: _Asked, judged: int, *, whole: bool) -> None:
        with self._wake:
            self._waiting -= judged
            self._meters.waiting.set(self._waiting)
            if whole and asked in self._asked:
                self._asked.remove(asked)

    def _begin(self, explanation: Explanation) -> None:
        if explanation.cancelled:
            return
        writing = self._session.begin(explanation.sample)
        if isinstance(writing, TooLong):
            raise Unfit(0, _too_long(writing))
        explanation.writing, scored = writing, writing.scored
        self._meters.judged([scored], time.perf_counter() - explanation.since)
        if self._shadow is not None:
            self._shadow.add([explanation.sample], [scored])
        self._explaining.append(explanation)
        _resolve(explanation.begun, scored)

    def _write(self, explanation: Explanation) -> None:
        writing = explanation.writing
        assert writing is not None
        if not explanation.cancelled and (text := writing.step()):
            explanation.put(text)
        if writing.done or explanation.cancelled:
            self._explaining.remove(explanation)
            if writing.done:  # counted before its reader knows of the end
                self._meters.explained(explanation.agrees, time.perf_counter() - explanation.since)
            explanation.put(None)


def _too_long(one: TooLong) -> str:
    return f"the sample makes a prompt of {one.tokens:,} tokens; {one.reader} reads {one.most:,}"


def _resolve(future: asyncio.Future[T], value: T) -> None:
    future.get_loop().call_soon_threadsafe(lambda: None if future.done() else future.set_result(value))


def _reject(future: asyncio.Future[Any], error: Exception) -> None:
    future.get_loop().call_soon_threadsafe(lambda: None if future.done() else future.set_exception(error))
