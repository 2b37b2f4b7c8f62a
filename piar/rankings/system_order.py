"""How far judges agree on the order of systems: each system's mean by each judge, and Kendall's tau between the orders.

Agreement on rows is not agreement on rankings: a judge that is wrong on many documents may still put systems in the
right order, and one that is right on most may not tell the best ones apart. Others: tau-b (Kendall 1945), as in the
studies of TREC's assessors since Voorhees 2000. Chosen by us: both judges on the same queries, those of which each has
graded a document (what a judge has not graded is not relevant for it); the interval by drawing queries anew.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from piar.rankings.judges import Judgements
from piar.rankings.matching import Matched
from piar.rankings.measures import Measure, per_query
from store.errors import PiarError
from store.stats import Floats, GroupBootstrap, Interval, group_codes, group_sums


@dataclass(frozen=True, slots=True)
class SystemOrder:
    """Systems by judges.

    Attributes:
        means: judge -> system -> mean of the measure; systems by the first judge's order, the best first.
        agreement: pair of judges -> tau between their orders; None where one of them puts all systems level.
        queries: how many all judges have graded.
    """

    measure: str
    means: dict[str, dict[str, float]]
    agreement: dict[tuple[str, str], Interval]
    queries: int
    notes: tuple[str, ...] = ()


def system_order(matched: Matched, judged: Mapping[str, Judgements], measure: Measure, *, seed: int = 0) -> SystemOrder:
    """Put the systems in order by each judge.

    Args:
        matched: the rankings, two or more.
        judged: judge -> its grades.

    Raises:
        PiarError: no query that all judges have graded.
    """
    known = [grades.rows.select("query").unique() for grades in judged.values()]
    asked = pl.concat([ranking.rows.select("query") for ranking in matched.rankings]).unique(maintain_order=True)
    for part in known:
        asked = asked.join(part, on="query", how="semi", maintain_order="left")
    queries = asked["query"].to_list()
    if not queries:
        raise PiarError("No query of the runs is graded by all judges.", "Let the teacher grade them: `piar label`.")
    first = next(iter(judged.values())).rows
    units = dict(first.select("query", "unit").iter_rows())
    codes, n_units = group_codes([units[query] for query in queries])
    names = [ranking.name for ranking in matched.rankings]
    values = {
        judge: np.stack([_values(measure, ranking.rows, grades, queries) for ranking in matched.rankings], axis=1)
        for judge, grades in judged.items()
    }
    means = {judge: dict(zip(names, table.mean(axis=0).tolist(), strict=True)) for judge, table in values.items()}
    best = sorted(names, key=lambda name: -next(iter(means.values()))[name])
    bootstrap = GroupBootstrap(n_units, seed=seed)
    agreement = {
        (a, b): bootstrap.interval(group_sums(np.concatenate([values[a], values[b]], axis=1), codes, n_units), tau)
        for a, b in combinations(judged, 2)
    }
    ordered = {judge: {name: found[name] for name in best} for judge, found in means.items()}
    notes = (*(note for ranking in matched.rankings for note in ranking.notes), *matched.notes)
    return SystemOrder(measure.name, ordered, agreement, len(queries), notes)


def _values(measure: Measure, run: pl.DataFrame, grades: Judgements, queries: Sequence[str]) -> Floats:
    return per_query([measure], run, grades.rows, queries, grades.top)[measure.name]


def tau(sums: Floats) -> Floats:
    """Kendall's tau-b of the first half of the columns and the second, (…, 2 S) to (…,); NaN where one is level."""
    n = sums.shape[-1] // 2
    pairs = list(combinations(range(n), 2))
    left, right = [i for i, _ in pairs], [j for _, j in pairs]
    x, y = sums[..., :n], sums[..., n:]
    a, b = np.sign(np.round(x[..., left] - x[..., right], 9)), np.sign(np.round(y[..., left] - y[..., right], 9))
    size = np.sqrt(np.abs(a).sum(-1) * np.abs(b).sum(-1))
    out: Floats = np.where(size > 0, (a * b).sum(-1) / np.where(size > 0, size, 1), math.nan)
    return out
