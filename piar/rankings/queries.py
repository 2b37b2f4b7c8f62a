"""What is known of queries beside their documents: traffic, the chance of being drawn, segments."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from piar.rankings.matching import Matched
from store.db import Store
from store.errors import UsageError
from store.readers import Reading, read

WEIGHT, INCLUSION = "weight", "inclusion"


def query_table(path: Path | None) -> pl.DataFrame | None:
    """A table about queries or documents; None without a file."""
    return None if path is None else read(path, Reading(plain=True)).frame


def weights_and_segments(
    store: Store, matched: Matched, table: pl.DataFrame | None, weight: str | None, segments: Sequence[str]
) -> tuple[dict[str, float] | None, dict[str, dict[str, str]]]:
    """Query -> weight (None: all alike), and heading -> query -> part.

    A drawn query stands for 1 / inclusion of them. The task's slices are segments where they say the same of every row
    of a query.

    Raises:
        UsageError: a column that the table has not, or a weight that is no number.
    """
    named = [*([weight] if weight else []), *segments]
    found = {f"slice {name}": of for name, of in _slices(store, matched).items()}
    if table is None:
        return None, found
    if missing := [name for name in named if name not in table.columns]:
        raise UsageError(
            f"The table of queries has no column {missing[0]!r}; it has {', '.join(map(repr, table.columns))}.",
            "Check the spelling.",
        )
    sides = {"said": matched.queries["said"], "query": matched.queries["query"]}  # as the runs call it, or the samples
    known = {
        (ours, key): int(names.is_in(table[key].unique().implode()).sum())
        for ours, names in sides.items()
        for key in table.columns
    }
    ours, key = max(known, key=lambda pair: known[pair])
    facts = table.unique(key, keep="first", maintain_order=True).rename({key: "\x00key"})
    rows = matched.queries.join(facts, left_on=ours, right_on="\x00key", how="inner", maintain_order="left")
    for heading in segments:
        found[heading] = dict(rows.select("query", heading).iter_rows())
    return _weights(rows, weight or (WEIGHT if WEIGHT in rows.columns else None)), found


def _weights(rows: pl.DataFrame, weight: str | None) -> dict[str, float] | None:
    chance = INCLUSION if INCLUSION in rows.columns else None
    if weight is None and chance is None:
        return None
    counts = _numbers(rows, weight) if weight else pl.Series([1.0] * len(rows))
    counts = counts / _numbers(rows, chance) if chance else counts
    return dict(zip(rows["query"], counts, strict=True))


def _numbers(rows: pl.DataFrame, column: str) -> pl.Series:
    numbers = rows[column].str.strip_chars().cast(pl.Float64, strict=False)
    bad = rows.filter(
        numbers.is_null() | ~numbers.is_finite() | (numbers < 0) | ((numbers == 0) & (column == INCLUSION))
    )
    if len(bad):
        raise UsageError(
            f"Column {column!r} of the table of queries holds {bad[column][0][:40]!r}, which is no number above 0.",
            "Write a number for each query; 0 as a weight leaves a query out.",
        )
    return numbers


def _slices(store: Store, matched: Matched) -> dict[str, dict[str, str]]:
    """Slice -> query -> whether it is in it, for slices that depend on the query alone."""
    out: dict[str, dict[str, str]] = {}
    for name, condition in store.task.slices.items():
        frame = store.frame(
            f"select group_key as unit, bool_and(c) as every, bool_or(c) as any from "
            f"(select group_key, coalesce(({condition}\n)::boolean, false) as c from samples) group by 1"
        )
        if (frame["every"] == frame["any"]).all():
            inside = matched.samples.select("query", "unit").unique().join(frame, on="unit")
            out[name] = {
                query: "inside" if every else "outside" for query, every in inside.select("query", "every").iter_rows()
            }
    return out
