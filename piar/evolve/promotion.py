"""Promotion: one confirmatory test against the incumbent, on groups nobody has looked at: of the best candidate, or
of drafts of cross-fitting, each on the groups that it was not drafted from.

Search loosely, promote strictly. Rows of one group rise and fall together, so the test, the guards and the
power figure work on groups: over rows, McNemar's test promotes useless candidates in a quarter of cases on real
judges, a sign-flip test over groups in one of twenty. The level comes from a ledger, so that testing again on
the same groups gets harder; the ledger is the store's `decisions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np

from piar.evolve.guards import Guard, Paired, guards
from piar.evolve.ledger import Ledger
from piar.evolve.settings import PromotionSettings
from piar.evolve.steadiness import Repeated
from store.gain_metrics import METRICS, Metric, rows_of
from store.stats import (
    Gain,
    PairedVariance,
    detectable_effect,
    group_codes,
    group_sums,
    groups_for,
    spend,
)
from store.task import Task

_LEAST = 1e-300  # a p-value of which a normal score can be told
# Assumed before anything is measured: two judges differ on 30 % of rows, and a quarter of that is the group's.
_ASSUMED = PairedVariance(row=0.3, icc=0.25)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the confirmatory test says.

    Attributes:
        before: share of rows on which the incumbent is right.
        after: the same of the candidate.
        metric: what `gain` is in.
        scores: of incumbent and candidate by that metric.
        level: what `gain.p_value` had to stay below.
        refused_by: what was not passed; "" when all was.
        audit: rows asked twice before the gain is claimed, None when there was nothing to claim.
        folds: of cross-fitting, where drafts from part of the labels were judged in the candidate's place; else 0.
        drafted: of these, the ones for which something was drafted; the others count as no change.
    """

    candidate: str
    against: str
    n: int
    groups: int
    fixed: int
    broke: int
    before: float
    after: float
    metric: Metric
    scores: tuple[float, float]
    gain: Gain
    level: float
    guards: tuple[Guard, ...]
    refused_by: Literal["", "test", "guard", "audit"]
    reason: str
    audit: Repeated | None = None
    folds: int = 0
    drafted: int = 0

    @property
    def passed(self) -> bool:
        """Whether the candidate may be proposed."""
        return not self.refused_by


def confirm(
    candidate: str,
    against: str,
    paired: Paired,
    task: Task,
    ledger: Ledger,
    settings: PromotionSettings,
    seed: int,
    metric: Metric = METRICS["accuracy"],
    where: str = "on the holdout",
    folds: int = 0,
) -> Outcome:
    """Sign-flip permutation test over groups, confirmed by the interval by group, then the guards.

    The test takes groups for exchangeable. Where a few very large groups go the other way it finds a gain too often;
    the interval, which weighs groups by their rows, finds it less often
    (docs/experiments/intervals.md). So both must agree.

    Args:
        candidate: id of the instruction that wants to be promoted.
        against: id of the incumbent.
        paired: both on the rows that decide.
        ledger: earlier tests on the same groups.
        seed: of the permutations when they are not exact.
        metric: what a gain is in; guards go by each grade's own metric and each slice's accuracy.
        where: the gain is, in the reason's words.
        folds: of cross-fitting; see `over_folds`.
    """
    level = spend(ledger.spent, total=settings.alpha)
    values = [grade.value for grade in task.grades]
    old, new = (metric.sums(rows_of(paired.groups, paired.truth, *said, values)) for said in paired.sides)
    gain = over_folds(metric.gain(old, new, seed=seed), folds)
    right_before, right_after = paired.before == paired.truth, paired.after == paired.truth
    better = shown(gain, level)
    guarded = guards(paired, task, settings, seed) if better else ()
    harmed = any(g.state == "harm" for g in guarded)
    return Outcome(
        candidate,
        against,
        n=len(right_before),
        groups=group_codes(paired.groups)[1],
        fixed=int(np.sum(right_after & ~right_before)),
        broke=int(np.sum(right_before & ~right_after)),
        before=float(np.mean(right_before)),
        after=float(np.mean(right_after)),
        metric=metric,
        scores=(metric.value(old), metric.value(new)),
        gain=gain,
        level=level,
        guards=guarded,
        refused_by="guard" if harmed else "" if better else "test",
        reason=_reason(paired, metric, gain, level, guarded, settings, where),
        folds=folds,
    )


def shown(gain: Gain, level: float) -> bool:
    """Whether test and interval both say that there is a gain."""
    return gain.p_value <= level and gain.above


def fold_spread(folds: int) -> float:
    """How much wider than it looks a mean over K folds is spread, √(1 + K / (K - 1)); 1 for none.

    What is drafted for each fold has seen nearly the same rows, so a choice that is lucky is lucky in all of them.
    Nadeau and Bengio (2003) correct the variance of a resampled mean from 1/K to 1/K + n_test/n_train, which is this.
    """
    return sqrt(1 + folds / (folds - 1)) if folds > 1 else 1.0


