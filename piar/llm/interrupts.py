"""Ctrl-C with patience: the first lets what is in flight arrive and be kept, the second stops at once.

A thread, to which Python delivers no signals, is told to stop at once by `ended_by`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

_ENDS: ContextVar[Callable[[], bool]] = ContextVar("_ENDS", default=lambda: False)


@contextmanager
def ended_by(ends: Callable[[], bool]) -> Iterator[None]:
    """What this thread asks within is given up, with KeyboardInterrupt, soon after `ends` says so."""
    token = _ENDS.set(ends)
    try:
        yield
    finally:
        _ENDS.reset(token)


class _Patience:
    """A signal handler that remembers the first Ctrl-C and raises on the second."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True


@contextmanager
def patient() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C has been pressed.

    Nested uses, from any thread, share the outermost. Where Python delivers no signals (outside the main
    thread, with no outer use), it never has been; the function raises KeyboardInterrupt where `ended_by` says so.
    """
    current = signal.getsignal(signal.SIGINT)
    if isinstance(current, _Patience):
        yield lambda: current.pressed
    elif threading.current_thread() is not threading.main_thread():
        yield _raise_at_the_end
    else:
        handler = _Patience()
        signal.signal(signal.SIGINT, handler)
        try:
            yield lambda: handler.pressed
        finally:
            signal.signal(signal.SIGINT, current)


def _raise_at_the_end() -> bool:
    if _ENDS.get()():
        raise KeyboardInterrupt
    return False
