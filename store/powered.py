"""Prediction-powered means: many rows judged by a model, a few of them by people, one estimate with a valid interval.

Stated by others: the estimator and the weight λ that minimises its variance (PPI++, arXiv 2311.01453, after
prediction-powered inference, Science 2023); gold drawn with known, unequal probabilities and weighed by their inverse
(confidence-driven inference, arXiv 2408.15204). Chosen by us: variance by group (linearised, so rows of one query that
are wrong together count as such, and gold rows may lie among the judged ones), Student's t for few groups with gold,
and one more wrong row in the variance, so that a handful of gold rows that are all right does not prove perfection.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from store.stats import Floats, Interval, group_codes, group_sums, t_quantile


@dataclass(frozen=True, slots=True)
class Powered:
    """An estimated mean.

    Attributes:
        estimate: with its 95 % interval; alone: from the gold rows only.
        weight: λ, how far the model's opinion is used: 0 not at all.
        rows, gold, groups: rows judged, of them with gold, and the groups that these lie in.
    """

    estimate: Interval
    alone: Interval
    weight: float
    rows: int
    gold: int
    groups: int


def powered_mean(
    scores: ArrayLike,
    proxies: ArrayLike,
    groups: object,
    *,
    inclusion: ArrayLike | None = None,
    mass: ArrayLike | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    unseen: float = 1.0,
    caution: float = 0.0,
    level: float = 0.95,
) -> Powered:
    """The mean score of all rows, of which few are known.

    θ = λ·mean(f) + Σ w (y − λ f) / Σ w, with w = mass / inclusion over the rows with gold; its error is a sum over
    groups of a − λ b, so that λ = Σ a b / Σ b², kept within 0 and 1. At λ = 0 it is gold alone: before both are
    cut to the bounds the interval is never wider.

    Args:
        scores: (N,) y of a row that people judged (right = 1), NaN of the others; whose rows were drawn at random.
        proxies: (N,) f, what the model thinks the score is, within the bounds.
        groups: (N,) group of each row.
        inclusion: (N,) probability with which a row was drawn for people; equal ones when None.
        mass: (N,) how much a row counts in the mean; equal when None.
        bounds: of a score.
        unseen: how far a row may be off that gold did not happen to show; its square enters the variance once.
        caution: how much wider than with the best λ the interval may be. The largest λ within that is taken, and the
            error is that of G / (G - 1): a λ that fits a few skewed groups best makes intervals that end too early.

    Raises:
        ValueError: fewer than two groups with gold.
    """
    y, f = np.asarray(scores, dtype=np.float64), np.asarray(proxies, dtype=np.float64)
    known = np.isfinite(y)
    codes, n_groups = group_codes(groups)
    judged = len(np.unique(codes[known]))
    if judged < 2:
        raise ValueError("a mean with an interval needs gold in two groups or more")
    chance = np.ones(len(y)) if inclusion is None else np.asarray(inclusion, dtype=np.float64)
    share = np.ones(len(y)) if mass is None else np.asarray(mass, dtype=np.float64)
    share = share / share.sum()
    w = np.where(known, share / chance, 0.0)
    w /= w.sum()
    gold = np.where(known, y, 0.0)
    mean_y, mean_f, mean_all = float(w @ gold), float(w @ f), float(share @ f)
    parts = np.stack([w * (gold - mean_y), w * (f - mean_f) - share * (f - mean_all)], axis=1)
    a, b = group_sums(parts, codes, n_groups).T
    against = float(b @ b)
    weight = min(1.0, max(0.0, float(a @ b) / against)) if against > 1e-24 else 0.0
    reach = t_quantile(0.5 + level / 2, judged - 1)
    if caution:
        least = a - weight * b
        room = ((1 + caution) ** 2 - 1) * float(least @ least)
        weight = min(1.0, weight + math.sqrt(room / against)) if against > 1e-24 else 0.0
        reach *= math.sqrt(judged / (judged - 1))
    value = mean_y + weight * (mean_all - mean_f)
    return Powered(
        _interval(value, a - weight * b, unseen * w, reach, bounds),
        _interval(mean_y, a, unseen * w, reach, bounds),
        weight,
        len(y),
        int(known.sum()),
        judged,
    )


def _interval(value: float, errors: Floats, w: Floats, reach: float, bounds: tuple[float, float]) -> Interval:
    spread = reach * math.sqrt(float(errors @ errors) + float(w @ w) ** 2)  # w·w is 1 / n where all weigh the same
    return Interval(value=value, low=max(bounds[0], value - spread), high=min(bounds[1], value + spread))
