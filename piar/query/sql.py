"""Read-only SQL over the store: no writing, no files, no network, whatever the statement says."""

import csv
import io
import json
import re
from threading import Timer
from typing import TYPE_CHECKING, Any

from store.errors import UsageError
from store.files import cell

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    import pyarrow as pa

    from store.db import Store


SECONDS = 300.0
MEMORY = "4GB"
MOST_BYTES = 2**30  # of an answer, held in memory
_LOCKED = """set python_enable_replacements = false; set enable_external_access = false;
set lock_configuration = true"""
_ASKS = ("SELECT", "EXPLAIN", "MULTI")  # a PIVOT is several statements to DuckDB


def query(store: "Store", statement: str) -> "pl.DataFrame":
    """The result of a statement; UUIDs and spans of time as text, repeated column names numbered.

    Args:
        store: the store to ask; it is opened read-only.
        statement: one SQL query that DuckDB can answer without touching files.

    Raises:
        UsageError: the statement is wrong, asks for what it may not have, or takes too long or too much memory.
    """
    import duckdb
    import polars as pl

    if not statement.strip():
        raise UsageError("The statement is empty.", 'For example: `piar sql "select * from leaderboard"`')
    with store.read() as con:
        con.execute(f"set memory_limit = '{MEMORY}'; {_LOCKED}")
        timer = Timer(SECONDS, con.interrupt)
        timer.start()
        try:
            table = _answer(con, statement)
        except duckdb.InterruptException:
            if timer.is_alive():
                raise
            raise UsageError(f"The statement took more than {SECONDS:g} s.", "Ask for less at a time.") from None
        except duckdb.Error as error:
            raise UsageError(
                f"The statement failed: {str(error).strip()}", "`piar sql 'show tables'` lists tables and views."
            ) from None
        finally:
            timer.cancel()
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _answer(con: "duckdb.DuckDBPyConnection", statement: str) -> "pa.Table":
    import pyarrow as pa

    kinds = [found.type.name for found in con.extract_statements(statement)]
    if len(kinds) != 1 or kinds[0] not in _ASKS:
        raise UsageError("Only one query at a time may be asked, and nothing else.", "Write one `select`.")
    relation = con.sql(statement)
    names = relation.columns
    if any(map(_only_as_text, relation.types)):
        places = enumerate(relation.types, start=1)
        relation = relation.project(", ".join(f"#{n}::varchar" if _only_as_text(t) else f"#{n}" for n, t in places))
    batches, size = [], 0
    reader = relation.to_arrow_reader(100_000)
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size > MOST_BYTES:
            raise UsageError(f"The answer is larger than {MOST_BYTES / 2**30:g} GB.", "Add `limit 1000000`, or count.")
    return pa.Table.from_batches(batches, reader.schema).rename_columns(_distinct(names))


def _only_as_text(kind: object) -> bool:
    """Whether a type of DuckDB is, or holds, one that polars has not: the difference of two times, for one."""
    return re.search(r"\b(INTERVAL|UNION)\b", str(kind)) is not None


def as_csv(frame: "pl.DataFrame") -> str:
    """A frame as CSV without the last line's end: lists as JSON, cells safe for spreadsheets (see
    `piar.query.export`).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell, frame.columns))
    writer.writerows([_cell(value) for value in row] for row in frame.iter_rows())
    return text.getvalue().removesuffix("\n")


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return cell(value) if isinstance(value, str) else value


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen[name] = seen.get(name, 0) + 1
        result.append(name if count == 1 else f"{name}_{count}")
    return result
