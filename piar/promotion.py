"""Promotion: one confirmatory test of the best candidate against the champion, on groups nobody has looked at.

Search loosely, promote strictly. Rows of one group rise and fall together, so the test, the guards and the
power figure work on groups: over rows, McNemar's test promotes useless candidates in a quarter of cases on real
judges, a sign-flip test over groups in one of twenty. The level comes from a ledger, so that testing again on
the same groups gets harder; the ledger is the store's `decisions`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from piar.audit import Repeated
from store.db import Store, now
from store.errors import PiarError
from store.ids import short_hash
from store.settings import Settings
from store.stats import (
    Floats,
    Gain,
    PairedVariance,
    detectable_effect,
    group_codes,
    group_sums,
    groups_for,
    holm,
    mcnemar,
    paired_gain,
    paired_variance,
    sign_flip_test,
    spend,
)
from store.task import Task

# Assumed before anything is measured: two judges differ on 30 % of rows, and a quarter of that is the group's.
_ASSUMED = PairedVariance(row=0.3, icc=0.25)


class PromotionSettings(Settings):
    """`[evolve.promotion]`: what a candidate must show.

    Attributes:
        alpha: chance of a false promotion over all tests on the same holdout groups.
        metric: of a grade: `recall`, or `f1`. Lost recall that precision makes up for (F1 does not fall) is no
            harm: a champion that gives one grade to everything has that grade's recall at 1.
        margin: loss of a grade's metric or a slice's accuracy that is borne, as a share (.05: five points).
        guard_alpha: familywise level at which a loss beyond the margin counts as real.
        min_support: rows that a grade or slice needs to be guarded at all.
        warn_uses: tests on the same holdout after which a warning is given.
        max_uses: tests on the same holdout after which no further one is made.
    """

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    metric: Literal["recall", "f1"] = "recall"
    margin: float = Field(default=0.05, ge=0)
    guard_alpha: float = Field(default=0.10, gt=0, lt=0.5)
    min_support: int = 30
    warn_uses: int = 3
    max_uses: int = 8


@dataclass(frozen=True, slots=True)
class Paired:
    """Champion and candidate on the same rows.

    Attributes:
        groups: (N,) group of each row.
        truth: (N,) position of the true grade.
        before: (N,) position of the champion's grade, -1 where it failed.
        after: (N,) the same for the candidate.
        score_before: (N,) 1 where right (or the share of people who agree).
        score_after: (N,) the same for the candidate.
        slices: name -> (N,) mask.
    """

    groups: Any
    truth: Any
    before: Any
    after: Any
    score_before: Any
    score_after: Any
    slices: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Guard:
    """Whether one grade or slice is worse off.

    Attributes:
        change: of the grade's recall (or F1), or of the slice's accuracy.
        harm_p: chance of such a loss if there were none, adjusted for all guards (Holm).
        holds_p: chance of so little loss if it were as large as the margin, adjusted likewise.
        state: `holds` (shown not to lose more than the margin), `harm`, or `unclear`.
    """

    name: str
    n: int
    change: float
    harm_p: float
    holds_p: float
    state: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """Earlier tests on these holdout groups: levels spent and how often they were used, by share of overlap."""

    spent: tuple[float, ...]
    uses: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the confirmatory test says.

    Attributes:
        mcnemar_p: the row-wise test, for comparison only.
        level: what `gain.p_value` had to stay below.
        audit: rows asked twice before the gain is claimed, None when there was nothing to claim.
    """

    candidate: str
    against: str
    n: int
    groups: int
    fixed: int
    broke: int
    gain: Gain
    level: float
    mcnemar_p: float
    guards: tuple[Guard, ...]
    passed: bool
    reason: str
    audit: Repeated | None = None


