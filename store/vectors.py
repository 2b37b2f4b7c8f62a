"""Vectors of texts, kept so that no text is embedded twice: one SQLite file for each encoder, keyed by the text's hash.

The file can be removed at any time. One that is damaged is begun anew; where none can be written, memory does.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from store.errors import PiarError

FOLDER, STATES = "embeddings", "-states.sqlite"  # of a project, and how files of a language model's states end
Vectors = npt.NDArray[np.float32]
T = TypeVar("T")
_TABLE = "create table if not exists vector (key blob primary key, value blob not null) without rowid"
_KNOWN = "create temp view known as select key, value from vector"
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}  # the last: other columns
_ASKED = 500  # keys in one query
_MADE = 256  # texts embedded between two writes


class VectorCache:
    """Vectors by text.

    Args:
        path: the file, whose name tells the encoder and all that shapes a vector; None keeps them in memory alone.
        keep: write new vectors into the file; otherwise it is only read, and memory holds the new ones.
    """

    def __init__(self, path: Path | None, *, keep: bool = True) -> None:
        self._named, self._path = path, path if keep else None
        self._con = _open(path) if keep or path is None else _open_for_reading(path)

    def vectors(
        self,
        texts: Sequence[str],
        make: Callable[[list[str]], Any],
        tell: Callable[[int, int], None] | None = None,
        each: int = _MADE,
    ) -> Vectors:
        """(N, D) vectors of texts, in the order given.

        Args:
            make: texts -> (M, D) vectors, asked once for each text that is not known.
            tell: told how many of the new texts are made, and of how many, from time to time.
            each: texts between two writes, which is what an interruption can cost.

        Raises:
            PiarError: the file was tampered with.
        """
        keys = _keys(texts)
        if not keys:
            return np.zeros((0, 0), dtype=np.float32)
        known = self._known(list(dict.fromkeys(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for number, part in enumerate(_parts(list(missing), each)):
            if tell and number:
                tell(number * each, len(missing))
            made = np.asarray(make([missing[key] for key in part]), dtype=np.float32)
            known |= {key: row.tobytes() for key, row in zip(part, made, strict=True)}
            whole = [(key, known[key]) for key, row in zip(part, made, strict=True) if np.isfinite(row).all()]
            with suppress(sqlite3.Error), self._con:  # a full disk costs the cache, not the work
                self._con.executemany("insert or replace into vector values (?, ?)", whole)
        sizes = {len(known[key]) if isinstance(known[key], bytes) else -1 for key in keys}
        if len(sizes) > 1 or any(size % 4 for size in sizes):
            raise PiarError(f"{self._named} holds no vectors, or of several sizes.", "Remove it: it is made anew.")
        return np.stack([np.frombuffer(known[key], dtype=np.float32) for key in keys])

    def known(self, texts: Sequence[str]) -> list[bool]:
        """Of each text whether its vector is there."""
        keys = _keys(texts)
        found = self._known(list(dict.fromkeys(keys)), "null")
        return [key in found for key in keys]

    def _known(self, keys: list[bytes], value: Literal["value", "null"] = "value") -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        try:
            for part in _parts(keys, _ASKED):
                marks = ", ".join("?" * len(part))
                found |= dict(self._con.execute(f"select key, {value} from known where key in ({marks})", part))
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code not in _DAMAGED:  # another process holds it: whose vectors it keeps
                return {}
            self._con.close()
            with suppress(OSError):  # in a folder that cannot be written
                if self._path is not None:
                    self._path.unlink(missing_ok=True)
            self._con = _open(self._path)
            return {}
        return found


def _keys(texts: Sequence[str]) -> list[bytes]:
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _open(path: Path | None) -> sqlite3.Connection:
    for place in (path, path, None):  # a damaged file is begun anew, once
        with suppress(OSError, sqlite3.OperationalError):  # a folder that cannot be written, a file that is locked
            try:
                return _ready(place)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                assert place is not None
                place.unlink(missing_ok=True)
    raise AssertionError("memory can always be written")


def _ready(path: Path | None) -> sqlite3.Connection:
    if path is not None and not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        (path.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    con = sqlite3.connect(path or ":memory:", timeout=60)
    con.execute(_TABLE)
    con.execute(_KNOWN)
    return con


def _open_for_reading(path: Path) -> sqlite3.Connection:
    """Memory for new vectors, and those of the file where it can be read."""
    con = sqlite3.connect(":memory:", uri=True)
    con.execute(_TABLE)
    try:
        con.execute("attach ? as kept", [f"{path.absolute().as_uri()}?mode=ro"])
        con.execute(f"{_KNOWN} union all select key, value from kept.vector")
        con.execute("select 1 from known limit 1")
    except sqlite3.Error:  # no such file, or a damaged one
        con.close()
        return _ready(None)
    return con
