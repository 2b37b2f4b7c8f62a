"""Which grade a distribution stands for: named rules, and the one that rows with truth show to help.

Pure functions of (N, K) calibrated probabilities; K grades stand in their order, and a row without probabilities gets
no grade. The likeliest grade is right most often where probabilities mean what they say; a metric that counts how far a
grade is off, or an order, may be served better by another rule.

From the field: the mean (the best guess under squared error) and the quantile (under an unequal absolute error) of a
distribution over ordered levels; a cumulative threshold instead of the likeliest tier in search relevance (TaoSR1,
arXiv 2508.12365). Chosen by us: positions rather than values, the lower of two equally near grades, the steps of the
threshold, and the rule of what is kept: that of `store.calibration`.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from store.calibration import LEVEL, fold_of
from store.gain_metrics import Metric, MetricName, rows_of
from store.probability_scores import usable
from store.stats import Floats, Gain, Ints, Result

RuleName = Literal["argmax", "expected", "cumulative"]
STEPS = tuple(n / 20 for n in range(1, 20))  # thresholds that are tried
SLACK = 1e-9  # of a sum of probabilities


class DecisionRule(Result):
    """A rule that was chosen.

    Attributes:
        threshold: of `cumulative`; the others have none, and do not read it.
        metric: what it was chosen for, on so many rows of so many groups.
    """

    name: RuleName = "argmax"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    metric: MetricName = "accuracy"
    rows: int = 0
    groups: int = 0

    def apply(self, probs: ArrayLike) -> Ints:
        """(N,) position of each row's grade; -1 for a row that has no probabilities."""
        p = np.asarray(probs, dtype=np.float64)
        out, known = np.full(len(p), -1, dtype=np.int64), usable(p)
        q = p[known] / p[known].sum(axis=1, keepdims=True)
        out[known] = RULES[self.name](q, self.threshold)
        return out


class TriedRule(Result):
    """A rule on rows that chose none of its numbers.

    Attributes:
        value: of the metric; gain: over the likeliest grade.
    """

    name: RuleName
    value: float
    gain: Gain


class RuleFit(Result):
    """Which rules were tried, and which one helps.

    Attributes:
        value: of the metric by the likeliest grade.
        tried: none where the grades have no order.
        kept: None where none is shown to help: the likeliest grade stands.
    """

    metric: MetricName
    rows: int
    groups: int
    value: float
    tried: tuple[TriedRule, ...]
    kept: DecisionRule | None


def fit_rule(
    groups: list[str],
    gold: ArrayLike,
    probs: ArrayLike,
    metric: Metric,
    values: Floats,
    *,
    ordered: bool,
    seed: int = 0,
) -> RuleFit:
    """Try the rules, thresholds out of fold by group; the best is kept where its gain by group is above zero.

    Args:
        gold: (N,) positions in the task's grade order.
        probs: (N, K) calibrated, each row's by other groups; rows that have none are passed over.
        values: (K,) of the grades.

    Raises:
        PiarError: all rows are of one group.
    """
    p, y = np.asarray(probs, dtype=np.float64), np.asarray(gold, dtype=np.int64)
    known = usable(p)
    p, y, names = p[known], y[known], [g for g, k in zip(groups, known, strict=True) if k]

    def sums(said: Ints) -> Floats:
        return metric.sums(rows_of(names, y, said, (said == y).astype(np.float64), values.tolist()))

    before = sums(DecisionRule().apply(p))
    tried = []
    for name in [name for name in RULES if name != "argmax"] if ordered else []:
        after = sums(cross_decided(name, names, y, p, metric, values, seed=seed))
        tried.append(TriedRule(name=name, value=metric.value(after), gain=metric.gain(before, after, seed=seed)))
    helps = [t for t in tried if t.gain.above and len(tried) * t.gain.p_value <= 2 * LEVEL]
    best = max(helps, key=lambda t: t.gain.mean, default=None)
    return RuleFit(
        metric=metric.name,
        rows=len(p),
        groups=len(set(names)),
        value=metric.value(before),
        tried=tuple(tried),
        kept=None if best is None else fitted_rule(best.name, names, y, p, metric, values),
    )


def fitted_rule(
    name: RuleName, groups: list[str], gold: ArrayLike, probs: ArrayLike, metric: Metric, values: Floats
) -> DecisionRule:
    """A rule with its threshold from all rows that have probabilities; arguments as of `fit_rule`."""
    p, y = np.asarray(probs, dtype=np.float64), np.asarray(gold, dtype=np.int64)
    known = usable(p)
    p, y, names = p[known], y[known], np.asarray(groups)[known]

    def worth(threshold: float) -> tuple[float, float]:
        said = RULES[name](p / p.sum(axis=1, keepdims=True), threshold)
        rows = rows_of(names, y, said, (said == y).astype(np.float64), values.tolist())
        return metric.value(metric.sums(rows)), -abs(threshold - 0.5)

    found = DecisionRule(name=name, metric=metric.name, rows=len(p), groups=len(set(names.tolist())))
    return found.model_copy(update={"threshold": max(STEPS, key=worth)}) if name == "cumulative" and len(p) else found


def cross_decided(
    name: RuleName,
    groups: list[str],
    gold: ArrayLike,
    probs: ArrayLike,
    metric: Metric,
    values: Floats,
    *,
    seed: int = 0,
) -> Ints:
    """(N,) positions by a rule, each row's threshold from other groups alone; arguments as of `fit_rule`.

    Raises:
        PiarError: all rows are of one group.
    """
    p, y, names = np.asarray(probs, dtype=np.float64), np.asarray(gold, dtype=np.int64), np.asarray(groups)
    folds, out = fold_of(groups, seed), np.full(len(p), -1, dtype=np.int64)
    for fold in range(int(folds.max()) + 1):
        inside = folds == fold
        rule = fitted_rule(name, names[~inside].tolist(), y[~inside], p[~inside], metric, values)
        out[inside] = rule.apply(p[inside])
    return out


# -- rules: (N, K) probabilities that sum to 1, and a threshold, to (N,) positions ----------------


def _argmax(probs: Floats, threshold: float) -> Ints:
    """The likeliest; the lowest of equally likely ones."""
    return np.asarray(probs.argmax(axis=1))


def _expected(probs: Floats, threshold: float) -> Ints:
    """The level nearest to the mean level."""
    mean = probs @ np.arange(probs.shape[1])
    return np.asarray(np.ceil(mean - 0.5 - SLACK).clip(0), dtype=np.int64)


def _cumulative(probs: Floats, threshold: float) -> Ints:
    """The lowest grade such that it or a lower one has at least this probability."""
    return np.asarray((np.cumsum(probs, axis=1) >= threshold - SLACK).argmax(axis=1))


RULES: dict[RuleName, Callable[[Floats, float], Ints]] = {
    "argmax": _argmax,
    "expected": _expected,
    "cumulative": _cumulative,
}
