"""Fitting a cascade: for each judge the confidence from which on its grades are right often enough, by group.

On rows with truth that no training saw. Thresholds are quantiles of the confidences and are certified together
(`store.probability_scores.alone`: bounds by group, Bonferroni), each tier with a chance of 2.5 % to promise too much,
so that the promises of two tiers hold together in 95 of 100 cases. A judge's corrections were fitted on the same rows,
so each row counts as other groups' corrections have it. Chosen by us: precision over all rows that a tier decides, not
for each grade (few grades have the groups to show it; `grades` counts them), and that a judge without probabilities
decides all that it grades, or nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from piar.measure.calibrate import corrected
from store.cascade import Cascade, Tier
from store.errors import PiarError
from store.judges import Judge
from store.probability_scores import Alone, alone
from store.stats import Floats, Interval, Ints, Result, share_by_group

if TYPE_CHECKING:
    from store.db import Store

SPLIT: Final = "dev"
_TRUTH = """select s.sample_id::varchar as sample_id, s.group_key as "group", g.position
from samples s join truth t using (sample_id) join grades g on g.symbol = t.grade
where s.split = ? and s.origin = 'import' order by s.sample_id"""
_GRADED = """select v.sample_id::varchar, g.position from verdict v join grades g on g.symbol = v.grade
where v.judge = ? and v.instruction = ? and v.vote = 0"""
_PAID = """select avg(c.cost_usd), median(c.seconds)
from verdict v join completions c using (key) join samples s using (sample_id)
where v.judge = ? and v.instruction = ? and v.vote = 0 and s.split = ? and c.failure is null"""


@dataclass(frozen=True, slots=True)
class Rows:
    """(N,) rows with truth: their ids, groups, and positions of their grades."""

    ids: list[str]
    groups: Any
    gold: Ints


@dataclass(frozen=True, slots=True)
class Said:
    """What a judge says of these rows.

    Attributes:
        place: (N,) position of its grade, -1 for none.
        confidence: (N,) probability of that grade, NaN where it cannot decide.
        silent: it gave no probabilities at all.
    """

    place: Ints
    confidence: Floats
    silent: bool


class Paid(Result):
    """What a judge's answers take: mean dollars (None: no price is known) and median seconds of one."""

    cost_usd: float | None = None
    seconds: float | None = None


class OneJudge(Result):
    """What the last judge could decide at the same precision if it were asked about every row."""

    judge: str
    share: Interval
    precision: Interval
    usd_per_1000: float | None


class FittedCascade(Result):
    """A cascade with the figures of the rows that it was fitted on.

    Attributes:
        decided, precision: share of rows that a judge decides, and of these the right ones, plain 95 % intervals.
        usd_per_1000: of 1,000 rows through the cascade.
        alone: the last judge without those before it; None where there is one judge.
        grades: symbol -> (rows that were decided as it, right ones).
        surest: of a judge that decides nothing, the share of right ones among the tenth that it is surest of.
        instead: an earlier cascade that stays where this one was to be kept, since this one decides nothing.
    """

    cascade: Cascade
    decided: Interval
    precision: Interval
    usd_per_1000: float | None
    alone: OneJudge | None
    grades: dict[str, tuple[int, int]]
    surest: dict[str, Interval]
    instead: Cascade | None = None


def rows_of(store: "Store", split: str = SPLIT) -> Rows:
    """The rows with truth.

    Raises:
        PiarError: there are none.
    """
    frame = store.frame(_TRUTH, [split])
    if frame.is_empty():
        raise PiarError(
            f"No row of split {split} has a label, so nothing can be certified. Rows of several groups need one.",
            "`piar review here` at your terminal, or `piar import FILE`.",
        )
    return Rows(frame["sample_id"].to_list(), frame["group"].to_numpy(), frame["position"].to_numpy().astype(np.int64))


def said(store: "Store", judge: Judge, rows: Rows, split: str = SPLIT, *, seed: int = 0) -> Said:
    """A judge's grades of these rows as they count: corrected, each row's correction from other groups.

    Raises:
        PiarError: it has graded none of them.
    """
    at = {key: n for n, key in enumerate(rows.ids)}
    place, confidence = np.full(len(rows.ids), -1, dtype=np.int64), np.full(len(rows.ids), np.nan)
    told = corrected(store, judge, split, seed=seed)
    if told is not None:
        here = np.array([at[key] for key in told.ids])
        place[here], confidence[here] = told.said, told.probs[np.arange(len(here)), told.said]
        return Said(place, confidence, False)
    for key, position in store.frame(_GRADED, [judge.name, judge.instruction]).rows():
        if key in at:
            place[at[key]], confidence[at[key]] = position, 1.0
    if (place < 0).all():
        raise PiarError(f"{judge.name} has graded no row of {split} with truth.", f"Run `piar score --split {split}`.")
    return Said(place, confidence, True)


