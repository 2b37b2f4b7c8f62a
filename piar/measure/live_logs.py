"""What happens on the logs: how good a judge is there, and whether the grades' shares have moved.

Both look at rows of the store as they came, not at those that were chosen to be graded. Live quality is
prediction-powered (see `store.powered`): the teacher's opinion of every row, corrected by the few rows that people
graded because a review batch had drawn them at random (not those that a queue chose). A row that was itself drawn from
a larger file with a known chance (`inclusion` of `samples`: whole queries, drawn as they came in) counts once over that
chance, so that the estimate is of all rows of the file. Drift is a permutation test over queries.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from store.errors import PiarError, UsageError
from store.stats import Floats, GroupBootstrap, Interval, group_codes, group_sums, ratio

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from store.db import Store
    from store.judges import Judge
    from store.powered import Powered

LOGS = "split = 'pool' and origin <> 'synthetic'"
ROWS = 100_000
PERMUTATIONS = 999
UNITS = 4_000  # queries that are permuted, drawn at random where there are more
FEWEST = 20  # queries on each side, from which on shares are compared

# Rows on which both have spoken, and what people said of those that a batch drew at random.
_ROWS = """
with logs as (select sample_id, group_key, inclusion, {fields} from samples where {where}),
     said as (select * from {said} where judge = $1 and instruction = $2 and vote = 0),
     told as (select * from {told} where judge = $3 and instruction = $4 and vote = 0),
     drawn as (select sample_id, max(inclusion) as inclusion from review_tasks where role = 'random' group by sample_id)
select l.*, s.grade as predicted, t.grade as told, t.probs,
       if(d.sample_id is null, null, m.grade) as gold, d.inclusion as review_inclusion
from logs l join told t using (sample_id) left join said s using (sample_id)
left join drawn d using (sample_id) left join truth m using (sample_id)
where t.grade is not null order by l.sample_id"""

# The teacher's grades of at most so many logged rows, always the same ones.
_GRADED = f"""
with logs as (select sample_id, group_key, source, max(created_at) over (partition by source) as newest
              from samples where {LOGS} order by hash(sample_id) limit {ROWS}),
     told as (select sample_id, any_value(grade order by rowid desc) as grade from verdicts
              where judge = $1 and instruction = $2 and vote = 0 and grade is not null
              and sample_id in (select sample_id from logs) group by sample_id)
select group_key, source, newest, grade from logs join told using (sample_id) order by sample_id"""


@dataclass(frozen=True, slots=True)
class Live:
    """A judge's accuracy on the logs, estimated.

    Attributes:
        told: how often it agrees with the teacher alone.
        drawn: rows that count more than once, since they were drawn from a larger file.
        stands_for: how many rows all of them stand for, those drawn counted once over their chance.
    """

    judge: str
    where: str
    found: "Powered"
    told: float
    drawn: int = 0
    stands_for: float = 0.0

    @property
    def detail(self) -> "dict[str, object]":
        """What the run that estimated it keeps, and the report shows."""
        said = self.found
        return {
            "judge": self.judge,
            "accuracy": said.estimate.model_dump(),
            "gold_alone": said.alone.model_dump(),
            "rows": said.rows,
            "gold": said.gold,
            "drawn": self.drawn,
        }


@dataclass(frozen=True, slots=True)
class Drift:
    """Shares of the teacher's grades among earlier logs and among the latest.

    Attributes:
        source: where the latest come from.
        shares: grade -> (before, now, the difference with its 95 % interval by query).
        p_value: that shares as far apart come by chance, queries dealt anew.
    """

    source: str
    shares: dict[str, tuple[float, float, Interval]]
    p_value: float

    @property
    def most(self) -> str:
        """The grade whose share moved most."""
        return max(self.shares, key=lambda g: abs(self.shares[g][1] - self.shares[g][0]))


def judged(store: "Store", judge: "Judge", teacher: "Judge", where: str) -> "pl.DataFrame":
    """The logs that the teacher has judged, with the task's fields and what each judge and people said.

    Verdicts are read as they are used: calibrated where their judge is.

    Raises:
        UsageError: `where` is no condition over the columns of `samples`.
        PiarError: the teacher has judged none of them.
    """
    import duckdb

    from store.calibrated import calibrated_relation
    from store.db import quote
    from store.user_sql import expression

    fields = ", ".join(map(quote, store.task.fields))
    who = [judge.name, judge.instruction, teacher.name, teacher.instruction]
    fix = f"Write a condition over {', '.join(store.task.fields)}, split, source, group_key."
    condition = expression(where, f"--live {where[:200]!r}", fix, store.tables())
    try:
        with store.read() as con:
            said, told = (calibrated_relation(con, store, "verdict", [one]) for one in (judge, teacher))
            frame = store.frame(_ROWS.format(fields=fields, where=condition, said=said, told=told), who)
    except duckdb.Error as error:
        raise UsageError(f"--live {where[:200]!r} fails: {str(error).splitlines()[0]}", fix) from None
    if frame.is_empty():
        raise PiarError(f"{teacher.name} has judged no row where {where}.", "Run `piar label` first.")
    return frame


def live(store: "Store", judge: "Judge", teacher: "Judge", where: str) -> Live:
    """Estimate a judge's accuracy on logs.

    Args:
        judge: has a verdict on all of them; a row without one counts as wrong.
        teacher: whose opinion powers the estimate. Of itself its opinion is its own confidence.

    Raises:
        PiarError: people graded random rows of fewer than two queries.
    """
    return estimate(judged(store, judge, teacher, where), store.task.symbols, judge.name, where)


def estimate(frame: "pl.DataFrame", symbols: tuple[str, ...], judge: str, where: str) -> Live:
    """As `live`, from the rows of `judged`."""
    from store.powered import powered_mean

    position = {s: i for i, s in enumerate(symbols)}
    proxies = np.array([_proxy(row, position) for row in frame.iter_rows(named=True)])
    scores = np.array(
        [
            np.nan if gold is None else float(gold == said)
            for gold, said in frame.select("gold", "predicted").iter_rows()
        ]
    )
    groups = frame["group_key"].to_numpy()
    if len(set(groups[np.isfinite(scores)])) < 2:
        raise PiarError(
            "People have graded random rows of fewer than two queries there, so nothing says how right the teacher is.",
            "Draw some: `piar review export live.csv --batch live --random 100%`, and import the answers. "
            "Name logs by their source: rows that people have graded leave the pool.",
        )
    inclusion = frame["review_inclusion"].fill_null(1.0).to_numpy()
    mass = 1 / frame["inclusion"].fill_null(1.0).to_numpy()
    found = powered_mean(scores, proxies, groups, inclusion=inclusion, mass=mass)
    told = float(np.average(proxies, weights=mass))
    return Live(judge, where, found, told, int((mass > 1).sum()), float(mass.sum()))


def _proxy(row: "dict[str, object]", position: "dict[str, int]") -> float:
    """What the teacher thinks of the judge's grade: its probability of it, or whether it says the same."""
    probs, said = row["probs"], row["predicted"]
    if said is None:
        return 0.0
    if isinstance(probs, list):
        return float(probs[position[str(said)]])
    return float(said == row["told"])


