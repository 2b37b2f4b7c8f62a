"""Texts for a list that only has ids: joined from a table of documents, and one of queries."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from store.columns import no_text
from store.errors import UsageError
from store.sources import Reading
from store.tables import Rejection, Table

_SHOWN = 3


def with_texts(table: Table, name: str, reading: Reading, tables: dict[str, pl.DataFrame]) -> Table:
    """The table with the columns of the documents and queries that its ids stand for.

    Args:
        name: of the list, for messages.
        reading: names the tables, for messages, and the column of the documents' ids.
        tables: `document`, `query` -> the table of texts, those that the user named.

    Raises:
        UsageError: ids that no table says the texts of, or that the table does not know.
    """
    before = set(table.frame.columns)
    for role, found in tables.items():
        table = _joined(table, name, role, found, reading)
    if "query" in tables and table.roles:  # few as the texts of queries may be, a judge reads them
        texts = [
            c for c in table.frame.columns if c == "query" or (c not in before and no_text(table.frame, c) is None)
        ]
        table = replace(table, roles={**table.roles, "fields": tuple(texts)})
    missing = [role for role in table.ids if role not in tables]
    if missing and not table.frame.is_empty():  # whoever reads it says that it has no rows
        raise _no_texts(table, name, missing)
    return table


def _joined(table: Table, name: str, role: str, texts: pl.DataFrame, reading: Reading) -> Table:
    """Rows whose id the texts do not know are left out, with that as the reason."""
    on = reading.on if role == "document" else None
    path = Path(str(reading.documents if role == "document" else reading.queries))
    if on is not None and on not in texts.columns:
        raise UsageError(
            f"{path.name} has no column {on!r}; it has {', '.join(map(repr, texts.columns))}.", "Name the ids."
        )
    ours = table.ids.get(role) or (
        on if on in table.frame.columns else table.roles.get("id" if role == "document" else "group")
    )
    if ours is None:
        raise UsageError(
            f"{name} has no column {on!r} to join {path.name} by."
            if on
            else f"Nothing says which column joins {path.name}.",
            f"Name one that both have: --on COLUMN. {name} has {', '.join(map(repr, table.frame.columns))}.",
        )
    ids = table.frame[str(ours)]
    theirs = on or max(texts.columns, key=lambda column: int(ids.is_in(texts[column].unique().implode()).sum()))
    known = ids.is_in(texts[theirs].unique().implode())
    if not known.any():
        shown = [", ".join(repr(v[:40]) for v in part.unique().sort().head(_SHOWN)) for part in (ids, texts[theirs])]
        raise UsageError(
            f"No {role} of {name} is in column {theirs!r} of {path.name}: {shown[0]} here, {shown[1]} there.",
            "Name the column of the ids: --on COLUMN.",
        )
    new = {column: _free(column, role, table.frame) for column in texts.columns if column != theirs}
    texts = texts.unique(theirs, keep="first", maintain_order=True)
    texts = texts.select(theirs, *(pl.col(column).alias(name) for column, name in new.items()))
    joined = table.frame.filter(known).join(
        texts, left_on=str(ours), right_on=theirs, how="left", maintain_order="left"
    )
    strange = zip(table.lines.filter(~known).to_list(), ids.filter(~known).to_list(), strict=True)
    lost = [Rejection(line, f"its {role} {name[:40]!r} is not in {path.name}") for line, name in strange]
    votes = table.votes
    if votes is not None:
        places = pl.DataFrame({"row": known.arg_true().cast(pl.Int64), "new": range(int(known.sum()))})
        votes = votes.join(places, on="row", maintain_order="left").with_columns(row="new").drop("new")
    joined = joined.with_columns(pl.col(list(new.values())).fill_null(""))
    return replace(table, frame=joined, lines=table.lines.filter(known), rejected=(*table.rejected, *lost), votes=votes)


def _free(column: str, role: str, frame: pl.DataFrame) -> str:
    """A name for a column of texts that the list does not have: the text of a query is `query`."""
    name = "query" if role == "query" and column.lower() in ("text", "query", "query_text", "title") else column
    return name if name not in frame.columns else f"{role}_{column}"


def _no_texts(table: Table, name: str, missing: list[str]) -> UsageError:
    called = table.notes[-1] if table.notes else "a list of ids"
    what = " and ".join({"query": "queries", "document": "documents"}[role] for role in missing)
    options = {"document": "--documents documents.parquet --on ID", "query": "--queries queries.tsv"}
    named = " ".join(options[role] for role in sorted(missing))
    columns = ", ".join(f"{table.ids[role]!r}" for role in missing)
    return UsageError(
        f"{name} is {called}: it names {what} by ids ({columns}), and piar judges texts.",
        f"Join them from tables with a column of these ids and columns of texts: add {named}.",
    )
