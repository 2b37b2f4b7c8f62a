"""CSV and its relatives: delimiter detected, every bad record known by its line and reason."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from store.encodings import decode
from store.errors import PiarError, UsageError
from store.figures import many
from store.formats import refuse_lines
from store.header import Record, column_names, find_header, require_header, table_of, tidy
from store.judgement_lists import line_reader
from store.sources import Reading, Source
from store.tables import CELL_LIMIT, Rejection, Table

DELIMITERS = (",", "\t", ";", "|")
_SNIFF_LINES = 200
_SHOWN = 80  # characters of a line in a message
_SEEN = 20  # lines by which a list without a header is known
_SNIFF_BYTES = 1 << 20
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # the first line by which Excel is told the delimiter
csv.field_size_limit(1 << 30)  # the module's own limit would end the file at a long cell; ours rejects one row

# How quotes are written: doubled within a cell, escaped by a backslash, or standing for themselves.
_QUOTING: tuple[dict[str, Any], ...] = (
    {"quoting": csv.QUOTE_MINIMAL},
    {"quoting": csv.QUOTE_MINIMAL, "escapechar": "\\", "doublequote": False},
    {"quoting": csv.QUOTE_NONE},
)


def read_delimited(source: Source, reading: Reading) -> Table:
    """Read a delimited text file.

    A file in which all is well is read by DuckDB at its speed; any other record by record.

    Raises:
        PiarError: empty, or without a header; or written by a tool whose format is not read yet.
        UsageError: the encoding does not fit, or cannot be told.
    """
    head = source.head(_SNIFF_BYTES)
    if not head.strip(b"\r\n\t \0\xef\xbb\xbf\xff\xfe"):
        raise PiarError(f"{source.name} is empty.", "Give a file with a header and at least one row.")
    if reading.header:
        return _careful(source, reading)
    if not reading.plain and (reader := line_reader(head.decode("utf-8", "replace").splitlines()[:_SEEN])):
        return reader(decode(source.bytes(), source.name, reading.encoding).text)
    return require_header(_whole(source, head, reading) or _careful(source, reading), source.name)


def _whole(source: Source, head: bytes, reading: Reading) -> Table | None:
    """The table when nothing is wrong in it and each line number is sure, else None."""
    lines = list(islice(io.StringIO(head.decode("utf-8", "replace").removeprefix("\ufeff"), newline=""), _SNIFF_LINES))
    path = source.path and source.path.absolute()  # an absolute path is no address and no home folder
    if path is None or set(str(path)) & set("*?[{") or b"\0" in head or not lines[0].endswith("\n"):
        return None  # DuckDB would take the name for a pattern; old line ends are read with care
    if reading.encoding is not None or _SEPARATOR.fullmatch(lines[0]):
        return None
    refuse_lines(lines, source.name, reading)
    delimiter = _delimiter(lines)
    header = next(csv.reader(lines, delimiter=delimiter))
    found = find_header(list(_records(lines, delimiter, _QUOTING[0])))
    if found is None or found.note or found.names != header:
        return None
    frame = _by_duckdb(path, delimiter, column_names(header))
    if frame is None:
        return None
    at = pl.Series(range(2, len(frame) + 2), dtype=pl.Int64)
    if _lines_add_up(path, len(frame) + 1):
        return tidy(Table(frame, at), header)
    breaks = frame.select(pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True)).cast(pl.Int64)).to_series()
    above = breaks.cum_sum().shift(1, fill_value=0)
    if _lines_add_up(path, len(frame) + 1 + int(breaks.sum())):
        return tidy(Table(frame, at + above), header)
    return None


def _by_duckdb(path: Path, delimiter: str, names: list[str]) -> pl.DataFrame | None:
    options: dict[str, Any] = {
        "delimiter": delimiter,
        "quotechar": '"',
        "escapechar": '"',
        "header": True,
        "auto_detect": False,
        "columns": dict.fromkeys(names, "VARCHAR"),
        "strict_mode": True,
        "compression": "none",
    }
    try:
        with duckdb.connect() as con:
            con.execute("set enable_progress_bar = false")
            frame: pl.DataFrame = con.read_csv(str(path), **options).pl().select(pl.all().fill_null(""))
    except duckdb.Error:
        return None
    if not frame.is_empty() and max(frame.select(pl.all().str.len_bytes().max()).row(0)) > CELL_LIMIT:
        return None
    return frame


def _lines_add_up(path: Path, expected: int) -> bool:
    """Whether the file has as many lines as its records explain: no blank ones, no other line ends."""
    count, last = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_SNIFF_BYTES):
            count, last = count + chunk.count(b"\n"), chunk
    return count + (not last.endswith(b"\n")) == expected


def _careful(source: Source, reading: Reading) -> Table:
    decoded = decode(source.bytes(), source.name, reading.encoding)
    lines = list(io.StringIO(decoded.text, newline=""))
    sample = _sample(lines)
    refuse_lines(sample, source.name, reading)
    named = _SEPARATOR.fullmatch(lines[0])
    delimiter = named[1] if named else _delimiter(sample)
    if reading.header:
        lines.insert(1 if named else 0, _header_line(source.name, sample, delimiter, reading.header))
    table = _parse(source.name, lines, delimiter, decoded.encoding, skip=1 if named else 0)
    if reading.header:
        rejected = tuple(Rejection(found.line - 1, found.reason) for found in table.rejected)
        table = replace(table, lines=table.lines - 1, rejected=rejected)
    notes = (decoded.note, f"delimiter {delimiter!r}, as the first line says" if named else "", *table.notes)
    return replace(table, notes=tuple(note for note in notes if note))


def _header_line(name: str, sample: Sequence[str], delimiter: str, header: Sequence[str]) -> str:
    """The line that names the columns; raises `UsageError` where they are more or fewer than the file has."""
    width = _usual_width(sample, delimiter, _QUOTING[2 if delimiter == "\t" else 0])
    if len(header) != width:
        raise UsageError(
            f"{name} has {many(width, 'column')}, and --header names {len(header):,}.",
            "Name each, in the order of the file; its first line is: " + sample[0].strip()[:_SHOWN],
        )
    return delimiter.join(header) + "\n"


def _parse(name: str, lines: Sequence[str], delimiter: str, encoding: str, skip: int) -> Table:
    """The table by that way of quoting which rejects the fewest rows."""
    ways = [_QUOTING[0], *([_QUOTING[2]] if delimiter == "\t" else [])]  # tab-separated files often know no quoting
    if any('\\"' in line for line in lines):
        ways.append(_QUOTING[1])
    tables: list[Table] = []
    refused: PiarError | None = None
    for way in ways:
        try:
            tables.append(table_of(_records(lines, delimiter, way, skip), name, encoding))
        except PiarError as error:
            refused = error
            continue
        if not tables[-1].rejected:
            break
    if refused and not tables:
        raise refused
    return min(tables, key=lambda table: len(table.rejected))


def _records(lines: Sequence[str], delimiter: str, way: dict[str, Any], skip: int = 0) -> Iterator[Record]:
    """Each record with the line that it begins on, or the reason why it cannot be read.

    A quote that is opened and never closed would swallow the rest of the file: such a record is given up
    at its first line, and reading begins again on the next.
    """
    start, width = skip, _usual_width(_sample(lines)[skip:], delimiter, way)
    while start < len(lines):
        reader = csv.reader(_from(lines, start), delimiter=delimiter, strict=True, **way)
        begin = start
        try:
            for cells in reader:
                several = start + reader.line_num - begin > 1
                if several and len(cells) != width:
                    raise csv.Error("a quote is not closed on this line")
                if cells:
                    yield begin + 1, cells
                begin = start + reader.line_num
            return
        except csv.Error as error:
            yield begin + 1, f"not readable: {error}"
            start = begin + 1


def _sample(lines: Sequence[str]) -> list[str]:
    """The first lines by which the layout is found; lines too long to be kept are left out."""
    return [line for line in lines[:_SNIFF_LINES] if len(line) <= CELL_LIMIT]


def _from(lines: Sequence[str], start: int) -> Iterator[str]:
    return (lines[i] for i in range(start, len(lines)))


def _usual_width(lines: Sequence[str], delimiter: str, way: dict[str, Any]) -> int:
    widths = Counter(len(cells) for cells in csv.reader(lines, delimiter=delimiter, **way) if cells)
    return max(widths, key=lambda width: widths[width], default=1)


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter that cuts most of the first lines evenly into more than one column, then into the most."""

    def score(delimiter: str) -> tuple[float, int]:
        widths = Counter(len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells)
        usual = max(widths, key=lambda width: widths[width], default=1)
        return (widths[usual] / widths.total(), usual) if usual > 1 else (0.0, 0)

    return max(DELIMITERS, key=score)
