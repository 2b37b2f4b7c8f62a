"""Files as Polars frames of text: CSV, TSV, JSON, JSON lines, Parquet, Hugging Face folders, Label Studio exports.

Every column is text, missing is "". A row that cannot be read is rejected with its line and reason and
stops nothing.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from store.delimited import read_delimited
from store.errors import PiarError, UsageError
from store.label_studio import is_export, read_export
from store.tables import Rejection, Table, from_records, numbered, text

_SHARD = re.compile(r"(?P<split>[A-Za-z_]+)[-_.]\d+(?:-of-\d+)?.*")
_FOREIGN = {
    b"PK\x03\x04": "an Excel or ZIP file; save it as CSV",
    b"\x1f\x8b": "gzip-compressed; unpack it",
    b"%PDF": "a PDF file; give a table",
    b"SQLite": "an SQLite file; export a table as CSV",
}


def read_table(path: Path) -> pl.DataFrame:
    """The rows of a file that can be read, as text columns, "" where missing.

    Raises:
        UsageError: no such file.
        PiarError: an empty file, or one of no known format.
    """
    return read(path).frame


def read(path: Path, control: str | None = None) -> Table:
    """A file with its line numbers and what had to be rejected; raises as `read_table` does.

    Args:
        control: of a Label Studio export, the name of the control that holds the grade.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist.", "Check the name.")
    try:
        if control is not None:
            table = read_json(path, control)
        else:
            table = read_folder(path) if path.is_dir() else _reader(path)(path)
    except OSError as error:
        raise PiarError(
            f"{path} cannot be read: {error.strerror or error}.", "Check the file and its permissions."
        ) from None
    if table.frame.is_empty() and not table.rejected:
        raise PiarError(f"{path.name} has no rows.", "Give a file with a header and at least one row.")
    return table


def _reader(path: Path) -> Callable[[Path], Table]:
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        return read_parquet
    foreign = next((words for magic, words in _FOREIGN.items() if head.startswith(magic)), None)
    if foreign:
        raise PiarError(f"{path.name} is {foreign}.", "CSV, TSV, JSON, JSONL, Parquet and dataset folders are read.")
    return _READERS.get(path.suffix.lower(), read_delimited)


# -- JSON -----------------------------------------------------------------------------------


def read_json(path: Path, control: str = "grade") -> Table:
    """A JSON array of objects, among them Label Studio's export; or JSON lines under the wrong name."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return read_json_lines(path)
    records = data if isinstance(data, list) else [data]
    if is_export(records):
        return read_export(records, control)
    return _objects(enumerate(records, 1))


def read_json_lines(path: Path) -> Table:
    """One JSON object on each line."""

    def parsed() -> Iterator[tuple[int, Any]]:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except (ValueError, RecursionError) as error:
                        yield number, error

    return _objects(parsed())


def _objects(records: Iterator[tuple[int, Any]] | enumerate[Any]) -> Table:
    """Objects as rows; whatever else stands among them is rejected."""
    rows, lines, rejected = [], [], []
    for number, record in records:
        if isinstance(record, dict):
            rows.append(record)
            lines.append(number)
        else:
            why = f": {record}" if isinstance(record, Exception) else f" but {type(record).__name__}"
            rejected.append(Rejection(number, f"not a JSON object{why}"))
    return from_records(rows, lines, rejected)


# -- Parquet and Arrow ----------------------------------------------------------------------


def read_parquet(path: Path) -> Table:
    """A Parquet file; numbers and nested values become text."""
    return numbered(_parquet(path))


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise PiarError(f"{path.name} is not a Parquet file that can be read: {error}", "Write it again.") from None


def read_folder(path: Path) -> Table:
    """A Hugging Face dataset: a folder written by `save_to_disk`, or a folder of Parquet shards.

    Where the dataset has several splits, their names become a column `split`.
    """
    parts = [(split, _named_classes(frame, part)) for split, part, frame in _parts(path)]
    if not parts:
        raise PiarError(
            f"{path.name} is a folder without a dataset.", "Give a folder with dataset_info.json or Parquet files."
        )
    several = len({split for split, _ in parts}) > 1
    frames = [
        frame.with_columns(split=pl.lit(split)) if several and "split" not in frame.columns else frame
        for split, frame in parts
    ]
    try:
        return numbered(pl.concat(frames, how="diagonal_relaxed"))
    except pl.exceptions.PolarsError as error:
        raise PiarError(f"The parts of {path.name} do not fit together: {error}", "Import them one by one.") from None


def _parts(path: Path) -> Iterator[tuple[str, Path, pl.DataFrame]]:
    """(split, folder, frame) of each part of a dataset folder."""
    folders = [path, *sorted(child for child in path.iterdir() if child.is_dir())]
    for folder in folders:
        for file in sorted(folder.glob("*.arrow")):
            if not file.name.startswith("cache-"):  # left there by `Dataset.map`
                yield folder.name, folder, _arrow(file)
        for file in sorted(folder.glob("*.parquet")):
            match = _SHARD.fullmatch(file.name)
            yield match["split"] if match else folder.name, folder, _parquet(file)


def _arrow(path: Path) -> pl.DataFrame:
    with pa.memory_map(str(path)) as source:
        try:
            table = pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            try:
                table = pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid as error:
                raise PiarError(f"{path.name} is not an Arrow file: {error}", "Save the dataset again.") from None
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


_READERS: dict[str, Callable[[Path], Table]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
    ".pq": read_parquet,
}
