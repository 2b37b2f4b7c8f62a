"""Records as a table: which one is the header, what stands above it, what is no row."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import polars as pl

from store.columns import no_text
from store.encodings import is_broken
from store.errors import PiarError
from store.tables import CELL_LIMIT, Rejection, Table

Record = tuple[int, list[str] | str]  # the line that it begins on, and its cells or why it cannot be read
_HEAD = 200  # records by which the header is found
_ABOVE = 20  # records that may stand above it
_LOOKED_THROUGH = 10_000  # rows in which the header is looked for as a row
_SENTENCE = 5  # words, from which on a name is rather a text


@dataclass(frozen=True, slots=True)
class Header:
    """Where a table begins.

    Attributes:
        at: index of the header among the first records.
        names: its cells, one for each cell of a row.
        note: what is odd about it, or "".
    """

    at: int
    names: list[str]
    note: str = ""


def find_header(records: Sequence[Record]) -> Header | None:
    """The header among the first records: the first one that is as wide as most, titles above it left out."""
    cells = [cells for _, cells in records if isinstance(cells, list)]
    if not cells:
        return None
    width = _usual_width(cells[1:] or cells)
    at = next((i for i, row in enumerate(cells[:_ABOVE]) if not _is_title(row, width)), 0)
    first, below = cells[at], cells[at + 1 :]
    index = next(i for i, (_, row) in enumerate(records) if row is first)
    plain = Header(index, first, _said_above(at))
    if below and (names := _under_groups(first, below)):
        index = next(i for i, (_, row) in enumerate(records) if row is below[0])
        return Header(index, names, "a header of two lines" + (f", {_said_above(at)}" if at else ""))
    if len(first) >= width or sum(len(row) == width for row in below) < 0.9 * len(below):
        return plain
    if len(first) == width - 1 and all(len(row) != width or not row[-1].strip() for row in below):
        return Header(index, [*first, ""], "every row ends in a delimiter")
    if len(first) == width - 1 and below[0][0].strip() in ("0", "1"):
        return Header(index, ["", *first], "the rows begin with a number that the header does not name")
    if len(set(below[0])) == width and all(_is_name(cell) for cell in below[0]):
        index = next(i for i, (_, row) in enumerate(records) if row is below[0])
        return Header(index, below[0], _said_above(at + 1))
    return plain


def _under_groups(above: Sequence[str], below: Sequence[Sequence[str]]) -> list[str] | None:
    """Names of a header in two lines: a cell above that spans several columns stands before each name under it.

    None where the second line is a row: it has blanks or numbers, or says of a column what a later row says.
    """
    names, rows = [cell.strip() for cell in below[0]], below[1:]
    blank = [i for i, cell in enumerate(above) if not cell.strip()]
    if len(blank) < 2 or blank[0] == 0 or len(above) != len(names) or len({*names}) < len(names):
        return None
    if not all(map(_is_name, names)) or any(
        name == row[i].strip() for row in rows for i, name in enumerate(names[: len(row)])
    ):
        return None
    spans = [next(above[k].strip() for k in range(i, -1, -1) if above[k].strip()) for i in range(len(names))]
    return [f"{span} {name}" if spans.count(span) > 1 else name for span, name in zip(spans, names, strict=True)]


def _usual_width(rows: Sequence[Sequence[str]]) -> int:
    counted = Counter(map(len, rows))
    return max(counted, key=lambda width: (counted[width], width))


def _is_title(cells: Sequence[str], width: int) -> bool:
    """Whether most cells of a table's width are empty or not there, or the line is a comment."""
    filled = sum(bool(cell.strip()) for cell in cells)
    comment = cells[0].startswith("#") and len(cells) != width
    return width > 1 and (comment or filled * 2 < width or (width == 2 and not any(cell.strip() for cell in cells[1:])))


def _is_name(cell: str) -> bool:
    return any(c.isalpha() for c in cell)


def _said_above(lines: int) -> str:
    return f"{lines} {'lines' if lines > 1 else 'line'} above the header left out" if lines else ""


