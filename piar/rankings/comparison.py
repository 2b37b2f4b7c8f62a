"""Two rankings compared: each measure's difference with its interval over queries, and the queries behind it.

The unit is the samples' group, a query as a rule. Stated by others: the sign-flip test over queries (Fisher's
randomisation, for rankings Smucker et al. 2007). Chosen by us: only queries of which at least one document is judged
and that at least one run answers; the first measure alone is the claim; two-sided p-values.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from piar.rankings.judges import Judgements
from piar.rankings.matching import Matched
from piar.rankings.measures import Measure, depth, per_query
from store.errors import PiarError
from store.figures import many
from store.stats import (
    Floats,
    GroupBootstrap,
    Interval,
    Ints,
    group_codes,
    group_sums,
    ratio,
    sign_flip_test,
    t_quantile,
)

FEWEST = 6  # queries of a segment that is shown
POWER = 0.8
FLIPS = 2e7  # signs drawn for a test
ALIKE = 0.95  # share of one grade from which on it is said that the judge hardly orders anything


@dataclass(frozen=True, slots=True)
class Difference:
    """What B is worth more than A by one measure, over the same queries.

    Attributes:
        a, b: the mean of each ranking; None where only the difference is estimated.
        difference: B - A.
        p_value: two-sided, of the sign-flip test over groups.
        detectable: smallest true difference that so many queries show with power 80 % (two-sided, 5 %).
        queries: how many.
        alone: the difference from gold alone, where the teacher's grades are corrected by it.
    """

    measure: str
    a: Interval | None
    b: Interval | None
    difference: Interval
    p_value: float
    detectable: float | None
    queries: int
    alone: Interval | None = None

    @property
    def decided(self) -> bool:
        """Whether the interval excludes zero."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rankings A and B by one judge's grades.

    Attributes:
        names: of A and B; judge: who graded.
        differences: one a measure, the claim first.
        segments: part of the queries -> the first measure there.
        values: `query`, `weight`, and for each measure `a NAME` and `b NAME`.
        unjudged: of each ranking's first `depth` places, the share that nobody graded.
        unanswered: how many of the queries each ranking does not answer; it counts 0 there.
        notes: how files were read and matched, and what was left out.
    """

    names: tuple[str, str]
    judge: str
    differences: tuple[Difference, ...]
    segments: dict[str, Difference]
    values: pl.DataFrame
    unjudged: tuple[float, float]
    depth: int
    unanswered: tuple[int, int]
    notes: tuple[str, ...] = ()

    def deciding(self, n: int = 10) -> list[tuple[str, float, float]]:
        """The queries that weigh most in the first measure's difference: (query, A, B), the heaviest first."""
        name = self.differences[0].measure
        gap = pl.col("weight") * (pl.col(f"b {name}") - pl.col(f"a {name}"))
        ordered = self.values.sort(gap.abs(), "query", descending=[True, False])
        return list(ordered.select("query", f"a {name}", f"b {name}").head(n).iter_rows())


