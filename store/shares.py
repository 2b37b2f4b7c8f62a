"""Columns that say of each grade how many votes or which probability it got, one column a grade."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from store.cells import number
from store.stats import Floats
from store.tables import VOTES, Table

COUNTED = "counted"  # the annotator of votes whose voters are not known
LIKELIEST = "likeliest grade"  # the column that probabilities become
_MOST_VOTES = 100  # a row; more are no people
_MOST_COLUMNS = 20  # of small numbers; more are measurements
_SAME = 0.99  # of the rows
_MARKS = {"true": "1", "false": "0"}  # forms with a button for each grade are written so


def find_shares(frame: pl.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Neighbouring columns whose numbers add up: to one, to another column, or to the same count on all rows; or ()."""
    cells = {name: values for name in names if (values := _numbers(frame[name])) is not None}
    if len(cells) > _MOST_COLUMNS:
        return ()
    runs = [
        list(cells)[start : start + size] for size in range(len(cells), 1, -1) for start in range(len(cells) - size + 1)
    ]
    runs = [run for run in runs if sum(np.ptp(cells[name]) > 0 for name in run) > 1]
    totals = [np.sum([cells[name] for name in run], axis=0) for run in runs]
    for run, total in zip(runs, totals, strict=True):
        others = [cells[name] for name in cells if name not in run] if _counts(total) else []
        if any(_same(total, other) for other in (np.ones_like(total), *others)):
            return tuple(run)
    steady = (
        run for run, t in zip(runs, totals, strict=True) if _counts(t) and _same(t, np.full_like(t, np.median(t)))
    )
    return tuple(next(steady, ()))


def _numbers(column: pl.Series) -> Floats | None:
    plain = column.str.strip_chars().str.to_lowercase().replace(_MARKS)
    values = plain.cast(pl.Float64, strict=False).fill_null(-1).to_numpy()
    return values if len(values) and ((values >= 0) & (values <= _MOST_VOTES)).all() else None


def _counts(total: Floats) -> bool:
    """Whether sums may be numbers of votes."""
    return bool((total % 1 == 0).all() and total.max() > 1)


def _same(total: Floats, other: Floats) -> bool:
    return float(np.mean(np.abs(total - other) < 0.02)) >= _SAME


def grade_of(columns: Sequence[str]) -> dict[str, str]:
    """column -> the grade that it counts: its name without the words that all share at an end ("p_good" -> "good")."""
    parts = {name: re.findall(r"[^_ .]+", name) for name in columns}
    start = _alike([words[:-1] for words in parts.values()])
    end = _alike([words[: start or None : -1] for words in parts.values()])
    return {name: "_".join(words[start : len(words) - end]) or name for name, words in parts.items()}


def _alike(lists: Sequence[Sequence[str]]) -> int:
    """How many first words all lists share."""
    same = [len(set(words)) == 1 for words in zip(*lists, strict=False)]
    return same.index(False) if False in same else len(same)


def spread(table: Table, columns: Sequence[str]) -> tuple[Table, str | None]:
    """The table with these columns read: counts as votes, or probabilities as a column of the likeliest grade.

    Returns:
        the table, and the name of the new column (None for counts).
    """
    rows = _shares(table, columns)
    if max(map(sum, rows), default=0) <= 1.02:
        return likeliest(table, columns), LIKELIEST
    grades = grade_of(columns)
    votes: list[tuple[Any, ...]] = [
        (place, COUNTED, grades[name], None, "", [], None)
        for place, row in enumerate(rows)
        for name, n in zip(columns, row, strict=True)
        for _ in range(min(int(n), _MOST_VOTES))
    ]
    frame = pl.DataFrame(votes, schema=VOTES, orient="row")
    return replace(table, votes=frame if table.votes is None else pl.concat([table.votes, frame])), None


def likeliest(table: Table, columns: Sequence[str]) -> Table:
    """The table with a column of the likeliest grade; blank where several grades are equally likely."""
    grades = grade_of(columns)
    names = [
        grades[columns[row.index(max(row))]] if row.count(max(row)) == 1 else "" for row in _shares(table, columns)
    ]
    return replace(table, frame=table.frame.with_columns(pl.Series(LIKELIEST, names, dtype=pl.String)))


def _shares(table: Table, columns: Sequence[str]) -> list[tuple[float, ...]]:
    cells = [
        [number(_MARKS.get(cell.lower(), cell)) or 0.0 for cell in table.frame[name].to_list()] for name in columns
    ]
    return list(zip(*cells, strict=True))
