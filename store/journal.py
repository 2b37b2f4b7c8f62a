"""The journal: answers that cost money are on disk before they count, and reach the store in batches.

Each process appends JSON lines to a segment of its own and holds a lock on it while it lives. `fold`
loads segments into DuckDB and commits how far it read in the same transaction as the rows, so a
process killed at any instant loses nothing that arrived and doubles nothing. A segment is removed when
its writer is gone and all of it is committed.
"""

import fcntl
import json
import logging
import os
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

import duckdb
import pyarrow as pa
from pydantic_core import from_json, to_json

from store.db import Store
from store.errors import PiarError
from store.rows import COMPLETIONS, VERDICTS, completion_row, table
from store.types import Completion, Verdict

FOLD_ROWS = 10_000
FOLD_SECONDS = 5.0
SYNC_SECONDS = 0.2
SEGMENT_BYTES = 64 << 20
ROOM_BYTES = 4 << 20  # kept free on the disk while answers are under way, for those to be written
_CHUNK = 16 << 20
_SEGMENT = re.compile(r"\d{20}-\d+-[0-9a-f]{6}\.jsonl")  # as `_new_segment` names them; all else is somebody's
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What reading a damaged line may raise; Arrow's exceptions are among them.
_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_Rows = tuple[tuple[Any, ...], tuple[Any, ...] | None]
_log = logging.getLogger(__name__)


class Journal:
    """The journal folder of one project, as one process sees it. Safe to use from several threads.

    Args:
        folder: where the segments lie; made when the first answer is appended.

    Raises:
        PiarError: the folder is a link.

    Attributes:
        corrupt: lines that could not be read so far; each was copied to a `.corrupt` file beside its segment.
    """

    def __init__(self, folder: Path) -> None:
        _refuse_link(folder)
        self.folder = folder
        self.corrupt = 0
        self._lock = threading.RLock()
        self._fd: int | None = None
        self._size = 0
        self._synced_at = 0.0
        self._folded_at = time.monotonic()
        self._unfolded = 0
        self._room: IO[bytes] | None = None

    # -- appending --------------------------------------------------------------------------

    @contextmanager
    def room(self) -> Iterator[None]:
        """Keep some of the disk free within: what arrives when the disk is full is written all the same.

        Raises:
            PiarError: the disk has not even that much, or refuses; better before anything is paid for than after.
        """
        with ExitStack() as held:
            with _disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                # Without a name: nothing is left of it after a kill.
                room = held.enter_context(tempfile.TemporaryFile(dir=self.folder))
                os.posix_fallocate(room.fileno(), 0, ROOM_BYTES)
            self._room = room
            try:
                yield
            finally:
                self._room = None

    def append(self, role: str, run_id: str, completion: Completion, verdict: Verdict | None) -> None:
        """Keep one answer. When this returns, the answer survives the death of the process.

        The disk itself is synced in groups, at most `SYNC_SECONDS` apart, and by `sync` and `close`.

        Raises:
            PiarError: the disk is full or refuses; everything appended earlier is kept, and within `room` this
                answer, too, as long as that lasts.
        """
        line = _encode(role, run_id, completion, verdict)
        with self._lock:
            try:
                self._write(line)
            except PiarError:
                if self._room is None:
                    raise
                self._room.truncate(0)
                self._write(line)
                self.sync()
                raise
            self._unfolded += 1
            if time.monotonic() - self._synced_at > SYNC_SECONDS:
                self.sync()
            if self._size >= SEGMENT_BYTES:
                self._close_segment()

    def sync(self) -> None:
        """Return when everything appended so far is on the disk."""
        with self._lock:
            if self._fd is not None:
                with _disk_errors(self.folder):
                    os.fdatasync(self._fd)
            self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and let go of the segment; a later `append` begins another."""
        with self._lock:
            self._close_segment()

    def _write(self, line: bytes) -> None:
        with _disk_errors(self.folder):
            if self._fd is None:
                self._fd, self._size = _new_segment(self.folder), 0
            done = 0
            try:
                while done < len(line):
                    done += os.write(self._fd, line[done:])
            except OSError:
                self._forget_partial_line(done)
                raise
        self._size += len(line)

    def _forget_partial_line(self, written: int) -> None:
        """Cut a half-written line off, or leave the segment if even that fails, so that no later line joins it."""
        assert self._fd is not None
        try:
            if written:
                os.ftruncate(self._fd, self._size)
        except OSError:
            os.close(self._fd)
            self._fd = None

    def _close_segment(self) -> None:
        if self._fd is not None:
            self.sync()
            os.close(self._fd)
            self._fd = None

    # -- folding ----------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether enough has been appended here (`FOLD_ROWS`), or long enough ago (`FOLD_SECONDS`), to fold."""
        waited = time.monotonic() - self._folded_at
        return self._unfolded >= FOLD_ROWS or (self._unfolded > 0 and waited >= FOLD_SECONDS)

    def fold(self, store: Store) -> int:
        """Load what all segments hold into `completions` and `verdicts`; returns how many answers were new there.

        Raises:
            PiarError: the store is held by another process, or the disk is full; nothing is lost, fold again later.
        """
        if store.held:
            raise RuntimeError("fold() inside read() or write(): its commits would not be commits")
        with self._lock:
            self._unfolded = 0
        segments = _segments(self.folder)
        with _disk_errors(self.folder):
            folded = sum(self._fold_segment(store, path) for path in segments)
        self._forget_removed(store, [path.name for path in segments if not path.exists()])
        self._folded_at = time.monotonic()
        return folded

    def _fold_segment(self, store: Store, path: Path) -> int:
        """Fold one segment batch by batch. A missing one was folded and removed by another process."""
        folded = 0
        steps = [step.name for step in store.task.steps]
        with suppress(FileNotFoundError), path.open("rb") as file:
            while True:
                alone = _try_lock(file.fileno())
                with store.write() as con:
                    if not os.fstat(file.fileno()).st_nlink:  # folded, removed and forgotten while we waited
                        break
                    offset = _offset(con, path.name)
                    batch = _read_batch(file, offset, steps, whole=alone)
                    if batch.end > offset:
                        self._set_aside(path, offset, batch.corrupt)
                        _commit_batch(store, con, path.name, batch)
                folded += batch.completions.num_rows
                if batch.end <= offset:
                    break
            if alone:
                path.unlink(missing_ok=True)
        return folded

    def _forget_removed(self, store: Store, segments: list[str]) -> None:
        """Names are never used again, so the offset of a removed segment has no more use."""
        if segments:
            with store.write() as con:
                con.execute("delete from journal_offsets where list_contains(?, segment)", [segments])

    def _set_aside(self, path: Path, offset: int, lines: list[bytes]) -> None:
        if not lines:
            return
        aside = path.with_name(f"{path.stem}-{offset}.corrupt")
        aside.write_bytes(b"\n".join(lines) + b"\n")
        self.corrupt += len(lines)
        _log.warning("%d unreadable journal lines were set aside in %s", len(lines), aside.name)


