"""Cells that hold lists: the votes of a row, which become columns, or graded things, which become rows."""

import json
import re
from dataclasses import replace
from typing import Any

import polars as pl

from store.cells import missing
from store.columns import MAX_GRADES, gold_named, key, nested
from store.graders import PERSON
from store.tables import Rejection, Table, from_records, text

_LISTED = re.compile(
    rf"{PERSON}s?_?(?:labels?|grades?|ratings?|votes?|judge?ments?)|votes|ratings|judge?ments|opinions"
)
_MOST_VOTES = 30  # in a list


def with_listed_rows(table: Table) -> Table:
    """The table with one row a graded thing, where each row lists them in one cell (`results: [{title, grade}]`)."""
    frame = table.frame
    if gold_named(frame.columns) or frame.is_empty():
        return table
    name = next((column for column in frame.columns if _is_graded(_objects(frame[column][0]))), None)
    if name is None:
        return table
    rows, lines, rejected = list[dict[str, Any]](), list[int](), list(table.rejected)
    for line, row in zip(table.lines.to_list(), frame.to_dicts(), strict=True):
        found = _objects(row.pop(name))
        if not found:
            rejected.append(Rejection(line, f"lists nothing in {name!r}"))
        for item in found:
            rows.append(row | {f"{name}_{column}" if column in row else column: v for column, v in item.items()})
            lines.append(line)
    spread = from_records(rows, lines, rejected)
    return replace(spread, notes=(*table.notes, f"one row for each of {name!r}"))


def _is_graded(found: list[dict[str, Any]]) -> bool:
    """Whether objects are called to hold a grade, and it is one value."""
    plain = [column for column, value in found[0].items() if not isinstance(value, dict | list)] if found else []
    return gold_named(plain) is not None


def _objects(cell: str) -> list[dict[str, Any]]:
    """The objects of a list of nothing else; none for any other cell."""
    if not re.match(r"\[\s*\{", cell):
        return []
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return []
    return found if all(isinstance(item, dict) for item in found) else []


def with_listed_votes(table: Table) -> Table:
    """The table with one column a vote, where each row lists its annotators' grades in one cell."""
    frame = table.frame
    for name in [name for name in frame.columns if _LISTED.fullmatch(key(name))]:
        lists = [_listed(cell) for cell in frame[name].to_list()]
        held = {value for votes in lists for value in votes or ()}
        width = max((len(votes) for votes in lists if votes), default=0)
        names = [f"rater_{i}" for i in range(1, width + 1)]
        if None in lists or not 1 < len(held) <= MAX_GRADES or {*names} & {*frame.columns}:
            continue
        columns = [pl.Series(n, [dict(enumerate(v or ())).get(i, "") for v in lists]) for i, n in enumerate(names)]
        note = f"{name} lists the votes of a row: rater_1 to rater_{width}"
        return replace(table, frame=frame.drop(name).with_columns(columns), notes=(*table.notes, note))
    return table


def _listed(cell: str) -> list[str] | None:
    """The grades of a list, none of an empty cell; None for what is no list of grades."""
    if missing(cell):
        return []
    try:
        votes = json.loads(cell) if nested(cell) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(votes, list) or len(votes) > _MOST_VOTES or any(isinstance(v, dict | list) for v in votes):
        return None
    return [text(vote) for vote in votes]
