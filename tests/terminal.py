"""A terminal made of a pseudo-terminal: what a program draws, and keys pressed when it has drawn something."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

Step = tuple[str, str | Callable[[], None]]  # once this is drawn: press these keys, or do this
_PATIENCE = 20.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """Both ends; `drawn` is everything that was written so far, `text` the same without colours."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self._ours, self._theirs = pty.openpty()
        self.size(rows, columns)
        self.stdin: TextIO = os.fdopen(os.dup(self._theirs), "r", encoding="utf-8")
        self.stderr: TextIO = io.TextIOWrapper(
            io.FileIO(os.dup(self._theirs), "w"), encoding="utf-8", write_through=True
        )
        self.drawn = ""
        self.missed: list[str] = []
        self._done = False

    def size(self, rows: int, columns: int) -> None:
        """Resize it."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def text(self) -> str:
        """What was drawn, without colours."""
        return _COLOUR.sub("", self.drawn)

    @property
    def modes(self) -> list[object]:
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self._theirs)

    @contextmanager
    def played(self, steps: Sequence[Step]) -> Iterator[None]:
        """Beside the block: wait until each text is drawn after the one before, then press or do what stands there."""
        thread = threading.Thread(target=self._play, args=(steps,))
        thread.start()
        try:
            yield
        finally:
            self._done = True
            thread.join()

    def close(self) -> None:
        """Give everything back."""
        self.stdin.close()
        self.stderr.close()
        os.close(self._theirs)
        os.close(self._ours)

    def _play(self, steps: Sequence[Step]) -> None:
        at = 0
        for wanted, act in steps:
            found = self._wait(wanted, at)
            if found < 0:
                self.missed.append(wanted)
                os.write(self._ours, b"\x04")  # let the program end
                break
            at = found + len(wanted)
            if callable(act):
                act()
            else:
                os.write(self._ours, act.encode())
        while not self._done:
            self._look()

    def _wait(self, wanted: str, at: int) -> int:
        end = time.monotonic() + _PATIENCE
        while (found := self.text.find(wanted, at)) < 0 and time.monotonic() < end and not self._done:
            self._look()
        return found

    def _look(self) -> None:
        if not self._done and select.select([self._ours], [], [], 0.02)[0]:
            self.drawn += os.read(self._ours, 65536).decode("utf-8", "replace")
