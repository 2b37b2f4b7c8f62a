"""Guards: whether a candidate that gains overall loses what the incumbent knew of one grade, or a slice.

A grade is guarded by its recall (or F1). A judge that gives one grade to nearly everything has that grade's recall near
1 and knows nothing of it, so a loss counts only where something was known: agreement with the truth on this grade
against the rest, beyond what giving it that often would bring by chance (Cohen's kappa, 1960). That a loss of recall
beside a gain of kappa that is shown is no harm is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from piar.evolve.settings import PromotionSettings
from store.stats import Floats, group_codes, group_sums, holm, pseudo_values, sign_flip_test
from store.task import Task

_HARM_LEVEL = 0.10  # familywise: a loss beyond the margin counts as real

State = Literal["holds", "harm", "unclear", "unearned"]
STATES: dict[State, str] = {
    "holds": "holds",
    "harm": "is harmed",
    "unclear": "cannot be told",
    "unearned": "loses what was not earned",
}


@dataclass(frozen=True, slots=True)
class Paired:
    """Champion and candidate on the same rows.

    Attributes:
        groups: (N,) group of each row.
        truth: (N,) position of the true grade.
        before: (N,) position of the incumbent's grade, -1 where it failed.
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

    @property
    def sides(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Grades and scores of each."""
        return (self.before, self.score_before), (self.after, self.score_after)


@dataclass(frozen=True, slots=True)
class Guard:
    """Whether one grade or slice is worse off.

    Attributes:
        change: of the grade's recall (or F1), or of the slice's accuracy.
        harm_p: chance of such a loss if there were none, adjusted for all guards (Holm).
        holds_p: chance of so little loss if it were as large as the margin, adjusted likewise.
        state: `holds` (shown not to lose more than the margin), `harm`, `unclear`, or `unearned`: as much is lost, but
            the incumbent did not know it.
        note: why a loss was not earned, "" otherwise.
    """

    name: str
    n: int
    change: float
    harm_p: float
    holds_p: float
    state: State
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Watched:
    """One grade or slice before it is tested: the change over all groups, and a pseudo-value for each group."""

    name: str
    n: int
    change: float
    values: Floats
    unearned: str = ""


def guards(paired: Paired, task: Task, settings: PromotionSettings, seed: int) -> tuple[Guard, ...]:
    """One guard for each grade and slice (accuracy) with enough rows.

    A ratio such as F1 is no sum over groups, so its test runs on the groups' jackknife pseudo-values.

    Args:
        paired: incumbent and candidate on the holdout.
        seed: of the permutations when they are not exact.
    """
    watched = [*_grades(paired, task, settings, seed), *_slices(paired, settings)]
    harm = holm([sign_flip_test(-w.values, seed=seed) for w in watched])
    holds = holm([sign_flip_test(w.values + settings.margin, seed=seed) for w in watched])
    return tuple(_guard(w, h, p, settings) for w, h, p in zip(watched, harm, holds, strict=True))


def _guard(watched: _Watched, harm_p: float, holds_p: float, settings: PromotionSettings) -> Guard:
    state: State = "holds" if holds_p <= settings.alpha else "unclear"
    lost = watched.change < -settings.margin and harm_p <= _HARM_LEVEL
    if lost:
        state = "unearned" if watched.unearned else "harm"
    note = watched.unearned if lost else ""
    return Guard(watched.name, watched.n, watched.change, harm_p, holds_p, state, note)


def _grades(paired: Paired, task: Task, settings: PromotionSettings, seed: int) -> list[_Watched]:
    codes, count = group_codes(paired.groups)
    found = []
    for position, symbol in enumerate(task.symbols):
        truth = paired.truth == position
        if truth.sum() >= settings.min_support:
            before, after = paired.before == position, paired.after == position
            parts = np.concatenate([_PARTS[settings.metric](truth, said) for said in (before, after)], axis=1)
            change, values = pseudo_values(group_sums(parts, codes, count), _change)
            unearned = _unearned(paired, truth, before, after, settings, seed) if change < -settings.margin else ""
            found.append(_Watched(f"grade {symbol}", int(truth.sum()), change, values, unearned))
    return found


def _slices(paired: Paired, settings: PromotionSettings) -> list[_Watched]:
    codes, count = group_codes(paired.groups)
    found = []
    for name, mask in paired.slices.items():
        if mask.sum() >= settings.min_support:
            rows = np.stack([(paired.score_after - paired.score_before) * mask, mask.astype(float)], axis=1)
            change, values = pseudo_values(group_sums(rows, codes, count), _share)
            found.append(_Watched(f"slice {name}", int(mask.sum()), change, values))
    return found


def _unearned(paired: Paired, truth: Any, before: Any, after: Any, settings: PromotionSettings, seed: int) -> str:
    """Why a loss on this grade would be no loss of knowledge; "" where it would be one."""
    known, now_known = kappa(truth, before), kappa(truth, after)
    if known <= settings.margin:
        return (
            f"the instruction in force gives it to {100 * np.mean(before):.0f} % of all rows and tells it from the "
            f"rest no better than chance (kappa {_told(known)}; the candidate {_told(now_known)})"
        )
    codes, count = group_codes(paired.groups)
    columns = [truth & before, before, truth & after, after, truth, np.ones(len(truth))]
    _, values = pseudo_values(group_sums(np.stack(columns, axis=1), codes, count), _kappa_change)
    if now_known > known and sign_flip_test(values, seed=seed) <= settings.alpha:
        return f"the candidate tells it from the rest better (kappa {_told(now_known)}, before {_told(known)})"
    return ""


def kappa(truth: Any, said: Any) -> float:
    """Cohen's kappa of two masks (N,): 0 for one that does not depend on the other, 1 for equal ones."""
    hits, given, true = (np.asarray(part.sum(), dtype=float) for part in (truth & said, said, truth))
    return float(_kappa(hits, given, true, len(truth)))


def _kappa(hits: Floats, said: Floats, true: Floats, rows: Any) -> Floats:
    p, q, agreed = true / rows, said / rows, 1 - (said + true - 2 * hits) / rows
    chance = p * q + (1 - p) * (1 - q)
    below = np.where(chance < 1, 1 - chance, 1)
    return np.asarray(np.where(chance < 1, (agreed - chance) / below, 0.0))


def _kappa_change(sums: Floats) -> Floats:
    hits, said, now_hits, now_said, true, rows = np.moveaxis(sums, -1, 0)
    return _kappa(now_hits, now_said, true, rows) - _kappa(hits, said, true, rows)


def _told(kappa: float) -> str:
    return f"{round(kappa, 2) + 0.0:.2f}"  # no minus before 0.00


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
