"""What a change of a judge gains in: the metric that the task's users have, by group throughout.

Every metric is sums by group and a figure of summed sums, as in `store.metrics`. From the field: accuracy, quadratic
kappa (Cohen 1968) and nDCG with linear gain, mean over the groups that can be ranked. A test by sign flips needs one
number for each group. Accuracy and nDCG are means, of rows and of groups, so a group's number is what it adds to the
sum. Kappa is a ratio whose denominator moves with the verdicts, so its numbers are the jackknife's pseudo-values of the
difference (Tukey 1958): G times the whole less (G - 1) times what is left without the group. Why not the disagreement
over the one that gold's own spread would give by chance: it takes one grade for everything as half agreement (.5, where
kappa is 0) and would promote judges that say little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from store.metrics import confusion_by_group, ndcg_by_group, quadratic_kappa
from store.stats import (
    Floats,
    Gain,
    GroupBootstrap,
    Ints,
    group_codes,
    group_sums,
    pseudo_values,
    ratio,
    sign_flip_test,
)

MetricName = Literal["accuracy", "qwk", "ndcg"]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a judge said on N rows of G groups.

    Attributes:
        codes: (N,) group of each row, 0 … G-1.
        truth: (N,) position of the true grade.
        said: (N,) the same of the verdict, -1 where it failed.
        score: (N,) 1 where right (or the share of people who agree).
        values: (K,) of the grades in the task's order.
    """

    codes: Ints
    count: int
    truth: Ints
    said: Ints
    score: Floats
    values: Floats


def rows_of(groups: Any, truth: Any, said: Any, score: Any, values: Sequence[float]) -> Rows:
    """Rows with their groups by name."""
    codes, count = group_codes(groups)
    return Rows(codes, count, truth, said, score, np.asarray(values, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to say how good a judge is.

    Attributes:
        words: its name in a sentence.
        sums: (G, S) of what each group contributes.
        figure: summed contributions (…, S) -> the figure (…,).
        adds: whether the figure is the first sum over the second, and so a mean to which a group adds.
        whole_groups: whether a group that is judged in part says nothing.
    """

    name: MetricName
    words: str
    sums: Callable[[Rows], Floats]
    figure: Callable[[Floats], Floats]
    adds: bool = True
    whole_groups: bool = False

    def value(self, sums: Floats) -> float:
        """The figure of all groups; 0 where it is not defined, as where one grade is all there is."""
        return float(np.nan_to_num(self.figure(sums.sum(axis=0))))

    def contributions(self, before: Floats, after: Floats) -> Floats:
        """(G,) a number for each group that says what the second judge gains there."""
        if self.adds:
            return np.asarray(after[:, 0] - before[:, 0])
        return pseudo_values(np.concatenate([before, after], axis=1), self._change)[1]

    def gain(self, before: Floats, after: Floats, *, seed: int) -> Gain:
        """What the second judge gains over the first, with its interval by group and the p-value of the sign flips."""
        pair = np.stack([after[:, 0] - before[:, 0], before[:, 1]], axis=1)
        sums, figure = (pair, ratio) if self.adds else (np.concatenate([before, after], axis=1), self._change)
        found = GroupBootstrap(len(sums), seed=seed).interval(sums, figure)
        p_value = sign_flip_test(self.contributions(before, after), seed=seed)
        return Gain(mean=found.value or 0.0, low=found.low, high=found.high, p_value=p_value)

    def _change(self, sums: Floats) -> Floats:
        half = sums.shape[-1] // 2
        return np.asarray(np.nan_to_num(self.figure(sums[..., half:])) - np.nan_to_num(self.figure(sums[..., :half])))

    @property
    def named(self) -> str:
        """What points are of; "" for accuracy, of which points are said to be everywhere."""
        return "" if self.name == "accuracy" else f" of {self.words}"

    def show(self, value: float) -> str:
        """A figure as people read it."""
        return f"is right on {100 * value:.1f} %" if self.name == "accuracy" else f"has {self.words} {value:.3f} on all"


def _right(rows: Rows) -> Floats:
    return group_sums(np.stack([rows.score, np.ones(len(rows.score))], axis=1), rows.codes, rows.count)


def _table(rows: Rows) -> Floats:
    return confusion_by_group(rows.codes, rows.count, rows.truth, rows.said, len(rows.values))


def _ranked(rows: Rows) -> Floats:
    score = np.where(rows.said < 0, np.nan, rows.values[rows.said])
    return ndcg_by_group(rows.codes, rows.count, rows.values[rows.truth] - rows.values[0], score)


def _square(sums: Floats) -> Floats:
    k = int(((1 + 4 * sums.shape[-1]) ** 0.5 - 1) / 2)  # K·(K+1) cells
    return sums.reshape(*sums.shape[:-1], k, k + 1)


def _agreement(sums: Floats) -> Floats:
    return quadratic_kappa(_square(sums))


METRICS: dict[MetricName, Metric] = {
    "accuracy": Metric("accuracy", "accuracy", _right, ratio),
    "qwk": Metric("qwk", "quadratic kappa", _table, _agreement, adds=False),
    "ndcg": Metric("ndcg", "nDCG", _ranked, ratio, whole_groups=True),
}
