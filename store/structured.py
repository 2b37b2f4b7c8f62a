"""JSON as a table: objects in a list, one a line, by id, by column, or inside one key of a wrapper."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from store.encodings import decode, is_broken
from store.errors import PiarError
from store.formats import known_records
from store.header import table_of
from store.label_studio import is_export, read_export
from store.sources import Reading, Source
from store.tables import Rejection, Table, from_records, text

Rows = tuple[list[Any], str]  # the records, and what to tell of how they were found


def read_json(source: Source, reading: Reading) -> Table:
    """A JSON document in one of the shapes that tables have, or JSON lines, whatever the name says.

    Raises:
        PiarError: no JSON, no table, or the export of a tool that is not read yet.
        UsageError: a Label Studio export with several controls of which none is named.
    """
    decoded = decode(source.bytes(), source.name, reading.encoding)
    noted = (decoded.note,) if decoded.note else ()
    try:
        data = json.loads(_without_last_comma(decoded.text))
    except (ValueError, RecursionError) as error:
        table = _read_lines(source, decoded.text, error, reading)
        return replace(table, notes=(*noted, *table.notes))
    if isinstance(data, dict) and (reader := known_records([data], source.name, reading)):
        found = reader([(1, data)], source.name, reading.control)
        return replace(found, notes=(*noted, *found.notes))
    records, note = _rows(data)
    if note:
        noted = (*noted, note)
    if records and all(isinstance(record, list) for record in records):
        cells = [[text(value) for value in record] for record in records]
        return replace(table_of(enumerate(cells, 1), source.name), notes=noted)
    if is_export(records):
        table = read_export(records, source.name, reading.control)
    elif reader := known_records(_first_objects(records), source.name, reading):
        table = reader(list(enumerate(records, 1)), source.name, reading.control)
    else:
        table = _objects(enumerate(records, 1))
    return replace(table, notes=(*noted, *table.notes))


def _without_last_comma(document: str) -> str:
    """A list without the comma that programs which write row by row leave after the last one."""
    if document.lstrip()[:1] != "[" or document.rstrip()[-1:] != "]":
        return document
    inside = document.rstrip()[:-1].rstrip()
    return inside.removesuffix(",") + "]"


def _read_lines(source: Source, document: str, error: Exception, reading: Reading) -> Table:
    """JSON lines, or objects one after the other; else the fault of the document."""
    found = list(_lines(document))
    good = [record for _, record in found if isinstance(record, dict)]
    if not good and (stream := _stream(document)):
        found, good = stream, [record for _, record in stream]
    if not good or (document.lstrip()[:1] == "[" and len(good) * 2 < len(found)):
        raise PiarError(f"{source.name} is not JSON that can be read: {error}.", "Write the file again.")
    if reader := known_records(good[:20], source.name, reading):
        return reader(found, source.name, reading.control)
    return _objects(found)


def _lines(document: str) -> Iterator[tuple[int, Any]]:
    """(line, value or what is wrong with it) of each line; a comma after an object does no harm."""
    for number, line in enumerate(document.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, ValueError("broken bytes") if is_broken(line) else json.loads(line.strip().removesuffix(","))
        except (ValueError, RecursionError) as error:
            yield number, error


def _stream(document: str) -> list[tuple[int, Any]]:
    """Objects that follow one another without being a list, as `jq` prints them; none when anything else is there."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(document):
        try:
            record, end = decoder.raw_decode(document, at)
        except (ValueError, RecursionError):
            return []
        if not isinstance(record, dict):
            return []
        found.append((document.count("\n", 0, at) + 1, record))
        at = end + len(document[end:]) - len(document[end:].lstrip(" \t\r\n,"))
    return found


def _rows(data: Any) -> Rows:
    """The records of a document."""
    if not isinstance(data, dict):
        return (data, "") if isinstance(data, list) else ([data], "")
    values = list(data.values())
    for shape in (_split, _by_column, _by_id, _wrapped):
        if values and (rows := shape(data, values)) is not None:
            return rows
    return [data], ""


def _by_column(data: Mapping[str, Any], values: list[Any]) -> Rows | None:
    """Lists of one length, or objects with the same numbered keys, as pandas writes columns."""
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        if len(values) > 1 and not any(isinstance(value[0], dict) for value in values if value):
            return [dict(zip(data, row, strict=True)) for row in zip(*values, strict=True)], "read by columns"
        return None
    if not all(isinstance(value, dict) for value in values):
        return None
    keys = list(values[0])
    if keys and all(key.isdecimal() for key in keys) and all(list(value) == keys for value in values):
        return [{name: data[name][key] for name in data} for key in keys], "read by columns"
    return None


def _split(data: Mapping[str, Any], values: list[Any]) -> Rows | None:
    """Names in one list, rows in another."""
    names, rows = data.get("columns"), data.get("data", data.get("rows"))
    if not (isinstance(names, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows)):
        return None
    names = [name.get("name") if isinstance(name, dict) else name for name in names]
    return [dict(zip(map(text, names), row, strict=False)) for row in rows], ""


def _by_id(data: Mapping[str, Any], values: list[Any]) -> Rows | None:
    """Objects by their id; the id becomes a column."""
    if len(values) < 2 or not all(isinstance(value, dict) for value in values):
        return None
    if not set.intersection(*(set(value) for value in values)):
        return None
    name = next(name for name in ("id", "key", "_key") if not any(name in value for value in values) or name == "_key")
    return [{name: key, **value} for key, value in data.items()], f"read by id, as column {name!r}"


def _wrapped(data: Mapping[str, Any], values: list[Any]) -> Rows | None:
    """The one list of objects in a wrapper."""
    lists = {
        key: value
        for key, value in data.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
    if len(lists) != 1:
        return None
    key, rows = next(iter(lists.items()))
    if all(isinstance(row.get("row"), dict) for row in rows):  # as the dataset viewer of Hugging Face answers
        rows = [row["row"] for row in rows]
    return rows, f"read the list {key!r}"


def _first_objects(records: Iterable[Any]) -> list[Mapping[str, Any]]:
    return [record for record in list(records)[:20] if isinstance(record, dict)]


def _objects(records: Iterable[tuple[int, Any]]) -> Table:
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