def over_folds(gain: Gain, folds: int) -> Gain:
    """A gain that was found over folds: its interval, and the normal score of its p-value, by `fold_spread`.

    That the sign-flip test is corrected so, by its normal score, is ours; no p-value becomes smaller.
    """
    if not folds:
        return gain
    wide = fold_spread(folds)
    low, high = (None if end is None else gain.mean + wide * (end - gain.mean) for end in (gain.low, gain.high))
    score = -NormalDist().inv_cdf(min(0.5, max(gain.p_value, _LEAST)))
    corrected = erfc(score / wide / sqrt(2)) / 2
    return Gain(mean=gain.mean, low=low, high=high, p_value=max(gain.p_value, corrected))


def _reason(
    paired: Paired,
    metric: Metric,
    gain: Gain,
    level: float,
    guarded: Sequence[Guard],
    settings: PromotionSettings,
    where: str,
) -> str:
    told = f"p = {gain.p_value:.3g}, level {level:.3g}, by group"
    points = f"{100 * gain.mean:+.1f} points{metric.named} {where} ({told})"
    harmed, unearned = ([g for g in guarded if g.state == state] for state in ("harm", "unearned"))
    if harmed:
        losses = ", ".join(f"{g.name} ({100 * g.change:+.1f}, p = {g.harm_p:.2g})" for g in harmed)
        return f"{points}, but it loses more than {100 * settings.margin:.0f} points on {losses}"
    if gain.mean <= 0:
        return f"{points}: no gain"
    if gain.p_value > level:
        return f"{points}: could well be chance"
    if not gain.above:
        reached = (
            "so few groups give no interval"
            if gain.low is None
            else f"the interval by group reaches {100 * gain.low:+.1f}"
        )
        reached += "" if gain.low is None or metric.named else f": {_heaviest(paired)}"
        return f"{points}, but {reached}"
    lost = [f"{g.name} loses {-100 * g.change:.1f} points of {settings.metric} that were not earned" for g in unearned]
    return "; ".join([points, *lost])


def _heaviest(paired: Paired) -> str:
    """The group that pulls the gain down most, without its name: the holdout stays closed to who edits rules."""
    codes, count = group_codes(paired.groups)
    rows = np.bincount(codes, minlength=count)
    change = group_sums(paired.score_after - paired.score_before, codes, count)[:, 0]
    worst = int(np.argmin(change - rows * change.sum() / rows.sum()))
    return (
        f"few groups decide it (one of {rows[worst]:,} rows, {100 * rows[worst] / rows.sum():.0f} % of all, changes by "
        f"{100 * change[worst] / rows[worst]:+.0f} points)"
    )


# -- power ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Power:
    """What the holdout can show, said before anything is spent.

    Attributes:
        detectable: smallest true gain that is found in four of five runs; None for one group.
        of: what the points are of, where it has to be said.
        where: the rows are, at the beginning of a sentence.
        groups_to_halve: groups of the same size that would halve it.
    """

    groups: int
    rows: int
    detectable: float | None
    groups_to_halve: int | None
    of: str = ""
    where: str = "The holdout"

    def sentence(self) -> str:
        """In words."""
        if self.detectable is None or self.groups_to_halve is None:
            return f"{self.where} has {self.groups} group: nothing can be shown. Label more groups."
        more = max(0, self.groups_to_halve - self.groups)
        return (
            f"{self.where} ({self.rows} rows in {self.groups} groups) can show a gain of "
            f"{100 * self.detectable:.1f} points{self.of}; {more} more groups of {self.rows / self.groups:.0f} rows "
            "would halve that."
        )


def power(
    groups: Sequence[str],
    level: float,
    metric: Metric = METRICS["accuracy"],
    where: str = "The holdout",
    folds: int = 0,
) -> Power:
    """What can be shown on the rows that decide.

    Args:
        groups: group of each row.
        level: of the coming test.
        metric: of the run. What can be shown is worked out for accuracy, which is said where it is another.
        where: the rows are, at the beginning of a sentence.
        folds: of cross-fitting.
    """
    sizes = np.bincount(group_codes(np.asarray(groups))[0])
    effect = detectable_effect(_ASSUMED, sizes, alpha=level) if level > 0 else None
    halved = groups_for(_ASSUMED, effect / 2, max(1, round(sizes.mean())), alpha=level) if effect else None
    found = fold_spread(folds) * effect if effect else effect
    return Power(len(sizes), len(groups), found, halved, of=" of accuracy" if metric.named else "", where=where)


def needed(groups: Sequence[str], level: float, gain: float) -> int:
    """Holdout groups, of as many rows as these, with which a gain can be shown; assumes what `power` assumes."""
    sizes = np.bincount(group_codes(np.asarray(groups))[0])
    return groups_for(_ASSUMED, gain, max(1, round(sizes.mean())), alpha=level)
