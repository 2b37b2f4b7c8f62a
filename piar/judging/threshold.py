"""From which confidence on a judge's grade is right often enough: a curve by group, and the threshold on it.

The confidence is that of a grade, after its votes are tallied; a judge's whole distribution is corrected in
`store.calibration`. Everything is out of fold by group: no answer is placed on the curve, and no threshold judged,
with the help of its own group (search: its query). Isotonic regression: Zadrozny and Elkan, 2002.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.calibration import fold_of
from store.stats import share_by_group

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ConfidenceCurve:
    """Confidence -> probability of being right: a step curve through (`x`, `y`), rising.

    Attributes:
        out_of_fold: for each answer it was made from, that probability by the curve of other groups' answers.
    """

    x: Floats
    y: Floats
    out_of_fold: Floats

    def apply(self, confidence: Floats) -> Floats:
        """The probability that further answers are right."""
        found: Floats = np.interp(confidence, self.x, self.y)
        return found


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which probability of being right on to trust a judge.

    Attributes:
        value: trust answers at or above it; infinite when no threshold reaches the target.
        precision: share of trusted answers that are right, each judged by a threshold from other groups;
            None when none is trusted.
        low: lower end of its 95 % interval by group.
        high: upper end.
        coverage: share of answers that are trusted.
        reached: whether even `low` is at or above the target.
    """

    value: float
    target: float
    precision: float | None
    low: float | None
    high: float | None
    coverage: float
    reached: bool


def confidence_curve(confidence: Floats, right: Floats, groups: list[str], seed: int = 0) -> ConfidenceCurve:
    """Learn how often answers of a given confidence are right.

    Args:
        confidence: [n] what the judge says, 0 to 1.
        right: [n] 1 where it agrees with truth, else 0.
        groups: [n] group of each answer.

    Raises:
        PiarError: fewer than two groups.
    """
    folds = fold_of(groups, seed)
    out_of_fold = np.empty(len(confidence))
    for fold in range(int(folds.max()) + 1):
        inside = folds == fold
        x, y = _isotonic(confidence[~inside], right[~inside])
        out_of_fold[inside] = np.interp(confidence[inside], x, y)
    x, y = _isotonic(confidence, right)
    return ConfidenceCurve(x, y, out_of_fold)


def threshold_for(target: float, sureness: Floats, right: Floats, groups: list[str], seed: int = 0) -> Threshold:
    """The lowest confidence from which on answers are right with the target share.

    Args:
        target: precision to reach, such as 0.95.
        sureness: [n] out-of-fold probability of being right, of `confidence_curve`.
        right: [n] 1 where the answer agrees with truth, else 0.
        groups: [n] group of each answer.
    """
    folds = fold_of(groups, seed)
    trusted = np.zeros(len(right), dtype=bool)
    for fold in range(int(folds.max()) + 1):
        inside = folds == fold
        trusted[inside] = sureness[inside] >= _lowest(target, sureness[~inside], right[~inside])
    value = _lowest(target, sureness, right)
    interval = share_by_group(right * trusted, trusted, groups, seed=seed)
    reached = interval.low is not None and interval.low >= target
    return Threshold(value, target, interval.value, interval.low, interval.high, float(trusted.mean()), reached)


def _isotonic(confidence: Floats, right: Floats) -> tuple[Floats, Floats]:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, right)
    return fitted.X_thresholds_, fitted.y_thresholds_


def _lowest(target: float, confidence: Floats, right: Floats) -> float:
    """The lowest confidence such that the answers at or above it reach the target; infinite when none does."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, precision = confidence[order], np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # Equal confidences are trusted together, so only the last of a run may be a threshold.
    last = np.append(sorted_confidence[1:] != sorted_confidence[:-1], True)
    fits = np.flatnonzero(last & (precision >= target))
    return float(sorted_confidence[fits[-1]]) if len(fits) else float("inf")
