"""Any OpenAI-compatible endpoint, as fast as it allows; every request ends as an answer or an explained failure."""

import asyncio
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from piar.llm.base import Completion, Failure, OnCompletion, Request
from piar.llm.cost import Price
from piar.llm.interrupts import patient
from piar.llm.openai.asking import Asker, Manners, Notice
from piar.llm.openai.gate import Gate
from piar.llm.openai.transports import Endpoint
from store.ids import short_hash

INTERRUPT_SECONDS = 0.2  # how soon an interrupt is noticed while nothing arrives


def answers_as(name: str, manners: Manners) -> str:
    """The name under which a model's answers are kept. What shapes them is part of it, for it enters request keys."""
    shape = {**manners.wire.shaping, **manners.extra, **({} if manners.structured else {"structured": False})}
    return f"{manners.wire.prefix}:{name}" + (f"#{short_hash(shape, 6)}" if shape else "")


class OpenAIClient:
    """A `Client` over HTTP.

    The event loop runs in a thread of its own, and answers come to the caller's thread through a queue:
    making them durable there never holds up asking, and a notebook's own loop is not in the way.

    Args:
        name: the model as the endpoint knows it.
        endpoint: where to ask, with the key itself (from the environment).
        notice: told, once each, what the endpoint cannot do; called from the caller's thread.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        manners: Manners | None = None,
        price: Price | None = None,
        notice: Notice = warnings.warn,
    ) -> None:
        manners = manners or Manners()
        self.price = price or Price()
        self._model = answers_as(name, manners)
        self.template = manners.wire.template
        self._notice = notice
        self._asker = Asker(name, self._model, endpoint, manners, self.price)
        self._one_batch = threading.Lock()

    @property
    def model(self) -> str:
        """`openai:NAME`, or `decisions:NAME`."""
        return self._model

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """See `Client.generate`. One batch at a time; a second caller waits.

        When `on_completion` raises, nothing more is asked, what is in flight is still passed to it, and then the
        error comes through: an answer that is paid for may find room where the one before it did not.
        """
        answers: dict[int, Completion] = {}
        broken: Exception | None = None
        with self._one_batch, patient() as interrupted, _Batch(self._asker, requests) as batch:
            for item in batch.items(interrupted):
                if isinstance(item, str):
                    self._notice(item)
                    continue
                position, completion = item
                answers[position] = completion
                if on_completion is not None and completion.attempts:
                    try:
                        on_completion(completion)
                    except Exception as error:
                        broken = broken or error
                        batch.halt("nothing more is asked")
        if broken is not None:
            raise broken
        if any(map(_is_dropped, answers.values())):
            raise KeyboardInterrupt
        return [answers[position] for position in range(len(requests))]


# What the asking thread tells the caller's thread: an answer with its position, or a notice.
_Item = tuple[int, Completion] | str


class _Batch:
    """One batch being asked in a thread of its own; leaving with an exception abandons what is in flight."""

    def __init__(self, asker: Asker, requests: Sequence[Request]) -> None:
        self._inbox: queue.SimpleQueue[_Item | BaseException | None] = queue.SimpleQueue()
        self._asker, self._requests = asker, requests
        self._gate = Gate(asker.pacer)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="piar-asking", daemon=True)

    def items(self, interrupted: Callable[[], bool]) -> Iterator[_Item]:
        """What arrives until the last answer; from an interrupt on, nothing more is asked."""
        halted = False
        while True:
            if interrupted() and not halted:
                halted = True
                yield "Finishing what is in flight; Ctrl-C again to stop at once."
                self.halt("interrupted before it was asked")
            try:
                item = self._inbox.get(timeout=INTERRUPT_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def halt(self, words: str) -> None:
        """Ask nothing more; what is in flight still arrives."""
        self._tell(self._gate.halt, Failure("cancelled", words))

    def __enter__(self) -> "_Batch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._tell(self._abandon)
        self._thread.join()

    def _tell(self, callback: Callable[..., object], *values: object) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(callback, *values)

    def _abandon(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._ask())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._inbox.put(error)
        self._inbox.put(None)

    async def _ask(self) -> None:
        put = self._inbox.put
        await self._asker.run(self._requests, self._gate, lambda at, completion: put((at, completion)), put)


def _is_dropped(completion: Completion) -> bool:
    return completion.failure is not None and completion.failure.kind == "cancelled"
