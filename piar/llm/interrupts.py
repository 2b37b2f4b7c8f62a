"""Ctrl-C with patience: the first lets what is in flight arrive and be kept, the second stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


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
    thread, with no outer use), it never has been.
    """
    current = signal.getsignal(signal.SIGINT)
    if isinstance(current, _Patience):
        yield lambda: current.pressed
    elif threading.current_thread() is not threading.main_thread():
        yield lambda: False
    else:
        handler = _Patience()
        signal.signal(signal.SIGINT, handler)
        try:
            yield lambda: handler.pressed
        finally:
            signal.signal(signal.SIGINT, current)
