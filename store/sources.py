"""Where a table comes from: a file, standard input, or what is packed into one; how the user says it is to be read."""

import bz2
import gzip
import io
import lzma
import re
import shlex
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from store.errors import PiarError, UsageError
from store.figures import many

STDIN = Path("-")
MOST_BYTES = 512 << 20  # of what is unpacked, or read from standard input; a plain file may be larger
_Unpacking = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
_ZIP = b"PK\x03\x04"
_PACKED: dict[bytes, Callable[[IO[bytes]], _Unpacking]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_ENDINGS = (".gz", ".bz2", ".xz", ".zip")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the user says that a file is to be read; what is None is found out.

    Attributes:
        encoding: of its text, by a name that Python knows.
        sheet: the sheet of a workbook, or the file of a ZIP.
        control: of a Label Studio project, the control that holds the grade.
        plain: take it as a table, whatever tool it seems to come from.
        documents, queries: tables with the texts of a list that has only ids; see `store.texts_of_ids`.
        on: the column of `documents` that holds the ids.
        header: names of the columns, of a delimited file that does not begin with them.
    """

    encoding: str | None = None
    sheet: str | None = None
    control: str | None = None
    plain: bool = False
    documents: Path | None = None
    queries: Path | None = None
    on: str | None = None
    header: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of a table.

    Attributes:
        name: for messages.
        path: the file that holds just these bytes, where there is one.
        note: where they were taken from, or "".
    """

    name: str
    path: Path | None = None
    data: bytes = b""
    note: str = ""

    def head(self, size: int) -> bytes:
        """The first bytes."""
        if self.path is None:
            return self.data[:size]
        with self.path.open("rb") as file:
            return file.read(size)

    def bytes(self) -> bytes:
        """All bytes."""
        return self.data if self.path is None else self.path.read_bytes()

    @property
    def suffix(self) -> str:
        """The ending of the name, in small letters, with its dot."""
        return Path(self.name).suffix.lower()


def source_name(path: Path) -> str:
    """What rows of a file are said to come from: its name without ending; `stdin` for standard input."""
    if path == STDIN:
        return "stdin"
    return Path(path.stem).stem if path.suffix.lower() in _ENDINGS else path.stem


def open_source(path: Path, sheet: str | None = None) -> Source:
    """The bytes of a file, unpacked where it is gzip, bzip2, xz or a ZIP with one table; `-` is standard input.

    Raises:
        UsageError: no such file, or several in a ZIP of which none is named.
        PiarError: damaged, or too much when unpacked.
    """
    if path == STDIN:
        source = Source("stdin", None, _bounded(sys.stdin.buffer, "standard input"))
    elif path.exists():
        source = Source(path.name, path)
    else:
        raise _not_there(path)
    for _ in range(3):  # a table in a gzip file in a ZIP, and no deeper
        inner = _unpacked(source, sheet)
        if inner is source:
            break
        source = inner
    return source


def _not_there(path: Path) -> UsageError:
    """What is not there: an address (whose slashes a path has folded), or a name that is wrong."""
    if re.match(r"\w{2,}:/", str(path)):
        return UsageError(f"{path.name} is named by an address, and only files are read.", "Fetch it; give the file.")
    return UsageError(f"{path} does not exist.", "Check the name.")


def _unpacked(source: Source, sheet: str | None) -> Source:
    head = source.head(8)
    if head.startswith(_ZIP):
        return _from_zip(source, sheet)
    opener = next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), None)
    if opener is None:
        return source
    with _file(source) as file:
        try:
            data = _bounded(opener(file), source.name)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise PiarError(f"{source.name} cannot be unpacked: {error}.", "Fetch or pack it again.") from None
    return Source(Path(source.name).stem if source.suffix in _ENDINGS else source.name, None, data)


def _file(source: Source) -> IO[bytes]:
    return source.path.open("rb") if source.path else io.BytesIO(source.data)


def _bounded(file: IO[bytes] | _Unpacking, name: str) -> bytes:
    data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise PiarError(
            f"{name} holds more than {MOST_BYTES >> 20} MiB when unpacked.",
            "Unpack it, and give a file or its parts by name.",
        )
    return data


def is_workbook(source: Source) -> bool:
    """Whether it is a ZIP with the parts of an Excel or OpenDocument workbook."""
    if not source.head(4).startswith(_ZIP):
        return False
    with _file(source) as file:
        try:
            names = set(zipfile.ZipFile(file).namelist())
        except (zipfile.BadZipFile, OSError):
            return False
    return bool({"xl/workbook.xml", "xl/workbook.bin"} & names) or {"mimetype", "content.xml"} <= names


def _from_zip(source: Source, sheet: str | None) -> Source:
    """The one table of a ZIP, or the one that the user names; a workbook stays as it is."""
    if is_workbook(source):
        return source
    with _file(source) as file:
        try:
            archive = zipfile.ZipFile(file)
            members = [m for m in archive.infolist() if not m.is_dir() and not _is_clutter(m.filename)]
            chosen = _member(source.name, members, sheet)
            with archive.open(chosen) as member:
                data = _bounded(member, f"{source.name}, {chosen.filename}")
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise PiarError(
                f"{source.name} is no ZIP or Excel file that can be read: {error}.", "Fetch or save it again."
            ) from None
    return Source(Path(chosen.filename).name, None, data, f"{chosen.filename} of {source.name}")


def _is_clutter(name: str) -> bool:
    return name.startswith("__MACOSX/") or Path(name).name.startswith(".")


def _member(name: str, members: list[zipfile.ZipInfo], sheet: str | None) -> zipfile.ZipInfo:
    names = [member.filename for member in members]
    if sheet is None and len(members) == 1:
        return members[0]
    for member in members:
        if sheet is not None and sheet in (member.filename, Path(member.filename).name):
            return member
    if not members:
        raise PiarError(f"{name} is a ZIP without files.", "Give a table.")
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    held = f"{name} holds {many(len(names), 'file')}: {listed}"
    if sheet is None:
        raise UsageError(f"{held}.", f"Name one: --sheet {shlex.quote(names[0])}")
    raise UsageError(f"There is no {sheet!r}; {held}.", f"Name one: --sheet {shlex.quote(names[0])}")