def waiting(folder: Path, store: Store) -> Iterator[tuple[Any, ...]]:
    """Rows of `verdicts` in a journal folder that no `fold` has brought there yet; nothing is changed.

    Lines that cannot be read are passed over.

    Raises:
        PiarError: as `Journal`.
    """
    _refuse_link(folder)
    steps = [step.name for step in store.task.steps]
    for path in _segments(folder):
        with store.read() as con:
            offset = _offset(con, path.name)
        with suppress(FileNotFoundError), path.open("rb") as file:
            while True:
                lines, end = _lines(file, offset, whole=False)
                for line in lines:
                    with suppress(*_DAMAGE):
                        if verdict := _decode(line, steps)[1]:
                            yield verdict
                if end <= offset:
                    break
                offset = end


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise PiarError(
            f"{folder} is a link: answers are kept in the project itself, and its segments are removed once read.",
            "Delete the link, and move back the folder that it led to if it holds answers.",
        )


def _segments(folder: Path) -> list[Path]:
    """What has another name, or is a link, a pipe or a folder, no process of ours has made."""
    found = (p for p in folder.glob("*.jsonl") if _SEGMENT.fullmatch(p.name))
    return sorted(p for p in found if p.is_file() and not p.is_symlink())


@dataclass(frozen=True, slots=True)
class _Batch:
    """A stretch of a segment that ends at byte `end`."""

    completions: pa.Table
    verdicts: pa.Table
    corrupt: list[bytes]
    end: int


def _new_segment(folder: Path) -> int:
    """Open a segment and lock it. A fold may remove it between the two steps, while it looks abandoned: then again."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / f"{time.time_ns():020d}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _try_lock(fd: int) -> bool:
    """Whether nobody writes to this segment any more."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PiarError(
            f"The journal in {folder} cannot be written or read: {error.strerror}.",
            "Free some space or mend the permissions, then run the same command again: answers kept so far are safe.",
        ) from None


