"""Ordered schema changes, each one function and one transaction. Append only."""

from collections.abc import Callable
from importlib.resources import files

import duckdb

Migration = Callable[[duckdb.DuckDBPyConnection], None]


def _new_views(con: duckdb.DuckDBPyConnection) -> None:
    """Only the views have changed: `migrate` makes them again."""


def _what_people_say_more(con: duckdb.DuckDBPyConnection) -> None:
    """Answers beside the grade, such as marked spans; and which instruction a person's page shows since when."""
    con.execute("alter table labels add column if not exists further json default '{}'")
    con.execute("alter table review_projects add column if not exists instruction varchar default ''")


def _words_overtaken(con: duckdb.DuckDBPyConnection) -> None:
    """When a rule or a grade said something else than now; `store.wording.mark_overtaken` fills it."""
    con.execute("create table if not exists overtaken (what varchar not null, since timestamp, until timestamp)")


# MIGRATIONS[n] takes a store from schema n + 1 to n + 2; schema 1 is `schema.sql` as first released.
MIGRATIONS: tuple[Migration, ...] = (_new_views, _new_views, _new_views, _what_people_say_more, _words_overtaken)


def latest() -> int:
    """The schema version that this code writes."""
    return 1 + len(MIGRATIONS)


def migrate(con: duckdb.DuckDBPyConnection, version: int) -> None:
    """Apply what is missing and make the views again, inside the caller's transaction."""
    for step in MIGRATIONS[version - 1 :]:
        step(con)
    create_views(con)
    con.execute("update meta set value = ? where key = 'schema'", [str(latest())])


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """The tables of schema 1; `migrate(con, 1)` brings them up to date."""
    con.execute(files("store").joinpath("schema.sql").read_text(encoding="utf-8"))


def create_views(con: duckdb.DuckDBPyConnection) -> None:
    """The views over the tables, replacing those that are there."""
    con.execute(files("store").joinpath("views.sql").read_text(encoding="utf-8"))
