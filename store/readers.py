"""Files as Polars frames of text: CSV, TSV, JSON lines, Parquet, Hugging Face folders, Label Studio exports.

Every column is text, missing is "". A row that cannot be read is rejected with its line and reason and
stops nothing.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from store.errors import PiarError, UsageError

CELL_LIMIT = 1_000_000  # characters; longer cells are rejected
DELIMITERS = (",", "\t", ";", "|")
_SNIFF_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was left out. `line` counts from 1 in the file (for Parquet and Arrow: the row, from 1)."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Table:
    """A file as text columns.

    Attributes:
        frame: text columns, "" where missing.
        lines: line in the file of each row.
        rejected: rows that could not be read.
        votes: labels that came with their own records (Label Studio), else None; see `store.label_studio`.
    """

    frame: pl.DataFrame
    lines: pl.Series
    rejected: tuple[Rejection, ...] = ()
    votes: pl.DataFrame | None = None


def read_table(path: Path) -> pl.DataFrame:
    """The rows of a file that can be read, as text columns, "" where missing.

    Raises:
        PiarError: no such file, an empty one, or of no known format.
    """
    return read(path).frame


def read(path: Path) -> Table:
    """A file with its line numbers and what had to be rejected.

    Raises:
        PiarError: no such file, an empty one, or of no known format.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist.", "Check the name.")
    reader = _READERS.get(path.suffix.lower(), read_delimited)
    try:
        table = reader(path)
    except OSError as error:
        raise PiarError(f"{path} cannot be read: {error.strerror}.", "Check the file and its permissions.") from None
    if table.frame.is_empty() and not table.rejected:
        raise PiarError(f"{path.name} has no rows.", "Give a file with a header and at least one row.")
    return table


# -- delimited text -------------------------------------------------------------------------


def read_delimited(path: Path) -> Table:
    """CSV and its relatives; encoding and delimiter are detected."""
    with path.open("rb") as file:
        head = file.read(_SNIFF_BYTES)
    if not head.strip(b"\r\n\t \0\xef\xbb\xbf\xff\xfe"):
        raise PiarError(f"{path.name} is empty.", "Give a file with a header and at least one row.")
    return _fast(path, head) or _careful(path)


def _fast(path: Path, head: bytes) -> Table | None:
    """DuckDB's reader, for a file in which nothing is wrong; None when something is, or might be."""
    sample = io.StringIO(head.decode("utf-8", "replace").removeprefix("\ufeff"), newline="")
    lines = list(islice(sample, 200))
    if set(str(path)) & set("*?[{") or b"\0" in head or not lines[0].endswith("\n"):
        return None
    delimiter = _delimiter(lines)
    names = _header(next(csv.reader(lines, delimiter=delimiter)))
    options: dict[str, Any] = {
        "delim": delimiter,
        "quote": '"',
        "escape": '"',
        "header": True,
        "auto_detect": False,
        "columns": dict.fromkeys(names, "VARCHAR"),
        "strict_mode": True,
    }
    try:
        with duckdb.connect() as con:
            frame = con.read_csv(str(path), **options).pl()
    except duckdb.Error:
        return None
    frame = frame.select(pl.all().fill_null(""))
    breaks = pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True))
    inside = frame.select(breaks.cum_sum().shift(1, fill_value=0)).to_series()
    at = pl.int_range(2, len(frame) + 2, eager=True).cast(pl.Int64) + inside.cast(pl.Int64)
    return Table(frame, at)


