"""Read-only SQL over the store: no writing, no files, no network, whatever the statement says."""

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from piar.export import FORMULA
from store.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from store.db import Store


def query(store: "Store", statement: str) -> "pl.DataFrame":
    """The result of a statement; UUIDs as text, repeated column names numbered.

    Args:
        store: the store to ask; it is opened read-only.
        statement: any SQL that DuckDB can answer without touching files.

    Raises:
        UsageError: the statement is wrong, or asks for what it may not have.
    """
    import duckdb
    import polars as pl

    if not statement.strip():
        raise UsageError("The statement is empty.", 'For example: piar sql "select * from leaderboard"')
    with store.read() as con:
        con.execute("set enable_external_access = false; set lock_configuration = true")
        try:
            relation = con.sql(statement)
            table = None if relation is None else relation.to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(
                f"The statement failed: {str(error).strip()}", "`piar sql 'show tables'` lists tables and views."
            ) from None
    if table is None:
        return pl.DataFrame()
    frame = pl.from_arrow(table.rename_columns(_distinct(table.column_names)))
    assert isinstance(frame, pl.DataFrame)
    return frame


def as_csv(frame: "pl.DataFrame") -> str:
    """A frame as CSV without the last line's end: lists as JSON, cells safe for spreadsheets (see `piar.export`)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows([_cell(value) for value in row] for row in frame.iter_rows())
    return text.getvalue().removesuffix("\n")


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen[name] = seen.get(name, 0) + 1
        result.append(name if count == 1 else f"{name}_{count}")
    return result
