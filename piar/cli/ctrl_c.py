"""Ctrl-C while a module is loading: it waits until the module is whole.

A compiled module that is stopped within turns KeyboardInterrupt into ImportError, or ends the process.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 0.05  # seconds until it is looked whether the module is whole


@contextmanager
def after_loading() -> Iterator[None]:
    """Within, Ctrl-C raises KeyboardInterrupt, but never in the midst of an import.

    A handler that somebody else has set stays, and outside the main thread nothing changes.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _loading(frame):
        raise KeyboardInterrupt
    later = threading.Timer(_AGAIN, os.kill, (os.getpid(), signal.SIGINT))
    later.daemon = True
    later.start()


def _loading(frame: FrameType | None) -> bool:
    """Whether Python's import system is at work above this frame."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
