"""Texts for a table that only has ids: joined from a table of documents, and one of queries."""

import re
from dataclasses import replace
from pathlib import Path

import polars as pl

from store.columns import identifies, key, names_document, names_group, no_text
from store.errors import UsageError
from store.sources import Reading
from store.tables import Rejection, Table

_SHOWN = 3
_KNOWN = "\0known"  # a column that no file can have
_LOOKED_AT = 1000  # rows


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
    path = Path(str(reading.documents if role == "document" else reading.queries))
    ours, theirs = _keys(table, name, role, texts, reading.on if role == "document" else None, path.name)
    ids = table.frame[ours]
    texts, theirs = _headed(texts, theirs, role)
    if not ids.is_in(texts[theirs].unique().implode()).any():
        shown = [", ".join(repr(v[:40]) for v in part.unique().sort().head(_SHOWN)) for part in (ids, texts[theirs])]
        raise UsageError(
            f"No {role} of {name} is in column {theirs!r} of {path.name}: {shown[0]} here, {shown[1]} there.",
            "Name the column of the ids: --on COLUMN.",
        )
    more = _further_keys(table.frame, texts, theirs)
    new = {c: _free(c, role, table.frame) for c in texts.columns if c not in (theirs, *more)}
    texts = texts.unique([theirs, *more], keep="first", maintain_order=True)
    named = (pl.col(column).alias(name) for column, name in new.items())
    joined = table.frame.join(
        texts.select(theirs, *more, *named, pl.lit(True).alias(_KNOWN)),
        left_on=[ours, *more],
        right_on=[theirs, *more],
        how="left",
        maintain_order="left",
    )
    known = joined[_KNOWN].is_not_null()
    joined = joined.filter(known).drop(_KNOWN)
    strange = zip(table.lines.filter(~known).to_list(), ids.filter(~known).to_list(), strict=True)
    lost = [Rejection(line, f"its {role} {name[:40]!r} is not in {path.name}") for line, name in strange]
    votes = table.votes
    if votes is not None:
        places = pl.DataFrame({"row": known.arg_true().cast(pl.Int64), "new": range(int(known.sum()))})
        votes = votes.join(places, on="row", maintain_order="left").with_columns(row="new").drop("new")
    joined = joined.with_columns(pl.col(list(new.values())).fill_null(""))
    by = " and ".join([theirs, *more])
    return replace(
        table,
        frame=joined,
        lines=table.lines.filter(known),
        rejected=(*table.rejected, *lost),
        votes=votes,
        notes=(*table.notes, f"texts of {path.name} joined by {by}"),
    )


def _keys(table: Table, name: str, role: str, texts: pl.DataFrame, on: str | None, called: str) -> tuple[str, str]:
    """The columns of ids here and in the table of texts: as said, as the list's format says, else as both have them."""
    if on is not None and on not in texts.columns:
        raise UsageError(
            f"{called} has no column {on!r}; it has {', '.join(map(repr, texts.columns))}.", "Name the ids."
        )
    told = table.roles.get("id" if role == "document" else "group")
    ours = table.ids.get(role) or (on if on in table.frame.columns else told)
    if ours is not None:
        ids = table.frame[str(ours)]
        return str(ours), on or max(texts.columns, key=lambda c: int(ids.is_in(texts[c].unique().implode()).sum()))
    if on is None and (shared := _shared(table.frame, texts, role)):
        return shared
    raise UsageError(
        f"{name} has no column {on!r} to join {called} by." if on else f"Nothing says which column joins {called}.",
        f"Name one that both have: --on COLUMN. {name} has {', '.join(map(repr, table.frame.columns))}.",
    )


def _shared(frame: pl.DataFrame, texts: pl.DataFrame, role: str) -> tuple[str, str] | None:
    """The id that both tables have under one name; one of documents, or of queries, before any other."""
    fits = names_document if role == "document" else names_group
    theirs = {key(column): column for column in reversed(texts.columns)}
    found = [
        (fits(ours), texts[there].n_unique(), ours, there)
        for ours in frame.columns
        if identifies(ours) and (there := theirs.get(key(ours))) and frame[ours].is_in(texts[there].implode()).any()
    ]
    return max(found)[2:] if found else None


def _further_keys(frame: pl.DataFrame, texts: pl.DataFrame, theirs: str) -> list[str]:
    """Columns of both tables that tell apart texts of one id, such as the locale of a product."""
    if texts[theirs].n_unique() == len(texts):
        return []
    both = [column for column in texts.columns if column != theirs and column in frame.columns]
    return [c for c in both if texts.select(theirs, c).n_unique() > texts[theirs].n_unique()]


def _headed(texts: pl.DataFrame, theirs: str, role: str) -> tuple[pl.DataFrame, str]:
    """The table with its first line as a row, where that line is no header: the name of the ids is itself an id."""
    shape = re.sub(r"\d+", "0", theirs)
    alike = texts[theirs].head(_LOOKED_AT).str.replace_all(r"\d+", "0").eq(shape)
    if "0" not in shape or alike.sum() * 2 <= len(alike):
        return texts, theirs
    others = [column for column in texts.columns if column != theirs]
    called = ["text"] if len(others) == 1 else [f"text_{i}" for i in range(1, len(others) + 1)]
    names = {theirs: f"{role}_id"} | dict(zip(others, called, strict=True))
    first = pl.DataFrame({new: [old] for old, new in names.items()})
    return pl.concat([first.select(names[c] for c in texts.columns), texts.rename(names)]), names[theirs]


def _free(column: str, role: str, frame: pl.DataFrame) -> str:
    """A name for a column of texts that the list does not have: the text of a query is `query`."""
    name = "query" if role == "query" and column.lower() in ("text", "query", "query_text", "title") else column
    return name if name not in frame.columns else f"{role}_{column}"


def _no_texts(table: Table, name: str, missing: list[str]) -> UsageError:
    called = table.notes[-1] if table.notes else "a list of ids"
    what = " and ".join({"query": "queries", "document": "documents"}[role] for role in missing)
    options = {"document": "--documents documents.parquet", "query": "--queries queries.tsv"}
    named = " ".join(options[role] for role in sorted(missing))
    columns = ", ".join(f"{table.ids[role]!r}" for role in missing)
    return UsageError(
        f"{name} is {called}: it names {what} by ids ({columns}), and piar judges texts.",
        f"Join them from tables with a column of these ids and columns of texts: add {named}.",
    )
