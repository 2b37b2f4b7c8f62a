"""Which documents people should judge next, so that two rankings are told apart soonest; and what follows without bias.

The difference of nDCG@k or P@k is a sum over documents: grade times the difference of the two places' worth. A document
that both runs put in one place, or beyond k, says nothing. The others are drawn with a chance in proportion to what
they can change, |c| times the spread of their grade under the teacher's probabilities: the allocation that makes the
variance least (Neyman 1934, Horvitz and Thompson 1952), fixed in number by systematic sampling (Madow 1949). What is
drawn corrects the teacher's grade by 1 / its chance (Σ c (f + (y - f) d / π)), so that the estimate is right on average
however wrong the teacher is. Chosen by us: nDCG's ideal is the teacher's; a spread is at least half of the mean one,
since a teacher may be too sure; what has gold already counts as it is and is never drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from piar.rankings.comparison import Comparison, Difference, compare, difference
from piar.rankings.judges import Judgements
from piar.rankings.matching import Matched
from piar.rankings.measures import Measure, gains
from store.db import Store
from store.errors import PiarError, UsageError
from store.ids import seed_of
from store.judges import Judge
from store.stats import Floats, group_codes

PLANNED = "planned"  # the role of such rows in a review batch
LEAST_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan draws.

    Attributes:
        picks: (sample id, the chance with which it was drawn).
        open, known: documents that could change the difference: without gold, with gold.
    """

    picks: tuple[tuple[str, float], ...]
    open: int
    known: int


def worth(matched: Matched, told: Judgements, measure: Measure) -> pl.DataFrame:
    """Pairs that the teacher judged and that count in the difference of a measure.

    Returns:
        `sample_id`, `query`, `unit`, `c` (what a point of the value changes) and `f` (the value by the teacher).

    Raises:
        UsageError: a measure that is no sum over documents.
    """
    name, k, _ = _sum_of(measure)
    a, b = (r.rows.filter(pl.col("place") <= k).select("query", "document", "place") for r in matched.rankings)
    pairs = a.join(b, on=["query", "document"], how="full", coalesce=True, suffix="_b")
    pairs = pairs.join(told.rows, on=["query", "document"]).with_columns(f=value_of(measure))
    if name == "P":
        step = pl.col("place_b").is_not_null().cast(pl.Int8) - pl.col("place").is_not_null().cast(pl.Int8)
        pairs = pairs.with_columns(c=step / k)
    else:
        gap = (_discount("place_b").fill_null(0) - _discount("place").fill_null(0)) / pl.col("ideal")
        pairs = pairs.join(_ideal(told.rows, k), on="query", how="left").with_columns(
            c=pl.when(pl.col("ideal") > 0).then(gap).otherwise(0.0)
        )
    return pairs.select("sample_id", "query", "unit", "c", "f").sort("sample_id")


def value_of(measure: Measure) -> pl.Expr:
    """What a document's grade is worth in a measure, of the column `gain`: the gain itself, or 1 where relevant."""
    name, _, relevant = _sum_of(measure)
    return (pl.col("gain") if name == "nDCG" else pl.col("gain") >= relevant).cast(pl.Float64)


def _sum_of(measure: Measure) -> tuple[str, int, int]:
    """The measure's name, cut-off and threshold."""
    name = "" if measure.standard is None else str(measure.standard.NAME)
    params = {} if measure.standard is None else measure.standard.params
    if name not in ("nDCG", "P") or "cutoff" not in params or set(params) - {"cutoff", "rel"}:
        raise UsageError(f"{measure.name} is no sum over documents.", "Name nDCG@k or P@k: --measure nDCG@10.")
    return name, int(params["cutoff"]), int(params.get("rel", 1))


def _discount(place: str) -> pl.Expr:
    return 1 / (pl.col(place) + 1).log(2)


