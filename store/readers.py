"""Files as Polars frames of text: CSV, JSON, Parquet, workbooks, dataset folders, Label Studio exports; also packed.

Every column is text, missing is "". A row that cannot be read is rejected with its line and reason and
stops nothing. What a file is, is told by its first bytes more than by its name.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from store.arrow_files import arrow_frame, parquet_frame
from store.crowds import without_machine_labels, without_refused_work
from store.dataset_folders import read_folder
from store.delimited import read_delimited
from store.errors import PiarError
from store.formats import known_records, known_table
from store.label_studio import is_flat_export, with_flat_votes
from store.listed import with_listed_rows, with_listed_votes
from store.sources import STDIN, Reading, Source, is_workbook, open_source, source_name
from store.structured import read_json
from store.tables import Table, numbered, without_long_cells
from store.texts_of_ids import with_texts
from store.workbooks import OLE, read_workbook

__all__ = ["Reading", "read", "read_table", "source_name"]

_MOST_COLUMNS = 10_000
_WIDE = 100  # columns; one row of more is a table that lies on its side
_JSON = (".json", ".jsonl", ".ndjson")
_BEGINS_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\{\s*["}]|\[\s*\{\s*["}]|\[\s*\[\s*["\[{\d])')
_FOREIGN = {
    b"%PDF": ("a PDF file", "Give the table that it shows as CSV."),
    b"SQLite format": ("an SQLite file", "Export a table: sqlite3 -header -csv {0} 'select * from TABLE' > rows.csv"),
    b"{\\rtf": ("a text with formatting (RTF)", "Save it as plain text or CSV."),
    b"(\xb5/\xfd": ("packed by zstd", "Unpack it: zstd -d {0}"),
    b"7z\xbc\xaf": ("a 7z archive", "Unpack it, and give the table."),
    b"Rar!": ("a RAR archive", "Unpack it, and give the table."),
    b"\x93NUMPY": ("a NumPy array", "Save it as CSV or Parquet."),
    b"FEA1": ("a Feather file of the first version", "Save it as Parquet."),
    b"\x80": ("a Python pickle, which could run code when it is read", "Save it as CSV or Parquet."),
}
_SQL = re.compile(
    rb"(?:\s|--[^\n]*|/\*.*?\*/|;)*(?:create (?:table|database|schema|type|extension)|insert into|drop table|"
    rb"copy [^\n]+ from stdin|set \w+ ?(?:=|to )|pragma |begin(?: transaction)?;|start transaction)",
    re.IGNORECASE | re.DOTALL,
)
_MARKUP = re.compile(rb"\s*<(?:!doctype|html|head|table|\?xml|[a-z]+[ >])", re.IGNORECASE)


def read_table(path: Path) -> pl.DataFrame:
    """The rows of a file that can be read, as text columns, "" where missing.

    Raises:
        UsageError: no such file, or one that must be told more of: its encoding, sheet or control.
        PiarError: an empty file, or one of no known format.
    """
    return read(path).frame


def read(path: Path, reading: Reading | None = None) -> Table:
    """A file with its line numbers and what had to be rejected; raises as `read_table` does.

    Args:
        path: `-` is standard input.
        reading: what the user says of it.
    """
    reading = said = reading or Reading()
    try:
        if path != STDIN and path.is_dir():
            table, texts = read_folder(path, lambda file: read(file, Reading(said.encoding, plain=True)))
            name = path.name
            reading = replace(
                reading,
                documents=reading.documents or texts.get("documents"),
                queries=reading.queries or texts.get("queries"),
            )
        else:
            source = open_source(path, reading.sheet)
            name = source.name
            table = _reader(source)(source, reading)
            table = replace(table, notes=tuple(filter(None, (source.note, *table.notes))))
    except OSError as error:
        raise PiarError(
            f"{path} cannot be read: {error.strerror or error}.", "Check the file and its permissions."
        ) from None
    table = without_machine_labels(without_refused_work(known_table(table, name, reading)))
    if table.votes is None and not table.roles:
        table = with_listed_votes(with_listed_rows(table))
    if is_flat_export(table.frame.columns) and not reading.plain:
        table = with_flat_votes(table, name, reading.control)
    named = {"document": reading.documents, "query": reading.queries}
    tables = {role: read(found, Reading(plain=True)).frame for role, found in named.items() if found}
    table = without_long_cells(with_texts(table, name, reading, tables))
    _check_shape(table, name)
    return table


def _check_shape(table: Table, name: str) -> None:
    rows, columns = table.frame.shape
    if not rows and not table.rejected:
        raise PiarError(f"{name} has no rows.", "Give a file with a header and at least one row.")
    if columns > _MOST_COLUMNS or (rows == 1 and columns > _WIDE):
        raise PiarError(
            f"{name} would be {rows:,} {'rows' if rows > 1 else 'row'} of {columns:,} columns: it is not understood.",
            "Give one row for each thing that is judged: CSV with a header, or a JSON object on each line.",
        )


def _reader(source: Source) -> Callable[[Source, Reading], Table]:
    head = source.head(4096)
    if head.startswith(b"PAR1"):
        return lambda source, reading: read_parquet(source, reading)
    if head.startswith(b"ARROW1"):
        return lambda source, reading: numbered(arrow_frame(source))
    if head.startswith(OLE) or is_workbook(source):
        return lambda source, reading: read_workbook(source, reading.sheet)
    for magic, (called, mend) in _FOREIGN.items():
        if head.startswith(magic) and not (magic == b"\x80" and source.suffix in (".csv", ".tsv", ".txt")):
            raise PiarError(f"{source.name} is {called}.", mend.format(source.name))
    if head[257:262] == b"ustar":
        raise PiarError(f"{source.name} is a tar archive.", f"Unpack it, and give the table: tar -xf {source.name}")
    if _MARKUP.match(head):
        raise PiarError(f"{source.name} is a web page or XML, not a table.", "Give CSV, JSON, Excel or Parquet.")
    if _SQL.match(head):
        raise PiarError(
            f"{source.name} is a dump of a database: SQL, not a table.", "Export the table from the database as CSV."
        )
    if source.suffix in _JSON or _BEGINS_JSON.match(head):
        return read_json
    return read_delimited


# -- Parquet and Arrow ----------------------------------------------------------------------


def read_parquet(source: Source, reading: Reading) -> Table:
    """A Parquet file; numbers and nested values become text."""
    frame = parquet_frame(source)
    if reader := known_records(frame.head(20).to_dicts(), source.name, reading):
        return reader(list(enumerate(frame.to_dicts(), 1)), source.name, reading.control)
    return numbered(frame)
