"""A file as text columns, and the rows of it that were left out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

CELL_LIMIT = 1_000_000  # characters; rows with a longer cell are rejected

# Labels that come with records of their own (Label Studio), as rows of `Table.votes`.
VOTES: dict[str, Any] = {
    "row": pl.Int64,  # position of the sample in `Table.frame`
    "annotator": pl.String,
    "grade": pl.String,  # as the file has it; null where skipped
    "seconds": pl.Float64,
    "comment": pl.String,
    "flags": pl.List(pl.String),
    "at": pl.Datetime("us"),
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was left out. `line` counts from 1 in a text file; elsewhere it is the row, from 1."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Table:
    """A file as text columns.

    Attributes:
        frame: text columns, "" where missing.
        lines: line in the file of each row.
        rejected: rows that could not be read.
        votes: labels with records of their own, see `VOTES`; None for plain tables.
        vote_columns: columns that show the votes again, one for each annotator, for readers of `frame` alone.
        notes: how the file was read where that is not plain: its encoding, what stood above the header.
        roles: role of `ImportMapping` -> column, where the format of the file says so.
        ids: columns that name what they should hold the text of: `document`, `query` -> column.
        guideline: the text that judges were given, where the file has it.
    """

    frame: pl.DataFrame
    lines: pl.Series
    rejected: tuple[Rejection, ...] = ()
    votes: pl.DataFrame | None = None
    vote_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    roles: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)
    guideline: str = ""


def numbered(frame: pl.DataFrame) -> Table:
    """A typed frame as a table of text whose lines are its rows."""
    columns = [_texts(frame[name]) for name in frame.columns]
    return Table(pl.DataFrame(columns), pl.Series(range(1, len(frame) + 1), dtype=pl.Int64))


def from_records(
    records: Sequence[Mapping[str, Any]], lines: Iterable[int], rejected: Iterable[Rejection] = ()
) -> Table:
    """JSON objects as a table; keys that an object lacks are ""."""
    names = list(dict.fromkeys(name for record in records for name in record))
    data = {name: [text(record.get(name)) for record in records] for name in names}
    return Table(
        pl.DataFrame(data, dict.fromkeys(names, pl.String)), pl.Series(list(lines), dtype=pl.Int64), tuple(rejected)
    )


def without_long_cells(table: Table) -> Table:
    """The table without the rows of which a cell is too long."""
    frame = table.frame
    if frame.is_empty() or max(frame.select(pl.all().str.len_bytes().max()).row(0)) <= CELL_LIMIT:
        return table
    longest = frame.select(pl.max_horizontal(pl.all().str.len_chars())).to_series()
    long = longest > CELL_LIMIT
    rejected = [
        Rejection(line, f"a cell of {n:,} characters (at most {CELL_LIMIT:,})")
        for line, n in zip(table.lines.filter(long).to_list(), longest.filter(long).to_list(), strict=True)
    ]
    return replace(
        table, frame=frame.filter(~long), lines=table.lines.filter(~long), rejected=(*table.rejected, *rejected)
    )


def text(value: object) -> str:
    """A JSON value as text: "" for null, texts as they are, anything else as JSON."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value if value.isascii() else value.encode("utf-8", "replace").decode()  # no lone surrogates


def _texts(column: pl.Series) -> pl.Series:
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary):
        return pl.Series(column.name, [text(value) for value in column.to_list()], dtype=pl.String)
    return column.cast(pl.String).fill_null("")


def moment(value: object) -> datetime | None:
    """An ISO 8601 text as a time in UTC without a zone; None where it is none."""
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