def paid(store: "Store", judge: Judge, split: str = SPLIT, *, priced: bool) -> Paid:
    """What a teacher's answers took; `priced`: whether what they cost is known."""
    cost, seconds = store.frame(_PAID, [judge.name, judge.instruction, split]).row(0)
    return Paid(cost_usd=cost if priced else None, seconds=seconds)


def fit_cascade(
    rows: Rows,
    judges: Sequence[tuple[Judge, Said]],
    target: float,
    symbols: Sequence[str],
    *,
    prints: Mapping[str, str] = {},
    took: Mapping[str, Paid] = {},
    split: str = SPLIT,
    seed: int = 0,
) -> FittedCascade:
    """Choose and certify the thresholds, in the order of the judges.

    Args:
        target: precision of what each judge decides.
        prints: name of a judge -> fingerprint of what shapes its answers.
        took: name of a judge -> what an answer takes.
    """
    final: Ints = np.full(len(rows.ids), -1, dtype=np.int64)
    tiers, surest = list[Tier](), dict[str, Interval]()
    for judge, told in judges:
        confidence, hits = np.where(final < 0, told.confidence, np.nan), told.place == rows.gold
        found = alone(confidence, hits, rows.groups, most_error=1 - target, seed=seed)
        tiers.append(_tier(judge, told, found, prints.get(judge.name, ""), took.get(judge.name, Paid())))
        if found.threshold is None:
            surest[judge.name] = _surest(confidence, hits, rows, seed)
        else:
            final = np.where(confidence >= found.threshold, told.place, final)
    decided, right, everything = final >= 0, final == rows.gold, np.ones(len(final), dtype=bool)
    cascade = Cascade(
        target=target,
        split=split,
        rows=len(rows.ids),
        groups=len(set(rows.groups.tolist())),
        tiers=tuple(tiers),
        people=_share(~decided, everything, rows, seed),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    counts = [(int((final == k).sum()), int((right & (final == k)).sum())) for k in range(len(symbols))]
    return FittedCascade(
        cascade=cascade,
        decided=_share(decided, everything, rows, seed),
        precision=_share(right, decided, rows, seed),
        usd_per_1000=_usd(tiers),
        alone=_one_judge(rows, *judges[-1], target, took, seed) if len(judges) > 1 else None,
        grades=dict(zip(symbols, counts, strict=True)),
        surest=surest,
    )


def _tier(judge: Judge, told: Said, found: Alone, fingerprint: str, price: Paid) -> Tier:
    return Tier(
        judge=judge.name,
        instruction=judge.instruction,
        fingerprint=fingerprint,
        silent=told.silent,
        threshold=found.threshold,
        share=found.share,
        precision=_precision(found),
        **price.model_dump(),
    )


def _usd(tiers: Sequence[Tier]) -> float | None:
    """Of 1,000 rows, each asked of one judge after the other until it is decided; one that decides nothing is not."""
    total, left = 0.0, 1.0
    for tier in (tier for tier in tiers if tier.threshold is not None):
        if tier.cost_usd is None:
            return None
        total, left = total + 1000 * tier.cost_usd * left, left - (tier.share.value or 0.0)
    return total


def _one_judge(rows: Rows, judge: Judge, told: Said, target: float, took: Mapping[str, Paid], seed: int) -> OneJudge:
    found = alone(told.confidence, told.place == rows.gold, rows.groups, most_error=1 - target, seed=seed)
    price = took.get(judge.name, Paid()).cost_usd
    usd = None if price is None else 1000 * price
    return OneJudge(judge=judge.name, share=found.share, precision=_precision(found), usd_per_1000=usd)


def _surest(confidence: Floats, hits: NDArray[np.bool_], rows: Rows, seed: int) -> Interval:
    if np.isnan(confidence).all():
        return Interval(value=None)
    top = confidence >= np.nanquantile(confidence, 0.9)
    return _share(hits & top, top, rows, seed)


def _precision(found: Alone) -> Interval:
    value, low, high = found.error.value, found.error.low, found.error.high
    if value is None:
        return Interval(value=None)
    return Interval(value=1 - value, low=None if high is None else 1 - high, high=None if low is None else 1 - low)


def _share(hits: NDArray[np.bool_], of: NDArray[np.bool_], rows: Rows, seed: int) -> Interval:
    return share_by_group(hits, of, rows.groups, seed=seed) if of.any() else Interval(value=None)