def confirm(
    candidate: str, against: str, paired: Paired, task: Task, ledger: Ledger, settings: PromotionSettings, seed: int
) -> Outcome:
    """Sign-flip permutation test over groups, confirmed by the interval by group, then the guards.

    The test takes groups for exchangeable. Where a few very large groups go the other way it finds a gain too often;
    the interval, which weighs groups by their rows, finds it less often (LOG.md). So both must agree.

    Args:
        candidate: id of the instruction that wants to be promoted.
        against: id of the champion.
        paired: both on the holdout.
        ledger: earlier tests on the same groups.
        seed: of the permutations when they are not exact.
    """
    level = spend(ledger.spent, total=settings.alpha)
    gain = paired_gain(paired.score_before, paired.score_after, paired.groups, seed=seed)
    right_before, right_after = paired.before == paired.truth, paired.after == paired.truth
    better = gain.p_value <= level and gain.low is not None and gain.low > 0
    guards = tuple(guard(paired, task, settings, seed)) if better else ()
    harmed = [g for g in guards if g.state == "harm"]
    return Outcome(
        candidate,
        against,
        n=len(right_before),
        groups=group_codes(paired.groups)[1],
        fixed=int(np.sum(right_after & ~right_before)),
        broke=int(np.sum(right_before & ~right_after)),
        gain=gain,
        level=level,
        mcnemar_p=mcnemar(right_before, right_after),
        guards=guards,
        passed=better and not harmed,
        reason=_reason(gain, level, harmed, settings),
    )


def _reason(gain: Gain, level: float, harmed: Sequence[Guard], settings: PromotionSettings) -> str:
    points = f"{100 * gain.mean:+.1f} points on the holdout (p = {gain.p_value:.3g}, level {level:.3g}, by group)"
    if harmed:
        losses = ", ".join(f"{g.name} {100 * g.change:+.1f} (p = {g.harm_p:.2g})" for g in harmed)
        return f"{points}, but it loses more than {100 * settings.margin:.0f} points on {losses}"
    if gain.mean <= 0:
        return f"{points}: no gain"
    if gain.p_value > level:
        return f"{points}: could well be chance"
    if gain.low is None or gain.low <= 0:
        return f"{points}, but the interval by group reaches {100 * (gain.low or 0):+.1f}: a few large groups decide it"
    return points


# -- guards ---------------------------------------------------------------------------------------


def guard(paired: Paired, task: Task, settings: PromotionSettings, seed: int) -> list[Guard]:
    """One guard for each grade and slice (accuracy) with enough rows.

    A ratio such as F1 is no sum over groups, so its test runs on the groups' jackknife pseudo-values.
    """
    codes, count = group_codes(paired.groups)
    found: list[tuple[str, int, float, Floats, bool]] = []  # name, rows, change, pseudo-values, made up for
    for position, symbol in enumerate(task.symbols):
        is_grade = paired.truth == position
        if is_grade.sum() >= settings.min_support:
            said = [p == position for p in (paired.before, paired.after)]
            parts = {m: np.concatenate([_PARTS[m](is_grade, s) for s in said], axis=1) for m in _PARTS}
            measured = _pseudo_values(group_sums(parts[settings.metric], codes, count), _change)
            made_up = float(_change(parts["f1"].sum(axis=0))) >= 0
            found.append((f"grade {symbol}", int(is_grade.sum()), *measured, made_up))
    for name, mask in paired.slices.items():
        if mask.sum() >= settings.min_support:
            rows = np.stack([(paired.score_after - paired.score_before) * mask, mask.astype(float)], axis=1)
            measured = _pseudo_values(group_sums(rows, codes, count), _share)
            found.append((f"slice {name}", int(mask.sum()), *measured, False))
    harm = holm([sign_flip_test(-values, seed=seed) for _, _, _, values, _ in found])
    holds = holm([sign_flip_test(values + settings.margin, seed=seed) for _, _, _, values, _ in found])
    return [
        Guard(name, n, change, h, p, "unclear" if made_up and change < 0 else _state(change, h, p, settings))
        for (name, n, change, _, made_up), h, p in zip(found, harm, holds, strict=True)
    ]


def _state(change: float, harm_p: float, holds_p: float, settings: PromotionSettings) -> str:
    if change < -settings.margin and harm_p <= settings.guard_alpha:
        return "harm"
    return "holds" if holds_p <= settings.alpha else "unclear"


def _f1_parts(truth: Any, said: Any) -> Floats:
    """(N, 2): twice the hits, and hits twice + misses + false alarms."""
    hits = (truth & said).astype(float)
    return np.stack([2 * hits, truth.astype(float) + said.astype(float)], axis=1)


def _recall_parts(truth: Any, said: Any) -> Floats:
    """(N, 2): hits, and what was to be hit."""
    return np.stack([(truth & said).astype(float), truth.astype(float)], axis=1)


_PARTS = {"f1": _f1_parts, "recall": _recall_parts}


def _change(sums: Floats) -> Floats:
    return _share(sums[..., 2:]) - _share(sums[..., :2])


def _share(sums: Floats) -> Floats:
    below = sums[..., 1]
    return np.asarray(np.where(below > 0, sums[..., 0] / np.where(below > 0, below, 1), 0.0))


