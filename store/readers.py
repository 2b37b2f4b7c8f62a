"""Files as Polars frames of text: CSV, JSON, Parquet, workbooks, dataset folders, Label Studio exports; also packed.

Every column is text, missing is "". A row that cannot be read is rejected with its line and reason and
stops nothing. What a file is, is told by its first bytes more than by its name.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars import selectors

from store.delimited import read_delimited
from store.errors import PiarError
from store.figures import many
from store.formats import known_records, known_table
from store.label_studio import is_flat_export, with_flat_votes
from store.sources import STDIN, Reading, Source, is_workbook, open_source, source_name
from store.structured import read_json
from store.tables import Table, numbered, text, without_long_cells
from store.texts_of_ids import with_texts
from store.workbooks import OLE, read_workbook

__all__ = ["Reading", "read", "read_table", "source_name"]

_SHARD = re.compile(r"(?P<split>[A-Za-z_]+)[-_.]\d+(?:-of-\d+)?.*")
MOST_PARQUET = 4 << 30  # bytes in memory
_MOST_COLUMNS = 10_000
_WIDE = 100  # columns; one row of more is a table that lies on its side
_NAMED = 3  # files of a folder that a note names
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".gz", ".zip")
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
    reading = reading or Reading()
    try:
        if path != STDIN and path.is_dir():
            table, name = read_folder(path), path.name
        else:
            source = open_source(path, reading.sheet)
            name = source.name
            table = _reader(source)(source, reading)
            table = replace(table, notes=tuple(filter(None, (source.note, *table.notes))))
    except OSError as error:
        raise PiarError(
            f"{path} cannot be read: {error.strerror or error}.", "Check the file and its permissions."
        ) from None
    table = known_table(table, name, reading)
    if is_flat_export(table.frame.columns) and not reading.plain:
        table = with_flat_votes(table, name, reading.control)
    texts = {"document": reading.documents, "query": reading.queries}
    tables = {role: read(found, Reading(plain=True)).frame for role, found in texts.items() if found}
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
        return lambda source, reading: numbered(_arrow(source))
    if head.startswith(OLE) or is_workbook(source):
        return lambda source, reading: read_workbook(source, reading.sheet)
    for magic, (called, mend) in _FOREIGN.items():
        if head.startswith(magic) and not (magic == b"\x80" and source.suffix in (".csv", ".tsv", ".txt")):
            raise PiarError(f"{source.name} is {called}.", mend.format(source.name))
    if head[257:262] == b"ustar":
        raise PiarError(f"{source.name} is a tar archive.", f"Unpack it, and give the table: tar -xf {source.name}")
    if _MARKUP.match(head):
        raise PiarError(f"{source.name} is a web page or XML, not a table.", "Give CSV, JSON, Excel or Parquet.")
    if source.suffix in _JSON or _BEGINS_JSON.match(head):
        return read_json
    return read_delimited


# -- Parquet and Arrow ----------------------------------------------------------------------


def read_parquet(source: Source, reading: Reading) -> Table:
    """A Parquet file; numbers and nested values become text."""
    frame = _parquet(source)
    if reader := known_records(frame.head(20).to_dicts(), source.name, reading):
        return reader(list(enumerate(frame.to_dicts(), 1)), source.name, reading.control)
    return numbered(frame)


def _parquet(source: Source) -> pl.DataFrame:
    """Read in batches, since a small file may hold a few values a billion times."""
    parts, size = [], 0
    try:
        with pq.ParquetFile(source.path if source.path else pa.BufferReader(source.bytes())) as file:
            for batch in file.iter_batches(batch_size=8192):
                part = pl.from_arrow(batch)
                assert isinstance(part, pl.DataFrame)
                parts.append(part.with_columns(selectors.categorical().cast(pl.String)))
                size += _size(parts[-1])
                if size > MOST_PARQUET:
                    raise PiarError(
                        f"{source.name} holds more than {MOST_PARQUET >> 30} GiB when unpacked.",
                        "Write it with the columns that are judged alone, or in parts.",
                    )
            schema = pl.from_arrow(file.schema_arrow.empty_table())
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise PiarError(f"{source.name} is not a Parquet file that can be read: {error}", "Write it again.") from None
    assert isinstance(schema, pl.DataFrame)
    return pl.concat(parts) if parts else schema


def _size(frame: pl.DataFrame) -> int:
    """Bytes of its values; equal texts that share memory now are counted one by one, as they will be written."""
    texts = frame.select(selectors.string().str.len_bytes().sum())
    return int(sum(texts.row(0)) if texts.width else 0) + int(frame.select(~selectors.string()).estimated_size())


def read_folder(path: Path) -> Table:
    """A Hugging Face dataset: a folder written by `save_to_disk`, or a folder of Parquet shards.

    Where the dataset has several splits, their names become a column `split`.
    """
    parts = [(split, file, _named_classes(frame, file.parent)) for split, file, frame in _parts(path)]
    if not parts:
        tables = sorted(child for child in path.iterdir() if child.suffix.lower() in _TABLES)
        raise PiarError(
            f"{path} is a folder without a dataset.",
            f"Give one of its files: {shlex.quote(str(tables[0]))}."
            if tables
            else "Give a folder with dataset_info.json or Parquet files.",
        )
    several = len({split for split, *_ in parts}) > 1
    frames = [
        frame.with_columns(split=pl.lit(split)) if several and "split" not in frame.columns else frame
        for split, _, frame in parts
    ]
    try:
        table = numbered(pl.concat(frames, how="diagonal_relaxed"))
    except pl.exceptions.PolarsError as error:
        raise PiarError(f"The parts of {path.name} do not fit together: {error}", "Import them one by one.") from None
    names = [file.relative_to(path).as_posix() for _, file, _ in parts]
    held = ", ".join(names[:_NAMED]) + (f" and {many(len(names) - _NAMED, 'file')} more" if len(names) > _NAMED else "")
    return replace(table, notes=(f"{held} of {path.name}", *table.notes))


def _parts(path: Path) -> Iterator[tuple[str, Path, pl.DataFrame]]:
    """(split, file, frame) of each part of a dataset folder."""
    folders = [path, *sorted(child for child in path.iterdir() if child.is_dir())]
    for folder in folders:
        for file in sorted(folder.glob("*.arrow")):
            if not file.name.startswith("cache-"):  # left there by `Dataset.map`
                yield folder.name, file, _arrow(Source(file.name, file))
        for file in sorted(folder.glob("*.parquet")):
            match = _SHARD.fullmatch(file.name)
            yield match["split"] if match else folder.name, file, _parquet(Source(file.name, file))


def _arrow(source: Source) -> pl.DataFrame:
    with pa.memory_map(str(source.path)) if source.path else pa.BufferReader(source.bytes()) as file:
        try:
            table = pa.ipc.open_stream(file).read_all()
        except pa.ArrowInvalid:
            try:
                table = pa.ipc.open_file(file).read_all()
            except pa.ArrowInvalid as error:
                raise PiarError(f"{source.name} is not an Arrow file: {error}", "Save the dataset again.") from None
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _named_classes(frame: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Class numbers as the names that `dataset_info.json` gives them."""
    try:
        features = json.loads((folder / "dataset_info.json").read_bytes())["features"]
        classes = {c: f["names"] for c, f in features.items() if f.get("_type") == "ClassLabel" and c in frame.columns}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return frame
    return frame.with_columns(
        pl.col(column).replace_strict(dict(enumerate(map(text, names))), default=None, return_dtype=pl.String)
        for column, names in classes.items()
    )
