"""Rankings judged by the teacher on all queries, corrected by a few whose documents people graded.

Prediction-powered means of each query's value (see `store.powered`): f by the teacher's grades, y by gold on the
queries of which gold knows every document that the measure looks at. It holds for every measure, whatever its formula,
when those queries were drawn at random.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from piar.rankings.comparison import Comparison, Difference, compare
from piar.rankings.judges import Judgements
from piar.rankings.matching import Matched
from piar.rankings.measures import Measure, depth, per_query
from store.errors import PiarError
from store.powered import powered_mean
from store.stats import Floats, Interval, t_quantile

FEWEST = 6  # queries with gold
CAUTION = 0.15  # see docs/experiments/intervals.md
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Known:
    """The queries that gold knows: `whole` (N,) which of all, and each one's values by gold (NaN elsewhere)."""

    whole: Bools
    a: dict[str, Floats]
    b: dict[str, Floats]


def corrected(
    matched: Matched,
    teacher: Judgements,
    gold: Judgements,
    measures: Sequence[Measure],
    *,
    weights: Mapping[str, float] | None = None,
    segments: Mapping[str, Mapping[str, str]] | None = None,
    seed: int = 0,
) -> Comparison:
    """As `piar.rankings.comparison.compare` with the teacher's grades, each figure corrected by gold.

    Raises:
        PiarError: the teacher has judged documents of too few queries, or gold knows whole too few of these.
    """
    told = compare(
        matched,
        teacher,
        measures,
        judge="the teacher, corrected by gold",
        weights=weights,
        segments=segments,
        seed=seed,
    )
    queries, weight = told.values["query"].to_list(), told.values["weight"].to_numpy()
    if len(queries) < FEWEST:
        raise PiarError(
            f"The teacher has judged documents of {len(queries):,} queries of the runs; it takes {FEWEST}.",
            f"Let it judge all: `piar label --where true`. The runs need {FEWEST} queries that the project knows.",
        )
    looked = max(depth(measure) for measure in measures)
    whole = _whole(matched, teacher, gold, queries, looked)
    if whole.sum() < FEWEST:
        raise PiarError(
            f"Gold knows all of the first {looked} documents of {int(whole.sum()):,} queries of the runs; it takes "
            f"{FEWEST}.",
            "Have people grade some queries whole: draw them at random, or let `piar compare --plan` choose pairs.",
        )
    known = _Known(whole, *(_values(measures, ranking.rows, gold, queries, whole) for ranking in matched.rankings))
    units = dict(teacher.rows.select("query", "unit").iter_rows())
    groups = np.array([units[query] for query in queries])
    every = np.ones(len(queries), dtype=bool)
    parts = {
        name: np.array(
            [(segments or {}).get(name.rpartition(": ")[0], {}).get(q) == name.rpartition(": ")[2] for q in queries]
        )
        for name in told.segments
    }
    first = measures[0].name
    return Comparison(
        told.names,
        told.judge,
        tuple(_powered(m.name, told.values, known, weight, groups, every) for m in measures),
        {
            n: _powered(first, told.values, known, weight, groups, p)
            for n, p in parts.items()
            if whole[p].sum() >= FEWEST
        },
        told.values,
        told.unjudged,
        told.depth,
        told.unanswered,
        (
            *told.notes,
            f"gold knows {int(whole.sum()):,} of {len(queries):,} queries whole; it must have come to them by chance",
            "what single queries show is by the teacher alone",
        ),
    )


def _whole(matched: Matched, teacher: Judgements, gold: Judgements, queries: Sequence[str], k: int) -> Bools:
    """(N,) whether gold knows every document in the first k places of either run that anybody graded."""
    top = pl.concat(
        [r.rows.filter(pl.col("place") <= k).select("query", "document") for r in matched.rankings]
    ).unique()
    pairs = pl.concat([teacher.rows.select("query", "document"), gold.rows.select("query", "document")]).unique()
    asked = top.join(pairs, on=["query", "document"], how="semi")
    lacks = set(asked.join(gold.rows, on=["query", "document"], how="anti")["query"])
    has = set(gold.rows["query"]) - lacks
    return np.array([query in has for query in queries])


def _values(
    measures: Sequence[Measure], run: pl.DataFrame, gold: Judgements, queries: Sequence[str], whole: Bools
) -> dict[str, Floats]:
    found = per_query(measures, run, gold.rows, queries, gold.top)
    return {name: np.where(whole, values, np.nan) for name, values in found.items()}


def _powered(
    name: str, told: pl.DataFrame, known: _Known, weight: Floats, groups: NDArray[np.str_], part: Bools
) -> Difference:
    """One measure on a part of the queries."""
    a, b = told[f"a {name}"].to_numpy(), told[f"b {name}"].to_numpy()

    def mean(y: Floats, f: Floats, low: float) -> tuple[Interval, Interval]:
        found = powered_mean(
            y[part],
            f[part],
            groups[part],
            mass=weight[part],
            bounds=(low, 1.0),
            unseen=float(f[part].std()),
            caution=CAUTION,
        )
        return found.estimate, found.alone

    difference, alone = mean(known.b[name] - known.a[name], b - a, -1.0)
    judged = len(np.unique(groups[part & known.whole]))
    return Difference(
        name,
        mean(known.a[name], a, 0.0)[0],
        mean(known.b[name], b, 0.0)[0],
        difference,
        p_value(difference, judged),
        _detectable(difference, judged),
        int(part.sum()),
        alone,
    )


def _error(found: Interval, groups: int) -> float:
    """The standard error behind an interval made by Student's t."""
    low, high = found.low or 0.0, found.high or 0.0
    return (high - low) / 2 / t_quantile(0.975, groups - 1)


def p_value(found: Interval, groups: int) -> float:
    """Two-sided, by Student's t over the groups with gold."""
    from scipy.special import stdtr

    error = _error(found, groups)
    return 1.0 if error <= 0 else float(2 * stdtr(groups - 1, -abs(found.value or 0.0) / error))


def _detectable(found: Interval, groups: int) -> float | None:
    error = _error(found, groups)
    return (t_quantile(0.975, groups - 1) + t_quantile(0.8, groups - 1)) * error if math.isfinite(error) else None