def table_of(records: Iterable[Record], name: str, broken: str = "UTF-8") -> Table:
    """Records as a table; what is no row is rejected with its line and reason.

    Args:
        name: of the file, for messages.
        broken: the encoding, for rows that hold bytes which are none of it.

    Raises:
        PiarError: no record can be read.
    """
    coming = iter(records)
    head = list(islice(coming, _HEAD))
    header = find_header(head)
    if header is None:
        raise PiarError(f"{name} has no header that can be read.", "Give a table with a header line.")
    names = column_names(header.names)
    above = [Rejection(line, cells) for line, cells in head[: header.at] if isinstance(cells, str)]
    rows, lines, rejected = _sorted_out(chain(head[header.at + 1 :], coming), len(names), broken)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    table = Table(frame, pl.Series(lines, dtype=pl.Int64), (*above, *rejected))
    return tidy(replace(table, notes=(header.note,) if header.note else ()), header.names)


def require_header(table: Table, name: str) -> Table:
    """The table, unless its header is a row like the others; raises `PiarError`."""
    frame = table.frame
    if _is_row(frame):
        shown = ", ".join(column[:30] for column in frame.columns[:4])
        names = [f"{'value' if no_text(frame, name) else 'text'}_{i}" for i, name in enumerate(frame.columns, 1)]
        raise PiarError(
            f"{name} has no header: its first line ({shown}) is a row like those below.",
            f"Name its columns, in their order, with better names than these: --header {','.join(names)}",
        )
    return table


def _is_row(frame: pl.DataFrame) -> bool:
    """Whether the names of the columns are values: two stand below themselves, or one does and another is a sentence.

    Numbers count once, since counts of votes may stand under 1, 2, 3.
    """
    rows = frame.head(_LOOKED_THROUGH)
    found = [name for name in rows.columns if rows[name].eq(name).any()]
    words = [name for name in found if _is_name(name)]
    sentences = [name for name in frame.columns if name not in found and len(name.split()) >= _SENTENCE]
    return bool(found) and len(words) + (len(words) < len(found)) + bool(sentences) > 1


def _sorted_out(
    records: Iterator[Record], width: int, broken: str
) -> tuple[list[list[str]], list[int], list[Rejection]]:
    rows: list[list[str]] = []
    lines: list[int] = []
    rejected = []
    for line, cells in records:
        reason = cells if isinstance(cells, str) else _fault(cells, width, broken)
        if reason:
            rejected.append(Rejection(line, reason))
        else:
            rows.append(list(cells))
            lines.append(line)
    return rows, lines, rejected


def _fault(cells: Sequence[str], width: int, broken: str) -> str | None:
    if len(cells) != width:
        return f"{len(cells)} columns where the header has {width}"
    if (longest := max(map(len, cells))) > CELL_LIMIT:
        return f"a cell of {longest:,} characters (at most {CELL_LIMIT:,})"
    if any(not cell.isascii() and is_broken(cell) for cell in cells):
        return f"broken {broken}"
    return None


def tidy(table: Table, header: Sequence[str]) -> Table:
    """Without columns that have neither name nor value, without rows that are empty or the header once more."""
    frame = table.frame
    nameless = [name for name, cell in zip(frame.columns, header, strict=True) if not cell.strip()]
    blank = [name for name in nameless if not frame[name].str.strip_chars().ne("").any()]
    if len(frame.columns) < 2 or frame.is_empty():
        return table
    empty = frame.select(pl.all_horizontal(pl.all().str.strip_chars() == "")).to_series()
    again = frame.select(
        pl.all_horizontal(
            pl.col(name).str.strip_chars() == cell.strip() for name, cell in zip(frame.columns, header, strict=True)
        )
    ).to_series()
    rejected = [Rejection(line, "the header once more") for line in table.lines.filter(again & ~empty).to_list()]
    kept = ~(empty | again)
    return replace(
        table,
        frame=frame.filter(kept).drop(blank),
        lines=table.lines.filter(kept),
        rejected=(*table.rejected, *rejected),
    )


def column_names(cells: Iterable[str]) -> list[str]:
    """Column names: on one line, never empty, never twice."""
    names: list[str] = []
    taken: set[str] = set()
    for position, cell in enumerate(cells, 1):
        name = base = (
            " ".join(cell.removeprefix("#").split() if position == 1 else cell.split()) or f"column_{position}"
        )
        number = 2
        while name.lower() in taken:
            name, number = f"{base}_{number}", number + 1
        names.append(name)
        taken.add(name.lower())
    return names
