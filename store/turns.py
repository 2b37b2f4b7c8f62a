"""Taking turns across processes, so that the same thing is not done, or paid for, twice at once.

A turn is a lock that the system lets go of when its holder dies. Who waits is next: one who lets go and wants the
turn again at once stands behind. Nobody who only reads takes a turn.
"""

import fcntl
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from store.errors import PiarError
from store.ids import short_hash

LOOK_SECONDS = 0.05  # how often a waiting process looks
PATIENCE_SECONDS = 0.5  # a wait shorter than this is not worth a word


class Turn:
    """One process's wish to be the only one, wherever others name the same file.

    Args:
        path: of the lock; made when it is taken first, and left.
        what: what is done in the turn, for people: `piar label`.
        tell: told who holds it, once, when there is a wait.
    """

    def __init__(self, path: Path, what: str, *, tell: Callable[[str], None] = warnings.warn) -> None:
        self.path, self.what, self._tell = path, what, tell
        self._fd: int | None = None
        self._told = False
        self._seen = self._last().get("turn")

    def take(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Wait until nobody else has the turn; holding it already is no wait.

        Args:
            stop: asked while waiting; to end the wait.

        Returns:
            whether another has had it since this object was made, or last had it.

        Raises:
            PiarError: the file cannot be written.
            KeyboardInterrupt: `stop` said yes.
        """
        if self._fd is not None:
            return False
        queue = self._locked(self.path.with_suffix(".next"), stop)
        try:
            self._fd = self._locked(self.path, stop)
        finally:
            os.close(queue)
        last = self._last().get("turn")
        mine = {"pid": os.getpid(), "what": self.what, "since": datetime.now().isoformat(timespec="seconds")}
        turn = short_hash([mine, time.time_ns()])
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({**mine, "turn": turn}).encode(), 0)
        others, self._seen = last != self._seen, turn
        return others

    def release(self) -> None:
        """Let the next one in."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _locked(self, path: Path, stop: Callable[[], bool]) -> int:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise PiarError(f"{path} cannot be written: {error.strerror}.", "Mend the folder's permissions.") from None
        try:
            self._wait(fd, stop)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _wait(self, fd: int, stop: Callable[[], bool]) -> None:
        began = time.monotonic()
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if stop():
                raise KeyboardInterrupt
            if not self._told and time.monotonic() - began > PATIENCE_SECONDS:
                self._told = True
                self._tell(f"Waiting for {_holder(self._last())}; what it is answered will not be asked again.")
            time.sleep(LOOK_SECONDS)

    def _last(self) -> dict[str, Any]:
        """Who had the turn last, or has it."""
        try:
            said = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Do something while nobody else who names the same file does."""
    turn = Turn(path, what)
    turn.take()
    try:
        yield
    finally:
        turn.release()


def _holder(said: dict[str, Any]) -> str:
    if not said:
        return "another process"
    return f"`{said.get('what')}` (process {said.get('pid')}, since {said.get('since')})"