def _pseudo_values(sums: Floats, statistic: Callable[[Floats], Floats]) -> tuple[float, Floats]:
    """The statistic of all groups, and a value for each group whose mean is nearly that (Tukey's jackknife)."""
    whole, count = sums.sum(axis=0), len(sums)
    value = statistic(whole)
    return float(value), count * value - (count - 1) * statistic(whole - sums)


# -- power ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Power:
    """What the holdout can show, said before anything is spent.

    Attributes:
        detectable: smallest true gain that is found in four of five runs; None for one group.
        groups_to_halve: groups of the same size that would halve it.
    """

    groups: int
    rows: int
    detectable: float | None
    groups_to_halve: int | None

    def sentence(self) -> str:
        """In words."""
        if self.detectable is None or self.groups_to_halve is None:
            return f"The holdout has {self.groups} group: nothing can be shown. Label more groups."
        more = max(0, self.groups_to_halve - self.groups)
        return (
            f"The holdout ({self.rows} rows in {self.groups} groups) can show a gain of "
            f"{100 * self.detectable:.1f} points; {more} more groups of {self.rows / self.groups:.0f} rows would halve "
            "that."
        )


def power(groups: Sequence[str], level: float, measured: tuple[Any, Any, Any] | None = None) -> Power:
    """What can be shown on these holdout rows.

    Args:
        groups: group of each holdout row.
        level: of the coming test.
        measured: scores before and after with their groups, from dev; assumed when None.
    """
    variance = _ASSUMED
    if measured is not None and len(set(measured[2])) > 1 and len(measured[2]) > len(set(measured[2])):
        found = paired_variance(*measured)
        variance = found if found.row > 0 else variance
    sizes = np.bincount(group_codes(np.asarray(groups))[0])
    effect = detectable_effect(variance, sizes, alpha=level) if level > 0 else None
    halved = groups_for(variance, effect / 2, max(1, round(sizes.mean())), alpha=level) if effect else None
    return Power(len(sizes), len(groups), effect, halved)


# -- ledger ---------------------------------------------------------------------------------------


def fingerprints(groups: Sequence[str]) -> list[str]:
    """Holdout groups as short hashes: which were used, without their text."""
    return sorted({short_hash(g, 10) for g in groups})


def ledger(store: Store, groups: Sequence[str], run_id: str) -> Ledger:
    """Earlier tests on these holdout groups, this run's own apart (a resumed run makes the same test)."""
    mine = set(fingerprints(groups))
    with store.read() as con:
        rows = con.execute(
            "select detail from decisions where kind = 'promotion' and run_id <> ? order by created_at", [run_id]
        ).fetchall()
    overlaps = []
    for (detail,) in rows:
        data = json.loads(detail)
        shared = len(mine & set(data.get("holdout_groups", ()))) / max(1, len(mine))
        overlaps.append((shared, float(data.get("level", 0.0))))
    return Ledger(tuple(share * level for share, level in overlaps), sum(share for share, _ in overlaps))


def check_uses(ledger: Ledger, settings: PromotionSettings) -> str | None:
    """A warning when the holdout is worn, None while it is fresh.

    Raises:
        PiarError: it has been used too often to prove anything.
    """
    fix = "Import newly labelled groups: part of them becomes fresh holdout."
    if ledger.uses >= settings.max_uses:
        raise PiarError(
            f"These holdout groups have been tested on {ledger.uses:.0f} times and prove nothing more.", fix
        )
    if ledger.uses >= settings.warn_uses:
        return f"These holdout groups have been tested on {ledger.uses:.0f} times; each test gets stricter. {fix}"
    return None


def record(
    store: Store,
    kind: str,
    instruction: str,
    against: str | None,
    outcome: str,
    reason: str,
    detail: Mapping[str, Any],
    by: str,
    run_id: str,
) -> None:
    """One row of `decisions`; a resumed run that decides the same again adds nothing."""
    decision_id = short_hash([kind, instruction, against, outcome, by, run_id], 16)
    with store.write() as con:
        con.execute(
            "insert into decisions select ?, ?, ?, ?, ?, ?, ?, ?, ?, ? "
            "where not exists (select 1 from decisions where decision_id = ?)",
            [
                decision_id,
                kind,
                instruction,
                against,
                outcome,
                reason,
                json.dumps(detail),
                by,
                run_id,
                now(),
                decision_id,
            ],
        )
