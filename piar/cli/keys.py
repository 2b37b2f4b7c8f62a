"""Single keys from a terminal, by the standard library's termios.

A key counts when it was pressed on what is shown: whatever was typed ahead, held down or pasted is dropped. Signals
never break off what is being kept: they end the next wait for a key.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

from piar.llm.interrupts import patient

# What is no character: named here, so that it cannot be taken for one.
RESIZED, PASTED, OTHER, GONE, INTERRUPTED = "<resized>", "<pasted>", "<other>", "<gone>", "<interrupted>"
UP, DOWN, BACK, ON, UNDO, ESCAPE = "<up>", "<down>", "<page up>", "<page down>", "<backspace>", "<escape>"
_SEQUENCES = {
    b"\x1b[A": UP,
    b"\x1bOA": UP,
    b"\x1b[B": DOWN,
    b"\x1bOB": DOWN,
    b"\x1b[5~": BACK,
    b"\x1b[6~": ON,
    b"\x7f": UNDO,
    b"\x08": UNDO,
    b"\x1b": ESCAPE,
    b"\x04": GONE,
}
_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"
_PASTES_MARKED, _PASTES_PLAIN = "\x1b[?2004h", "\x1b[?2004l"
_TOGETHER = 0.05  # seconds within which the bytes of one key arrive


def possible(shown: IO[str]) -> bool:
    """Whether single keys can be read here: a terminal on both sides, one that can place a cursor."""
    if sys.platform == "win32" or os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return False
    return sys.stdin is not None and sys.stdin.isatty() and shown.isatty()


class Keyboard:
    """Keys from standard input, as characters or as one of the names above. Made by `keyboard`."""

    def __init__(self, shown: IO[str], woken: int) -> None:
        self._fd = sys.stdin.fileno()
        self._shown = shown
        self._woken = woken
        self.closed = False
        self.interrupted: Callable[[], bool] = lambda: False

    def read(self) -> str:
        """Wait for one key; what comes with it is dropped."""
        data = self._bytes()
        if isinstance(data, str):
            return data
        if data.startswith(b"\x1b") or _partial(data):
            data += self._rest(data)
        if data.startswith(_PASTE_BEGINS):
            return PASTED
        if data in _SEQUENCES:
            return _SEQUENCES[data]
        text = data.decode("utf-8", "replace")
        return text[0] if text[0].isprintable() and text[0] != "\N{REPLACEMENT CHARACTER}" else OTHER

    def line(self, prompt: str) -> str | None:
        """One line with the terminal's own editing; "" for an empty one, None where the person has gone."""
        self._cooked()
        self._say(prompt)
        data = b""
        try:
            while not data.endswith(b"\n"):
                more = self._bytes()
                if more in (GONE, INTERRUPTED):
                    return None
                if isinstance(more, bytes):
                    data += more
        finally:
            self.raw()
        return " ".join(data.decode("utf-8", "replace").split())

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal as it is now, whatever the environment says.

        Raises:
            OSError: the terminal was closed.
        """
        size = os.get_terminal_size(self._shown.fileno())
        return max(1, size.columns), max(1, size.lines)

    def drop(self) -> None:
        """Forget what was typed so far."""
        import termios

        with suppress(termios.error):
            termios.tcflush(self._fd, termios.TCIFLUSH)

    def raw(self) -> None:
        """Keys one by one, unseen; the signals of Ctrl-C and Ctrl-Z stay."""
        import termios
        import tty

        with suppress(termios.error):
            tty.setcbreak(self._fd)
        self._say(_PASTES_MARKED)

    def _cooked(self) -> None:
        import termios

        self._say(_PASTES_PLAIN)
        with suppress(termios.error):
            mode = termios.tcgetattr(self._fd)
            mode[3] |= termios.ICANON | termios.ECHO
            termios.tcsetattr(self._fd, termios.TCSAFLUSH, mode)

    def _bytes(self) -> bytes | str:
        """What arrives next, or the name of what ended the wait."""
        while True:
            if self.closed:
                return GONE
            if self.interrupted():
                return INTERRUPTED
            ready, _, _ = select.select([self._fd, self._woken], [], [])
            if self._woken in ready:
                if signal.SIGCONT in os.read(self._woken, 64):  # back from Ctrl-Z, where the shell had the terminal
                    self.raw()
                if not self.closed and not self.interrupted():
                    return RESIZED
                continue
            with suppress(OSError):  # the terminal was closed
                if data := os.read(self._fd, 4096):
                    return data
            return GONE

    def _rest(self, data: bytes) -> bytes:
        """The bytes that belong to the ones read, or a paste to its end."""
        rest = b""
        while (data.startswith(_PASTE_BEGINS) and _PASTE_ENDS not in data + rest) or select.select(
            [self._fd], [], [], _TOGETHER
        )[0]:
            if not (more := os.read(self._fd, 4096)):
                break
            rest += more
        return rest

    def _say(self, text: str) -> None:
        with suppress(OSError):
            self._shown.write(text)
            self._shown.flush()


@contextmanager
def keyboard(shown: IO[str]) -> Iterator[Keyboard]:
    """A keyboard as long as the block lasts; the terminal is left as it was found, however the block ends.

    Args:
        shown: where the terminal is written to.
    """
    import termios

    inner, outer = os.pipe()
    os.set_blocking(outer, False)
    keys = Keyboard(shown, inner)

    def close(number: int, frame: FrameType | None) -> None:
        keys.closed = True

    def wake(number: int, frame: FrameType | None) -> None:
        """The wait for a key ends by itself, since the signal is written to the pipe."""

    before = termios.tcgetattr(sys.stdin.fileno())
    handlers = {signal.SIGHUP: close, signal.SIGTERM: close, signal.SIGWINCH: wake, signal.SIGCONT: wake}
    with patient() as interrupted:
        keys.interrupted = interrupted
        old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        was = signal.set_wakeup_fd(outer, warn_on_full_buffer=False)
        try:
            keys.raw()
            yield keys
        finally:
            signal.set_wakeup_fd(was)
            for number, handler in old.items():
                signal.signal(number, handler)
            keys._say(_PASTES_PLAIN)
            with suppress(termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
            os.close(inner)
            os.close(outer)


def _partial(data: bytes) -> bool:
    """Whether a character of several bytes has not arrived whole."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False
