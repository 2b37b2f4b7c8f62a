"""Parquet and Arrow files as frames; class numbers become the names that a Hugging Face dataset gives them."""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars import selectors

from store.errors import PiarError
from store.sources import Source
from store.tables import text

MOST_PARQUET = 4 << 30  # bytes in memory


def parquet_frame(source: Source) -> pl.DataFrame:
    """A Parquet file, read in batches, since a small file may hold a few values a billion times.

    Raises:
        PiarError: damaged, or too much when unpacked.
    """
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
            classes = _said_classes(file.schema_arrow)
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise PiarError(f"{source.name} is not a Parquet file that can be read: {error}", "Write it again.") from None
    assert isinstance(schema, pl.DataFrame)
    return with_classes(pl.concat(parts) if parts else schema, classes)


def _size(frame: pl.DataFrame) -> int:
    """Bytes of its values; equal texts that share memory now are counted one by one, as they will be written."""
    texts = frame.select(selectors.string().str.len_bytes().sum())
    return int(sum(texts.row(0)) if texts.width else 0) + int(frame.select(~selectors.string()).estimated_size())


def arrow_frame(source: Source) -> pl.DataFrame:
    """An Arrow file or stream; raises `PiarError` when it is none."""
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
    return with_classes(frame, _said_classes(table.schema))


def _said_classes(schema: pa.Schema) -> dict[str, list[str]]:
    """The classes that `datasets` writes into a file's schema."""
    try:
        return classes_of(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # whatever its writer put there
        return {}


def classes_of(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """column -> the names of its classes, of features as `datasets` writes them."""
    return {
        column: list(map(text, feature["names"]))
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def with_classes(frame: pl.DataFrame, classes: Mapping[str, list[str]]) -> pl.DataFrame:
    """Class numbers as names; -1, as splits have it whose labels are kept back, is blank. Names stay as they are."""
    open_ = [
        name
        for name in classes
        if name in frame.columns
        and not frame[name].dtype.is_nested()
        and (frame[name].dtype.is_integer() or not frame[name].cast(pl.String).is_in(classes[name]).all())
    ]
    return frame.with_columns(
        pl.col(column).cast(pl.String).replace({str(i): name for i, name in enumerate(classes[column])} | {"-1": ""})
        for column in open_
    )