def _ideal(judged: pl.DataFrame, k: int) -> pl.DataFrame:
    """`query`, `ideal`: the DCG of the best order of all that the teacher judged."""
    best = judged.with_columns(at=pl.col("gain").rank("ordinal", descending=True).over("query")).filter(
        pl.col("at") <= k
    )
    return best.group_by("query").agg(ideal=(pl.col("gain").clip(lower_bound=0) * _discount("at")).sum())


def plan(
    store: Store,
    pairs: pl.DataFrame,
    spread: Mapping[str, float],
    n: int,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Planned:
    """Draw at most n pairs for people.

    Args:
        pairs: of `worth`.
        spread: sample id -> standard deviation of its value, as far as the teacher has said; the mean where not.
        weights: query -> how much it counts.

    Raises:
        PiarError: nothing is left that could change the difference.
    """
    moving = pairs.filter(pl.col("c").abs() > 1e-12)
    gold = set(store.frame("select sample_id from truth")["sample_id"])
    free = moving.filter(~pl.col("sample_id").is_in(list(gold)))
    if free.is_empty():
        raise PiarError(
            "No document is left that could change the difference: people have judged all that the runs place apart.",
            "Compare by gold: leave out --plan.",
        )
    spreads = np.array([spread.get(sample, np.nan) for sample in free["sample_id"]])
    mean = float(np.nanmean(spreads)) if np.isfinite(spreads).any() else 1.0
    spreads = np.maximum(np.where(np.isfinite(spreads), spreads, mean), LEAST_SPREAD * mean or 1.0)
    share = np.array([1.0 if weights is None else weights.get(query, 0.0) for query in free["query"]])
    chance = chances(np.abs(free["c"].to_numpy()) * spreads * share, n)
    drawn = systematic(chance, np.random.default_rng(seed_of(seed, "plan", len(gold))))
    ids = free["sample_id"].to_list()
    return Planned(tuple((ids[i], float(chance[i])) for i in drawn), len(free), len(moving) - len(free))


def chances(size: Floats, n: int) -> Floats:
    """Chances in proportion to the sizes, none above 1, that add up to n (or to all there are)."""
    out: Floats = np.zeros(len(size))
    size = np.where(size > 1e-12 * size.max(initial=0.0), size, 0.0)
    sure = np.zeros(len(size), dtype=bool)
    while True:
        rest = n - int(sure.sum())
        total = float(size[~sure].sum())
        if rest <= 0 or total <= 0:
            break
        out = np.where(sure, 1.0, size * rest / total)
        over = (out > 1) & ~sure
        if not over.any():
            break
        sure |= over
    return np.where(sure, 1.0, np.minimum(out, 1.0))


def systematic(chance: Floats, rng: np.random.Generator) -> list[int]:
    """Positions drawn with these chances, as many as they add up to, in random order."""
    order = rng.permutation(len(chance))
    steps = np.floor(np.concatenate([[0.0], np.cumsum(chance[order])]) + rng.random() + 1e-9)
    return sorted(int(i) for i in order[np.diff(steps) > 0])


def planned_batch(store: Store, samples: pl.Series) -> dict[str, float]:
    """Sample id -> its chance, of the latest batch that a plan drew among these samples; {} where there is none."""
    rows = store.frame(
        "select t.batch, t.sample_id, max(t.inclusion) as chance, max(b.created_at) as made from review_tasks t "
        "join review_batches b using (batch) where t.role = ? group by all order by made desc, batch",
        [PLANNED],
    )
    rows = rows.filter(pl.col("sample_id").is_in(samples.implode()))
    latest = rows.filter(pl.col("batch") == rows["batch"][0]) if len(rows) else rows
    return dict(latest.select("sample_id", "chance").iter_rows())


def spreads(store: Store, judge: Judge, measure: Measure) -> dict[str, float]:
    """Sample id -> standard deviation of its value under the judge's probabilities; those without any are left out."""
    whole = gains(store.task)
    values = (
        pl.DataFrame({"gain": [whole[s] for s in store.task.symbols]}).select(value_of(measure)).to_series().to_numpy()
    )
    said = store.frame(
        "select sample_id, probs from verdict where judge = ? and instruction = ? and vote = 0 and probs is not null",
        [judge.name, judge.instruction],
    )
    if said.is_empty():
        return {}
    probs = np.array(said["probs"].to_list(), dtype=np.float64)
    mean = probs @ values
    return dict(zip(said["sample_id"], np.sqrt(np.maximum(probs @ values**2 - mean**2, 0.0)).tolist(), strict=True))


def corrected_by_plan(
    matched: Matched,
    told: Judgements,
    gold: Judgements,
    measures: Sequence[Measure],
    drawn: Mapping[str, float],
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare by the teacher's grades, corrected by what a plan drew; measures that are no sum are left out.

    Args:
        drawn: of `planned_batch`.

    Raises:
        UsageError: the first measure is no sum over documents.
    """
    base = compare(
        matched, told, measures, judge="the teacher, corrected by planned documents", weights=weights, seed=seed
    )
    kept, lost = [measures[0]], list[str]()
    for measure in measures[1:]:
        try:
            _sum_of(measure)
            kept.append(measure)
        except UsageError:
            lost.append(measure.name)
    graded = set(gold.rows["sample_id"])
    answered = sum(sample in graded for sample in drawn)
    notes = [
        f"{answered:,} of {len(drawn):,} planned documents are graded; nDCG's ideal is the teacher's",
        "what single queries show is by the teacher alone",
    ]
    if lost:
        notes.append(f"{', '.join(lost)}: no sum over documents, left out; name them with --by gold")
    found = []
    for measure in kept:
        values = gold.rows.select("sample_id", value=value_of(measure))
        found.append(
            estimate(worth(matched, told, measure), dict(values.iter_rows()), drawn, measure.name, weights, seed)
        )
    return replace(base, differences=tuple(found), segments={}, notes=(*base.notes, *notes))


def by_query(
    pairs: pl.DataFrame, gold: Mapping[str, float], drawn: Mapping[str, float]
) -> tuple[list[str], list[str], Floats]:
    """Each query, its unit, and an estimate of its difference that is right on average.

    Args:
        pairs: of `worth`.
        gold: sample id -> its value by people; one that the plan did not draw counts as it is.
        drawn: sample id -> its chance; drawn rows that nobody has graded yet are taken for a random part of it.
    """
    part = sum(sample in gold for sample in drawn) / max(1, len(drawn))
    samples = pairs["sample_id"].to_list()
    chance = np.array([drawn[sample] * part if sample in drawn else 1.0 for sample in samples])
    y = np.array([gold.get(sample, np.nan) for sample in samples])
    f, c = pairs["f"].to_numpy(), pairs["c"].to_numpy()
    known = np.isfinite(y)
    said = c * (f + np.where(known, (y - f) / np.where(known, chance, 1.0), 0.0))
    sums = pairs.select("query", "unit", said=pl.Series(said)).group_by("query", maintain_order=True)
    found = sums.agg(pl.col("unit").first(), pl.col("said").sum())
    return found["query"].to_list(), found["unit"].to_list(), found["said"].to_numpy()


def estimate(
    pairs: pl.DataFrame,
    gold: Mapping[str, float],
    drawn: Mapping[str, float],
    name: str,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Difference:
    """The difference of one measure with its interval by group; arguments as of `by_query`."""
    queries, units, values = by_query(pairs, gold, drawn)
    weight = np.array([1.0 if weights is None else weights.get(query, 0.0) for query in queries])
    counts = weight > 0
    groups = group_codes(np.array(units)[counts])
    found = difference(name, np.zeros(int(counts.sum())), values[counts], weight[counts], *groups, seed)
    return replace(found, a=None, b=None)
