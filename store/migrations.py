"""Ordered schema changes, each one function and one transaction. Append only."""

from collections.abc import Callable

import duckdb

Migration = Callable[[duckdb.DuckDBPyConnection], None]

# MIGRATIONS[n] takes a store from schema n + 1 to n + 2; schema 1 is `schema.sql` as first released.
MIGRATIONS: tuple[Migration, ...] = ()
LATEST = 1 + len(MIGRATIONS)


def migrate(con: duckdb.DuckDBPyConnection, version: int) -> None:
    """Apply what is missing, inside the caller's transaction."""
    for step in MIGRATIONS[version - 1 :]:
        step(con)
    con.execute("update meta set value = ? where key = 'schema'", [str(LATEST)])
