"""Any OpenAI-compatible endpoint, as fast as it allows; every request ends as an answer or an explained failure."""

import asyncio
import queue
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from piar.llm.asking import Asker, Manners, Notice
from piar.llm.base import Completion, Failure, OnCompletion, Request
from piar.llm.cost import Price
from piar.llm.gate import Gate
from piar.llm.transports import Endpoint
from store.ids import short_hash

_DROPPED = Failure("cancelled", "interrupted before it was asked")


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
        # Extra parameters shape answers, so they are part of the name that enters request keys.
        self._model = f"openai:{name}" + (f"#{short_hash(dict(manners.extra), 6)}" if manners.extra else "")
        self._notice = notice
        self._asker = Asker(name, self._model, endpoint, manners, self.price)
        self._one_batch = threading.Lock()

    @property
    def model(self) -> str:
        """`openai:NAME`."""
        return self._model

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """See `Client.generate`. One batch at a time; a second caller waits.

        Raises:
            KeyboardInterrupt: after Ctrl-C, when all that was in flight has come back and been passed to
                `on_completion`. Requests not yet asked are dropped. A second Ctrl-C raises at once.
        """
        answers: dict[int, Completion] = {}
        interrupts: list[int] = []
        with self._one_batch, _Batch(self._asker, requests) as batch, _on_interrupt(batch.inbox, interrupts):
            while (item := batch.inbox.get()) is not None:
                match item:
                    case str():
                        self._notice(item)
                    case int():
                        batch.halt(_DROPPED)
                        self._notice("Finishing what is in flight; Ctrl-C again to stop at once.")
                    case BaseException():
                        raise item
                    case position, completion:
                        answers[position] = completion
                        if on_completion is not None and completion.failure is not _DROPPED:
                            on_completion(completion)
        if interrupts:
            raise KeyboardInterrupt
        return [answers[position] for position in range(len(requests))]


# What the asking thread (and the signal handler) tell the caller's thread: an answer with its position, a notice,
# a signal, a bug to raise, or None at the end.
_Item = tuple[int, Completion] | str | int | BaseException | None


class _Batch:
    """One batch being asked in a thread of its own; leaving with an exception abandons what is in flight."""

    def __init__(self, asker: Asker, requests: Sequence[Request]) -> None:
        self.inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._asker, self._requests = asker, requests
        self._gate = Gate(asker.pacer)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="piar-asking", daemon=True)

    def halt(self, failure: Failure) -> None:
        """Ask nothing more; what is in flight still comes back."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._gate.halt, failure)

    def __enter__(self) -> "_Batch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._abandon)
        self._thread.join()

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
            self.inbox.put(error)
        self.inbox.put(None)

    async def _ask(self) -> None:
        put = self.inbox.put
        await self._asker.run(self._requests, self._gate, lambda at, completion: put((at, completion)), put)


@contextmanager
def _on_interrupt(inbox: "queue.SimpleQueue[_Item]", seen: list[int]) -> Iterator[None]:
    """Let the first Ctrl-C tell the inbox and the second raise; only in the main thread, where Python allows it."""
    handler: Callable[[int, FrameType | None], object] | int | None = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        inbox.put(number)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
