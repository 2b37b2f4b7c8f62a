"""Excel and OpenDocument workbooks: one sheet as a table, dates as ISO 8601, formulas as the values last computed."""

import io
import re
import shlex
import zipfile
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from store.errors import PiarError, UsageError
from store.header import require_header, table_of
from store.sources import MOST_BYTES, Source
from store.tables import Table

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # old .xls, and any workbook under a password
_MOST_CELLS = 50_000_000  # of a sheet's rectangle, which its reader lays out whole
_CELL = re.compile(rb'<c\s(?:[^>]*?\s)?r="([A-Z]{1,3})(\d{1,7})"[^>]*(?<!/)>')
_NO_VALUE = re.compile(rb"</f>\s*(?:<v\s*/>|<v>\s*</v>)?\s*</c>")


def read_workbook(source: Source, sheet: str | None = None) -> Table:
    """One sheet of a workbook; each line is the row's number in the sheet.

    Args:
        sheet: its name; may be left out where only one sheet holds anything.

    Raises:
        ModuleNotFoundError: the package `python_calamine` is not installed.
        UsageError: no such sheet, or several of which none is named.
        PiarError: damaged, under a password, or too much when unpacked.
    """
    from python_calamine import CalamineError, CalamineWorkbook

    empty = _inspected(source)
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(source.bytes()))
        chosen, rows = _chosen(book, source.name, sheet)
    except (CalamineError, OSError, ValueError) as error:
        raise PiarError(
            f"{source.name} is not a workbook that can be read: {error}.",
            "Save it again without a password, or as CSV in UTF-8.",
        ) from None
    records = [(number, [_text(cell) for cell in row]) for number, row in enumerate(rows, 1)]
    records = [(number, cells) for number, cells in records if any(cells)]
    sheet = f"{source.name}, sheet {chosen}"
    table = require_header(table_of(records, sheet), sheet)
    notes = (
        f"sheet {chosen!r}" if len(book.sheet_names) > 1 else "",
        f"{empty:,} formulas were saved without a value: open and save it in a spreadsheet program" if empty else "",
        *table.notes,
    )
    return replace(table, notes=tuple(note for note in notes if note))


def _chosen(book: "CalamineWorkbook", name: str, sheet: str | None) -> tuple[str, list[list[Any]]]:
    if sheet is not None and sheet not in book.sheet_names:
        raise UsageError(
            f"{name} has no sheet {sheet!r}; it has {', '.join(map(repr, book.sheet_names))}.",
            f"Name one: --sheet {shlex.quote(book.sheet_names[0])}",
        )
    named = [sheet] if sheet is not None else book.sheet_names
    filled = {title: rows for title in named if (rows := _rows(book.get_sheet_by_name(title)))}
    if not filled:
        raise PiarError(f"{name} has no rows.", "Give a workbook with a header and at least one row.")
    if len(filled) > 1:
        raise UsageError(
            f"{name} has several sheets: {', '.join(map(repr, filled))}.",
            f"Name one: --sheet {shlex.quote(next(iter(filled)))}",
        )
    return next(iter(filled.items()))


def _rows(sheet: "CalamineSheet") -> list[list[Any]]:
    """The cells; what was merged over several rows stands in each of them."""
    rows: list[list[Any]] = sheet.to_python(skip_empty_area=False)
    for (top, left), (bottom, _) in sheet.merged_cell_ranges or ():
        for row in rows[top + 1 : bottom + 1]:
            row[left] = rows[top][left]
    return rows


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time.min else cell.isoformat()
    if isinstance(cell, date | time):
        return cell.isoformat()
    return str(cell) if isinstance(cell, timedelta | int) else cell


def _inspected(source: Source) -> int:
    """How many formulas of an Excel file were saved without a value.

    Raises:
        PiarError: a sheet that would take more memory than tables do.
    """
    empty = 0
    try:
        archive = zipfile.ZipFile(io.BytesIO(source.bytes()))
        if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
            raise PiarError(f"{source.name} holds more than {MOST_BYTES >> 20} MiB when unpacked.", "Save it as CSV.")
        for member in archive.namelist():
            if member.startswith("xl/worksheets/") and member.endswith(".xml"):
                sheet = archive.read(member)
                empty += len(_NO_VALUE.findall(sheet))
                _check_extent(source.name, sheet)
    except zipfile.BadZipFile:
        return 0  # an old .xls; what is broken is said by the reader
    return empty


def _check_extent(name: str, sheet: bytes) -> None:
    last: dict[bytes, int] = {}
    for column, row in _CELL.findall(sheet):
        last[column] = max(last.get(column, 0), int(row))
    width = max((_column_number(column) for column in last), default=0)
    if width * max(last.values(), default=0) > _MOST_CELLS:
        raise PiarError(
            f"{name} has a cell so far out (column {max(last, key=_column_number).decode()}, row "
            f"{max(last.values()):,}) that its sheet would be {width:,} columns wide.",
            "Delete what stands far from the table, or save the table as CSV.",
        )


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number