# -- lines ----------------------------------------------------------------------------------


def _encode(role: str, run_id: str, completion: Completion, verdict: Verdict | None) -> bytes:
    answer = completion_row(completion, role, run_id)
    record = {"at": time.time_ns() // 1000, "answer": answer, "verdict": verdict and _verdict_json(verdict)}
    try:
        return to_json(record) + b"\n"
    except ValueError:  # half a surrogate pair, which no file can hold
        return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _verdict_json(v: Verdict) -> dict[str, Any]:
    trace = v.trace and [v.trace.evidence, dict(v.trace.steps), v.trace.rules, v.trace.verdict]
    head = [v.key, v.sample_id, v.judge, v.instruction, v.vote, v.grade, v.probs]
    return {"head": head, "trace": trace, "failure": v.failure}


def _decode(line: bytes, steps: list[str]) -> _Rows:
    """The rows of `completions` and `verdicts` in a line.

    Raises:
        one of `_DAMAGE`: not a line of ours, or a damaged one.
    """
    record = from_json(line)
    at = datetime.fromtimestamp(record["at"] / 1e6, UTC).replace(tzinfo=None)
    answer = (*record["answer"], at)
    if len(answer) != len(COMPLETIONS) or None in answer[:4] or None in answer[7:]:
        raise ValueError("not an answer")
    return answer, record["verdict"] and _verdict_row(record["verdict"], steps, answer[2], at)


def _verdict_row(verdict: dict[str, Any], steps: list[str], run_id: str, at: datetime) -> tuple[Any, ...]:
    key, sample_id, judge, instruction, vote, grade, probs = verdict["head"]
    if not _UUID.fullmatch(sample_id) or None in (key, judge, instruction, vote):
        raise ValueError("not a verdict")
    evidence, said, rules, closing = verdict["trace"] or (None, None, None, None)
    said = None if said is None else [said.get(name, "") for name in steps]
    head = (key, sample_id, judge, instruction, vote, grade, probs)
    return (*head, evidence, said, rules, closing, verdict["failure"], run_id, at)


def _lines(file: BinaryIO, offset: int, *, whole: bool) -> tuple[list[bytes], int]:
    """At most `FOLD_ROWS` lines from `offset` on, and where they end; with `whole`, a torn last line counts as one."""
    file.seek(offset)
    data = file.read(_CHUNK)
    while data and b"\n" not in data and (more := file.read(_CHUNK)):
        data += more
    lines = data.split(b"\n", FOLD_ROWS)
    tail = lines.pop()
    end = offset + len(data) - len(tail)
    if whole and tail and len(lines) < FOLD_ROWS and not file.read(1):
        return [*lines, tail], end + len(tail)
    return lines, end


def _read_batch(file: BinaryIO, offset: int, steps: list[str], *, whole: bool) -> _Batch:
    lines, end = _lines(file, offset, whole=whole)
    decoded: list[tuple[bytes, _Rows]] = []
    corrupt: list[bytes] = []
    for line in lines:
        try:
            decoded.append((line, _decode(line, steps)))
        except _DAMAGE:
            corrupt.append(line)
    try:
        return _Batch(*_tables([rows for _, rows in decoded]), corrupt, end)
    except _DAMAGE:  # some value does not fit its column: find out which, one by one
        corrupt += [line for line, rows in decoded if not _fits(rows)]
        return _Batch(*_tables([rows for _, rows in decoded if _fits(rows)]), corrupt, end)


def _tables(rows: list[_Rows]) -> tuple[pa.Table, pa.Table]:
    answers = table((answer for answer, _ in rows), COMPLETIONS)
    return answers, table((verdict for _, verdict in rows if verdict), VERDICTS)


def _fits(rows: _Rows) -> bool:
    try:
        _tables([rows])
    except _DAMAGE:
        return False
    return True


# -- the store's side -----------------------------------------------------------------------


def _offset(con: duckdb.DuckDBPyConnection, segment: str) -> int:
    rows = con.execute("select bytes from journal_offsets where segment = ?", [segment]).fetchall()
    return int(rows[0][0]) if rows else 0


def _commit_batch(store: Store, con: duckdb.DuckDBPyConnection, segment: str, batch: _Batch) -> None:
    """Insert the rows and remember how far the segment is read, in the transaction that is open."""
    store.insert("completions", batch.completions)
    store.insert("verdicts", batch.verdicts)
    con.execute("delete from journal_offsets where segment = ?", [segment])
    con.execute("insert into journal_offsets values (?, ?)", [segment, batch.end])
