"""Read-only SQL over the store: no writing, no files, no network, whatever the statement says."""

from typing import TYPE_CHECKING

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


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen[name] = seen.get(name, 0) + 1
        result.append(name if count == 1 else f"{name}_{count}")
    return result
