"""CSV and its relatives: encoding and delimiter detected, every bad record known by its line and reason."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from store.errors import PiarError
from store.tables import Rejection, Table

CELL_LIMIT = 1_000_000  # characters; longer cells are rejected
DELIMITERS = (",", "\t", ";", "|")
_SNIFF_LINES = 200
_SNIFF_BYTES = 1 << 20
_BROKEN = re.compile("[\ud800-\udfff]")  # what `surrogateescape` makes of bytes that are not UTF-8
csv.field_size_limit(1 << 30)  # the module's own limit would end the file at a long cell; ours rejects one row


def read_delimited(path: Path) -> Table:
    """Read a delimited text file.

    A file in which all is well is read by DuckDB at its speed; any other record by record.

    Raises:
        PiarError: empty, or without a header.
    """
    with path.open("rb") as file:
        head = file.read(_SNIFF_BYTES)
    if not head.strip(b"\r\n\t \0\xef\xbb\xbf\xff\xfe"):
        raise PiarError(f"{path.name} is empty.", "Give a file with a header and at least one row.")
    return _whole(path, head) or _careful(path)


def _whole(path: Path, head: bytes) -> Table | None:
    """The table when nothing is wrong in it and each line number is sure, else None."""
    sample = io.StringIO(head.decode("utf-8", "replace").removeprefix("\ufeff"), newline="")
    lines = list(islice(sample, _SNIFF_LINES))
    if set(str(path)) & set("*?[{") or b"\0" in head or not lines[0].endswith("\n"):
        return None  # DuckDB would take the name for a pattern; other encodings and old line ends are read with care
    delimiter = _delimiter(lines)
    names = _header(next(csv.reader(lines, delimiter=delimiter)))
    options: dict[str, Any] = {
        "delimiter": delimiter,
        "quotechar": '"',
        "escapechar": '"',
        "header": True,
        "auto_detect": False,
        "columns": dict.fromkeys(names, "VARCHAR"),
        "strict_mode": True,
    }
    try:
        with duckdb.connect() as con:
            con.execute("set enable_progress_bar = false")
            frame = con.read_csv(str(path), **options).pl().select(pl.all().fill_null(""))
    except duckdb.Error:
        return None
    if not frame.is_empty() and max(frame.select(pl.all().str.len_bytes().max()).row(0)) > CELL_LIMIT:
        return None
    at = pl.Series(range(2, len(frame) + 2), dtype=pl.Int64)
    if _lines_add_up(path, len(frame) + 1):
        return Table(frame, at)
    breaks = frame.select(pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True)).cast(pl.Int64)).to_series()
    above = breaks.cum_sum().shift(1, fill_value=0)
    return Table(frame, at + above) if _lines_add_up(path, len(frame) + 1 + int(breaks.sum())) else None


def _lines_add_up(path: Path, expected: int) -> bool:
    """Whether the file has as many lines as its records explain: no blank ones, no other line ends."""
    count, last = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_SNIFF_BYTES):
            count, last = count + chunk.count(b"\n"), chunk
    return count + (not last.endswith(b"\n")) == expected


def _careful(path: Path) -> Table:
    lines = list(io.StringIO(_decode(path.read_bytes()).removeprefix("\ufeff"), newline=""))
    delimiter = _delimiter(lines[:_SNIFF_LINES])
    table = _parse(path, lines, delimiter, csv.QUOTE_MINIMAL)
    if delimiter == "\t" and table.rejected:  # tab-separated files often know no quoting at all
        table = min(table, _parse(path, lines, delimiter, csv.QUOTE_NONE), key=lambda t: len(t.rejected))
    return table


def _parse(path: Path, lines: list[str], delimiter: str, quoting: int) -> Table:
    records = _records(lines, delimiter, quoting)
    header = next((cells for _, cells in records if isinstance(cells, list)), None)
    if header is None:
        raise PiarError(f"{path.name} has no header that can be read.", "Give a CSV file with a header line.")
    names = _header(header)
    rows: list[list[str]] = []
    at: list[int] = []
    rejected = []
    for line, cells in records:
        reason = cells if isinstance(cells, str) else _fault(cells, len(names))
        if reason:
            rejected.append(Rejection(line, reason))
        else:
            rows.append(list(cells))
            at.append(line)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return Table(frame, pl.Series(at, dtype=pl.Int64), tuple(rejected))


def _records(lines: Sequence[str], delimiter: str, quoting: int) -> Iterator[tuple[int, list[str] | str]]:
    """Each record with the line that it begins on, or the reason why it cannot be read.

    A quote that is opened and never closed would swallow the rest of the file: such a record is given up
    at its first line, and reading begins again on the next.
    """
    start, width = 0, 0
    while start < len(lines):
        reader = csv.reader(_from(lines, start), delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
        begin = start
        try:
            for cells in reader:
                several = start + reader.line_num - begin > 1
                width = width or len(cells)
                if several and len(cells) != width:
                    raise csv.Error("a quote is not closed on this line")
                if cells:
                    yield begin + 1, cells
                begin = start + reader.line_num
            return
        except csv.Error as error:
            yield begin + 1, f"not readable: {error}"
            start = begin + 1


def _from(lines: Sequence[str], start: int) -> Iterator[str]:
    return (lines[i] for i in range(start, len(lines)))


def _fault(cells: Sequence[str], width: int) -> str | None:
    if len(cells) != width:
        return f"{len(cells)} columns where the header has {width}"
    if (longest := max(map(len, cells))) > CELL_LIMIT:
        return f"a cell of {longest:,} characters (at most {CELL_LIMIT:,})"
    if any(not cell.isascii() and _BROKEN.search(cell) for cell in cells):
        return "broken UTF-8"
    return None


def _decode(data: bytes) -> str:
    """Text of a file: by its byte order mark, UTF-8, UTF-16 without a mark, else Windows-1252.

    In a file that is mostly good UTF-8, broken bytes become surrogates, by which `_fault` knows the row.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    head = data[:_SNIFF_BYTES]
    evens, odds = head[0::2].count(0), head[1::2].count(0)
    if max(evens, odds) > len(head) // 5:
        return data.decode("utf-16-be" if evens > odds else "utf-16-le", "replace")
    text = data.decode("utf-8", "surrogateescape")
    broken = len(_BROKEN.findall(text)) if not text.isascii() else 0
    if broken and broken > sum(c > "\x7f" for c in text) - broken:
        return data.decode("cp1252", "replace")
    return text


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter that cuts the first lines most evenly into more than one column, then into the most."""

    def score(delimiter: str) -> tuple[float, int]:
        widths = [len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells]
        if not widths or widths[0] == 1:
            return 0.0, 0
        return sum(width == widths[0] for width in widths) / len(widths), widths[0]

    return max(DELIMITERS, key=score)


def _header(cells: Iterable[str]) -> list[str]:
    """Column names: trimmed, never empty, never twice."""
    names: list[str] = []
    for position, cell in enumerate(cells, 1):
        name = base = cell.strip() or f"column_{position}"
        number = 2
        while name.lower() in {taken.lower() for taken in names}:
            name, number = f"{base}_{number}", number + 1
        names.append(name)
    return names
