"""A second student that judges what the live one answered, when nothing else waits; where they differ is kept.

Only the model's thread touches it. It never delays an answer by more than one of its own small batches.
"""

import json
import logging
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from piar.serve.meters import Meters
from trainers.session import TooLong
from trainers.students import AnySession

if TYPE_CHECKING:
    from trainers.scoring import Scored

log = logging.getLogger(__name__)
BATCH = 8  # samples that it judges before it looks for requests again
SAID = "said_by_students"
WAITING = 4096  # samples that wait for it; more are left out, and counted


class Shadow:
    """Judges after the live student.

    Args:
        session: the other student; its task has the fields and grades of the live one's.
        path: a JSONL file for its owner alone; each line a sample, and under `SAID` both grades and distributions.
    """

    def __init__(self, session: AnySession, path: Path, meters: Meters) -> None:
        self._session, self._path, self._meters = session, path, meters
        self._waiting: deque[tuple[Mapping[str, str], Scored]] = deque()
        self._told: set[str] = set()  # written already, of late

    def __bool__(self) -> bool:
        """Whether samples wait for it."""
        return bool(self._waiting)

    def add(self, samples: Sequence[Mapping[str, str]], answered: "Sequence[Scored]") -> None:
        """Take samples that the live student judged."""
        room = WAITING - len(self._waiting)
        self._waiting.extend(zip(samples[:room], answered[:room], strict=True))
        self._count("left out", len(samples[room:]))

    def step(self) -> None:
        """Judge a few, and write down those that get another grade; a fault leaves these out."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        try:
            prompts = self._session.prompts([sample for sample, _ in batch])
            read = [(*one, p) for one, p in zip(batch, prompts, strict=True) if not isinstance(p, TooLong)]
            scored = self._session.score([prompt for *_, prompt in read]) if read else []
            differing = [
                (sample, live, other)
                for (sample, live, _), other in zip(read, scored, strict=True)
                if other.grade != live.grade
            ]
            self._write(differing)
        except Exception:
            log.exception("the shadow failed on %d samples", len(batch))
            self._count("left out", len(batch))
            return
        self._count("left out", len(batch) - len(read))
        self._count("differs", len(differing))
        self._count("agrees", len(read) - len(differing))

    def _write(self, differing: "Sequence[tuple[Mapping[str, str], Scored, Scored]]") -> None:
        lines: dict[str, str] = {}
        for sample, live, other in differing:
            said = {who: {"grade": one.grade, "probs": one.probs} for who, one in (("live", live), ("shadow", other))}
            if (key := json.dumps([sample, live.grade, other.grade])) not in self._told:
                # in an object of its own, which an import takes for no grade that somebody gave
                told = {**sample, SAID: {**said, "at": round(time.time(), 3)}}
                lines[key] = json.dumps(told, ensure_ascii=False) + "\n"
        if not lines:
            return
        self._told = {*(self._told if len(self._told) < WAITING else ()), *lines}
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(self._path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write("".join(lines.values()))

    def _count(self, outcome: str, n: int) -> None:
        if n:
            self._meters.shadowed.labels(outcome).inc(n)
