"""Files that are either whole or not there, and texts from other hands, read with care."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.errors import UsageError

MOST_BYTES = 16 * 2**20  # of a file that people write; more is data that took the wrong name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it when the block ends well and removed when it does not.

    Raises:
        UsageError: `path` is a folder.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Name a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old text or the new, never half of it."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """A text file that people or other machines wrote: UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: nothing there.
        UsageError: a folder, a device, a file that may not be read, is larger than `most_bytes` or no UTF-8 (which
            byte of which line).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening: a pipe would wait for ever
            raise UsageError(f"{path} is no file.", "Move it away, and put the file back in its place.")
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.", "Check its permissions, and those of its folder."
        ) from None
    if len(data) > most_bytes:
        raise UsageError(
            f"{path} is larger than {most_bytes / 2**20:g} MB.", "It holds something else than its name says."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} on line {line}.",
            "Save it as UTF-8 in your editor, or put a copy back in its place.",
        ) from None


FORMULA = tuple("=+-@＝＋－＠\t\r\n")


def cell(text: str) -> str:
    """A text that no spreadsheet runs."""
    return f"'{text}" if text.startswith(FORMULA) else text