def drift(store: "Store", teacher: "Judge", seed: int = 0) -> Drift | None:
    """Compare the latest imported logs with all earlier ones; None where either has too few judged queries."""
    frame = store.frame(_GRADED, [teacher.name, teacher.instruction])
    if frame.is_empty():
        return None
    source = str(frame.sort("newest", "source")["source"][-1])
    late = (frame["source"] == source).to_numpy()
    codes, units = group_codes([f"{key}\x1f{new}" for key, new in zip(frame["group_key"], late, strict=True)])
    now = np.zeros(units, dtype=bool)
    now[codes] = late
    if min(now.sum(), units - now.sum()) < FEWEST:
        return None
    symbols = store.task.symbols
    counts = group_sums(np.stack([(frame["grade"] == s).to_numpy() for s in symbols], axis=1), codes, units)
    return Drift(source, _shares(symbols, counts, now, seed), _chance(counts, now, seed))


def _shares(
    symbols: tuple[str, ...], counts: Floats, now: "NDArray[np.bool_]", seed: int
) -> dict[str, tuple[float, float, Interval]]:
    """Grade -> its share before, now, and the difference, from counts [units, K]."""
    both = np.concatenate([counts * ~now[:, None], counts * now[:, None]], axis=1)
    bootstrap, k = GroupBootstrap(len(now), seed=seed), len(symbols)

    def difference(i: int) -> Interval:
        return bootstrap.interval(both, lambda s: _share(s[..., k:], i) - _share(s[..., :k], i))

    before, after = counts[~now].sum(0), counts[now].sum(0)
    return {s: (float(_share(before, i)), float(_share(after, i)), difference(i)) for i, s in enumerate(symbols)}


def _share(sums: Floats, i: int) -> Floats:
    return ratio(np.stack([sums[..., i], sums.sum(-1)], axis=-1))


def _chance(counts: Floats, now: "NDArray[np.bool_]", seed: int) -> float:
    """p-value: how often queries dealt anew differ as much."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(now))[:UNITS]
    counts, now = counts[some], now[some]
    observed = _distance(counts, now)
    hits = sum(_distance(counts, rng.permutation(now)) >= observed - 1e-12 for _ in range(PERMUTATIONS))
    return (hits + 1) / (PERMUTATIONS + 1)


def _distance(counts: Floats, now: "NDArray[np.bool_]") -> float:
    """Summed distance between the two parts' shares."""
    a, b = counts[~now].sum(0), counts[now].sum(0)
    return float(abs(a / a.sum() - b / b.sum()).sum())
