"""A sample of a log: so many distinct rows, the more frequent the likelier.

Drawn without replacement by exponential keys (Efraimidis and Spirakis 2006): the rows with the N smallest -ln(u) / w.
While no row's weight is near 1/N of all, a row comes with a chance in proportion to its weight, so that each drawn row
stands for as much traffic and means over the sample need no weights.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from store.errors import UsageError
from store.tables import Rejection, Table


def draw(table: Table, n: int, weight: str | None = None, seed: int = 0) -> Table:
    """At most n rows of a table, in their order; the same seed draws the same rows.

    Args:
        weight: column of the weights, all equal when None; rows whose weight is no positive number are rejected.

    Raises:
        UsageError: no such column, or a table whose labels are records of their own.
    """
    if table.votes is not None:
        raise UsageError("A Label Studio export is not a log to be sampled.", "Import it whole, without --sample.")
    if weight is not None and weight not in table.frame.columns:
        raise UsageError(
            f"No column {weight!r}; the file has {', '.join(map(repr, table.frame.columns))}.",
            "Name the column of counts with --weight.",
        )
    rows = len(table.frame)
    weights = np.ones(rows)
    if weight is not None:
        weights = table.frame[weight].str.strip_chars().cast(pl.Float64, strict=False).fill_null(0.0).to_numpy()
    valid = np.isfinite(weights) & (weights > 0)
    keys = np.full(rows, np.inf)
    keys[valid] = np.random.default_rng(seed).exponential(size=rows)[valid] / weights[valid]
    chosen = np.sort(np.argsort(keys, kind="stable")[: min(n, int(valid.sum()))])
    lines = table.lines.to_numpy()
    bad = tuple(Rejection(int(line), f"{weight} is no positive number") for line in lines[~valid])
    return replace(table, frame=table.frame[chosen], lines=table.lines[chosen], rejected=(*table.rejected, *bad))