def _careful(path: Path) -> Table:
    """Record by record, so that each bad one is known by its line and reason."""
    text = _decode(path.read_bytes())
    lines = list(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    delimiter = _delimiter(lines[:200])
    records = _records(lines, delimiter)
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


def _records(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Each record with the line that it begins on, or the reason why it cannot be read.

    After a record that never ends, reading begins again on the line below the one it began on.
    """
    start = 0
    while start < len(lines):
        reader = csv.reader(_from(lines, start), delimiter=delimiter, strict=True)
        begin = start
        try:
            for cells in reader:
                if cells:
                    yield begin + 1, cells
                begin = start + reader.line_num
            return
        except csv.Error as error:
            yield begin + 1, f"cannot be read as CSV: {error}"
            start = begin + 1


def _from(lines: Sequence[str], start: int) -> Iterator[str]:
    return (lines[i] for i in range(start, len(lines)))


def _fault(cells: list[str], width: int) -> str | None:
    if len(cells) != width:
        return f"{len(cells)} columns where the header has {width}"
    if any(len(cell) > CELL_LIMIT for cell in cells):
        return f"a cell of {max(map(len, cells)):,} characters (at most {CELL_LIMIT:,})"
    if any(not cell.isascii() and any("\ud800" <= c <= "\udfff" for c in cell) for cell in cells):
        return "broken UTF-8"
    return None


def _decode(data: bytes) -> str:
    """Text of a file: byte order marks, UTF-16 without one, UTF-8, else Windows-1252.

    A few broken bytes in UTF-8 become surrogates, by which `_fault` knows the row.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    evens, odds = data[0:_SNIFF_BYTES:2].count(0), data[1:_SNIFF_BYTES:2].count(0)
    if max(evens, odds) > len(data[:_SNIFF_BYTES]) // 5:
        return data.decode("utf-16-be" if evens > odds else "utf-16-le", "replace")
    text = data.decode("utf-8", "surrogateescape")
    broken = sum("\udc80" <= c <= "\udcff" for c in text) if not text.isascii() else 0
    whole = sum(c > "\x7f" for c in text) - broken if broken else 0
    return text if broken <= whole else data.decode("cp1252", "replace")


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter that cuts the first lines into the most columns, evenly."""

    def score(delimiter: str) -> tuple[float, int]:
        widths = [len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells]
        even = sum(width == widths[0] for width in widths) / len(widths) if widths else 0
        return (even if widths and widths[0] > 1 else 0, widths[0] if widths else 0)

    return max(DELIMITERS, key=score)


def _header(cells: Iterable[str]) -> list[str]:
    """Column names: trimmed, never empty, never twice."""
    names: list[str] = []
    for position, cell in enumerate(cells, 1):
        name = base = cell.strip() or f"column_{position}"
        number = 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names.append(name)
    return names


# -- typed formats --------------------------------------------------------------------------


def read_json_lines(path: Path) -> Table:
    """One JSON object on each line."""
    rows: list[dict[str, Any]] = []
    at: list[int] = []
    rejected = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
                rows.append(row)
                at.append(number)
            except (ValueError, RecursionError) as error:
                rejected.append(Rejection(number, f"not a JSON object: {error}"))
    return Table(_from_records(rows), pl.Series(at, dtype=pl.Int64), tuple(rejected))


def read_parquet(path: Path) -> Table:
    """A Parquet file; numbers and nested values become text."""
    try:
        return _typed(pl.read_parquet(path, glob=False))
    except pl.exceptions.PolarsError as error:
        raise PiarError(f"{path.name} is not a readable Parquet file: {error}", "Write it again.") from None


def _typed(frame: pl.DataFrame) -> Table:
    columns = [_as_text(frame[name]) for name in frame.columns]
    return Table(pl.DataFrame(columns), pl.int_range(1, len(frame) + 1, eager=True).cast(pl.Int64))


def _as_text(column: pl.Series) -> pl.Series:
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary):
        texts = [_text(value) for value in column.to_list()]
        return pl.Series(column.name, texts, dtype=pl.String)
    return column.cast(pl.String).fill_null("")


def _from_records(rows: list[dict[str, Any]]) -> pl.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame(
        {name: [_text(row.get(name)) for row in rows] for name in names}, dict.fromkeys(names, pl.String)
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


_READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
    ".pq": read_parquet,
}
