"""A sample of a log: so many distinct rows, the more frequent the likelier.

Drawn without replacement by exponential keys (Efraimidis and Spirakis 2006): the rows with the N smallest -ln(u) / w.
While no row's weight is near 1/N of all, a row comes with a chance in proportion to its weight, so that each drawn row
stands for as much traffic and means over the sample need no weights.

Or whole queries with all their rows, by strata of traffic: head, torso and tail are the most frequent queries that make
a third of it each (chosen by us). As many are drawn in each, at random, so that rare queries are seen too; a query's
chance is its stratum's share, and its weight over that chance is what it stands for.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from store.errors import UsageError
from store.prepare import clean
from store.stats import Floats
from store.tables import Rejection, Table

STRATA = ("head", "torso", "tail")


def draw(table: Table, n: int, weight: str | None = None, seed: int = 0) -> Table:
    """At most n rows of a table, in their order; the same seed draws the same rows.

    Args:
        weight: column of the weights, all equal when None; rows whose weight is no positive number are rejected.

    Raises:
        UsageError: no such column, or a table whose labels are records of their own.
    """
    _check(table, weight)
    rows = len(table.frame)
    weights = _weights(table.frame, weight)
    valid = np.isfinite(weights) & (weights > 0)
    keys = np.full(rows, np.inf)
    keys[valid] = np.random.default_rng(seed).exponential(size=rows)[valid] / weights[valid]
    chosen = np.sort(np.argsort(keys, kind="stable")[: min(n, int(valid.sum()))])
    lines = table.lines.to_numpy()
    bad = tuple(Rejection(int(line), f"{weight} is no positive number") for line in lines[~valid])
    return replace(table, frame=table.frame[chosen], lines=table.lines[chosen], rejected=(*table.rejected, *bad))


def draw_queries(
    table: Table, n: int, query: str, weight: str | None = None, seed: int = 0
) -> tuple[Table, pl.DataFrame]:
    """The rows of at most n queries, in their order, and what is known of these.

    Args:
        query: column of the queries.
        weight: column that says how often a row came; a query weighs as much as its rows together.

    Returns:
        the table, and `query`, `weight`, `inclusion` and `stratum` of each query that was drawn.

    Raises:
        UsageError: no such column, or a table whose labels are records of their own.
    """
    _check(table, weight)
    weighed = table.frame.select(query=clean(table.frame[query]), weight=pl.Series(_weights(table.frame, weight)))
    whole = weighed.filter((pl.col("weight") > 0) & (pl.col("query") != ""))
    queries = whole.group_by("query").agg(pl.col("weight").sum()).sort(["weight", "query"], descending=[True, False])
    before = (pl.col("weight").cum_sum() - pl.col("weight")) / pl.col("weight").sum()
    queries = queries.with_columns(place=(before * len(STRATA)).floor().clip(0, len(STRATA) - 1).cast(pl.Int64))
    rng, left, parts = np.random.default_rng(seed), n, []
    strata = sorted(queries.partition_by("place"), key=len)  # the small ones first: what they lack goes to the others
    for at, stratum in enumerate(strata):
        size = min(len(stratum), left // (len(strata) - at))
        left -= size
        chosen = stratum[np.sort(rng.choice(len(stratum), size, replace=False))]
        parts.append(chosen.with_columns(inclusion=pl.lit(size / len(stratum))))
    drawn = pl.concat(parts).with_columns(stratum=pl.col("place").replace_strict(dict(enumerate(STRATA))))
    kept = weighed["query"].is_in(drawn["query"].implode())
    found = replace(table, frame=table.frame.filter(kept), lines=table.lines.filter(kept))
    return found, drawn.select("query", "weight", "inclusion", "stratum").sort("query")


def _check(table: Table, weight: str | None) -> None:
    if table.votes is not None:
        raise UsageError("A file of people's votes is not a log to be sampled.", "Import it whole, without --sample.")
    if weight is not None and weight not in table.frame.columns:
        raise UsageError(
            f"No column {weight!r}; the file has {', '.join(map(repr, table.frame.columns))}.",
            "Name the column of counts with --weight.",
        )


def _weights(frame: pl.DataFrame, column: str | None) -> Floats:
    """The weight of each row: 1 without a column, 0 where it is no finite number."""
    if column is None:
        return np.ones(len(frame))
    numbers = frame[column].str.strip_chars().cast(pl.Float64, strict=False).fill_null(0.0).to_numpy()
    return np.where(np.isfinite(numbers), numbers, 0.0)