def compare(
    matched: Matched,
    judged: Judgements,
    measures: Sequence[Measure],
    *,
    judge: str = "gold",
    weights: Mapping[str, float] | None = None,
    segments: Mapping[str, Mapping[str, str]] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two rankings.

    Args:
        weights: query -> how much it counts (traffic); equal ones when None; a query that it lacks is left out.
        segments: heading -> query -> the part that it belongs to.

    Raises:
        PiarError: no query is answered, judged and weighed.
    """
    queries, notes = _queries(matched, judged.rows, weights)
    units = dict(judged.rows.select("query", "unit").iter_rows())
    codes, n_units = group_codes([units[query] for query in queries])
    weight = np.array([1.0 if weights is None else weights[query] for query in queries])
    rows = [ranking.rows for ranking in matched.rankings]
    a, b = (per_query(measures, run, judged.rows, queries, judged.top) for run in rows)
    found = tuple(difference(m.name, a[m.name], b[m.name], weight, codes, n_units, seed) for m in measures)
    first = measures[0].name

    def part(of: Ints) -> Difference:
        return difference(first, a[first][of], b[first][of], weight[of], *group_codes(codes[of]), seed)

    table = {f"{side} {m.name}": values[m.name] for m in measures for side, values in (("a", a), ("b", b))}
    k = depth(measures[0])
    return Comparison(
        (matched.rankings[0].name, matched.rankings[1].name),
        judge,
        found,
        {name: part(of) for name, of in _parts(queries, segments or {}).items()},
        pl.DataFrame({"query": queries, "weight": weight, **table}),
        (unjudged(rows[0], judged.rows, queries, k), unjudged(rows[1], judged.rows, queries, k)),
        k,
        (_unanswered(rows[0], queries), _unanswered(rows[1], queries)),
        (
            *_one_grade(judged.rows, judge),
            *matched.rankings[0].notes,
            *matched.rankings[1].notes,
            *matched.notes,
            *notes,
        ),
    )


def difference(name: str, a: Floats, b: Floats, weight: Floats, codes: Ints, n_units: int, seed: int = 0) -> Difference:
    """The weighted mean difference of values a query, with its interval by group.

    Args:
        a, b, weight: (N,) of each query.
        codes: (N,) group of each query, 0 … n_units - 1.
    """
    sums = group_sums(np.stack([weight * a, weight * b, weight * (b - a), weight], axis=1), codes, n_units)
    bootstrap = GroupBootstrap(n_units, seed=seed)
    means = [bootstrap.interval(sums[:, [column, 3]], ratio) for column in range(3)]
    blocks = group_sums(sums[:, 2], bootstrap.block_of, bootstrap.blocks)[:, 0]  # the queries themselves when few
    p_value = two_sided(blocks, seed)
    return Difference(name, means[0], means[1], means[2], p_value, detectable(sums[:, 2], sums[:, 3]), len(a))


def two_sided(differences: Floats, seed: int = 0) -> float:
    """Two-sided p-value of the sign-flip test: twice the smaller one-sided one. With very many groups fewer draws."""
    draws = int(min(100_000, max(10_000, FLIPS / max(1, len(differences)))))
    side = differences if differences.sum() >= 0 else -differences
    return min(1.0, 2 * sign_flip_test(side, seed=seed, draws=draws))


def detectable(gained: Floats, weight: Floats) -> float | None:
    """(t(.975) + t(.8)) · the standard error over groups; None for fewer than two.

    Args:
        gained: (G,) weighted sum of the differences in each group; weight: (G,) sum of its weights.
    """
    n = len(gained)
    if n < 2:
        return None
    rest = gained - gained.sum() / weight.sum() * weight
    error = math.sqrt(n / (n - 1) * float(rest @ rest)) / float(weight.sum())
    return (t_quantile(0.975, n - 1) + t_quantile(POWER, n - 1)) * error


def _queries(
    matched: Matched, judged: pl.DataFrame, weights: Mapping[str, float] | None
) -> tuple[list[str], list[str]]:
    """The queries that count, in the order of the runs, and what was left out."""
    sides = [ranking.rows.select("query").unique(maintain_order=True) for ranking in matched.rankings]
    asked = pl.concat(sides).unique(maintain_order=True)
    known = asked.join(judged.select("query").unique(), on="query", how="semi", maintain_order="left")
    notes = []
    if left := len(asked) - len(known):
        notes.append(f"{left:,} queries of the runs have no graded document: left out")
    queries = known["query"].to_list()
    if weights is not None:
        weighed = [query for query in queries if weights.get(query, 0) > 0]
        if left := len(queries) - len(weighed):
            notes.append(f"{many(left, 'query has', 'queries have')} no weight above 0: left out")
        queries = weighed
    if not queries:
        raise PiarError(
            "No query of the runs is left: none is graded and weighed.",
            "Look at the notes of `piar compare` without weights; import graded rows of these queries.",
        )
    return queries, notes


def _one_grade(judged: pl.DataFrame, judge: str) -> list[str]:
    """A note where nearly all documents have one grade: every order of equal documents is a perfect one."""
    counts = judged["grade"].value_counts().sort("count", "grade", descending=True)
    grade, most = counts.row(0)
    if most < ALIKE * len(judged):
        return []
    return [
        f"{judge} grades {most:,} of {len(judged):,} documents {grade}: by it hardly any order is better than another"
    ]


def _unanswered(run: pl.DataFrame, queries: Sequence[str]) -> int:
    return len(set(queries) - set(run["query"]))


def _parts(queries: Sequence[str], segments: Mapping[str, Mapping[str, str]]) -> dict[str, Ints]:
    """`heading: part` -> positions of its queries, where there are enough."""
    parts: dict[str, list[int]] = {}
    for heading, of in segments.items():
        for i, query in enumerate(queries):
            if part := of.get(query):
                parts.setdefault(f"{heading}: {part}", []).append(i)
    return {name: np.array(places) for name, places in sorted(parts.items()) if len(places) >= FEWEST}


def unjudged(run: pl.DataFrame, judged: pl.DataFrame, queries: Sequence[str], k: int) -> float:
    """The share of the first k places that nobody graded."""
    top = run.filter((pl.col("place") <= k) & pl.col("query").is_in(queries))
    known = len(top.join(judged, on=["query", "document"], how="semi"))
    return 1 - known / len(top) if len(top) else 0.0
