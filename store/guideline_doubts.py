"""Where the better raters contradict the label: what the guideline says there may be wrong, and not the people.

A plain hard item leaves everybody unsure. A fault of the guideline does something else: people who are usually right
depart from the label, and those who are usually wrong follow it. So ability and being right are negatively correlated
there, as a test theorist looks for items of negative discrimination. Each item that splits its raters is a stratum;
under the null hypothesis ability says nothing of who is right in it, so that all ways to hand out its right answers are
equally likely (a stratified permutation test).

Chosen by us: ability is how far a rater is above the others by the expected right answers of Dawid and Skene's
posterior, in the median over the other rules, so that a few at fault do not turn it round. Of several items the sum of
(ability, being right) products is compared with its permutation mean and variance by the normal law; of one item the
chance is counted out. Where ability helps, as it should, the test is conservative. The false discovery rate over all
that is tested is held by Benjamini and Hochberg (1995).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from store.agreement import dawid_skene
from store.stats import Floats, Ints

RATE = 0.05  # share of false ones among what is named
_FEWEST_RATERS, _FEWEST_ANSWERS, _FEWEST_SPLIT = 3, 5, 8  # people; answers of one under a rule; rows of a rule
_MOST_COUNTED = 5000  # ways to hand out the right answers of one item
_LEAST_CHANCE = 0.002  # an item of which no way is less likely than this can never be named among many


@dataclass(frozen=True, slots=True)
class Doubt:
    """A rule, a grade or an item where better raters contradict the label more often than worse ones.

    Attributes:
        what: `rule R07`, `grade 1` or `item ID`.
        items: items that split their raters there.
        correlation: between ability and agreeing with the label, within items.
        p_value: one-sided; `q_value` is adjusted for all that was tested.
        examples: positions of items, the most telling first.
    """

    what: str
    items: int
    correlation: float
    p_value: float
    q_value: float
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """An item whose raters are not of one mind about its label."""

    item: int
    ability: Floats
    right: Floats

    @property
    def excess(self) -> float:
        """Σ ability · right beyond its permutation mean."""
        return float(self.ability @ (self.right - self.right.mean()))

    @property
    def variance(self) -> float:
        """Of that sum, over all ways to hand out the right answers."""
        a, c = self.ability - self.ability.mean(), self.right - self.right.mean()
        return float((a @ a) * (c @ c) / (len(a) - 1))


def doubts(
    items: ArrayLike,
    raters: ArrayLike,
    grades: ArrayLike,
    labels: ArrayLike,
    named: Mapping[str, Sequence[int]],
    k: int,
) -> tuple[list[Doubt], int]:
    """What is named at a false discovery rate of `RATE`, the surest first; and how much was tested.

    Args:
        items, raters, grades: (V,) codes of each vote.
        labels: (I,) the grade held true of each item, -1 where none is.
        named: `rule R07` -> positions of its items, and so on; items by themselves are tested, too.
        k: number of grades.
    """
    from scipy.stats import false_discovery_control

    i, r, g, label = (np.asarray(x, dtype=np.int64) for x in (items, raters, grades, labels))
    if not len(i) or int(r.max()) + 1 < _FEWEST_RATERS:
        return [], 0
    votes = _Votes(i, r, g, label, list(named.values()), k)
    tests = [t for n, (what, among) in enumerate(named.items()) if (t := _together(what, votes.strata(among, n)))]
    tests += [t for item in votes.split for s in votes.strata([item]) if (t := _alone(s))]
    adjusted = false_discovery_control([t.p_value for t in tests]) if tests else []
    found = [replace(t, q_value=float(q)) for t, q in zip(tests, adjusted, strict=True) if q <= RATE]
    return sorted(found, key=lambda d: (d.p_value, d.what)), len(tests)


class _Votes:
    """All votes, and what they tell of each rater."""

    def __init__(
        self, items: Ints, raters: Ints, grades: Ints, labels: Ints, parts: Sequence[Sequence[int]], k: int
    ) -> None:
        n_raters = int(raters.max()) + 1
        self._raters, self._right = raters, (grades == labels[items]).astype(np.float64)
        self._of_item: list[list[int]] = [[] for _ in labels]
        for vote, item in enumerate(items):
            if labels[item] >= 0:
                self._of_item[item].append(vote)
        self.split = [item for item, v in enumerate(self._of_item) if v and 0 < self._right[v].sum() < len(v)]
        self._is_split = set(self.split)
        belief = dawid_skene(items, raters, grades, n_items=len(labels), n_raters=n_raters, k=k).posterior
        self._above = _above_average(items, raters, belief[items, grades], parts, len(labels), n_raters)

    def strata(self, among: Sequence[int], part: int | None = None) -> list[_Split]:
        """Of these items those that split raters of different ability.

        Args:
            part: whose items say nothing of ability here, since it is about them.
        """
        others = self._above if part is None else np.delete(self._above, part, axis=1)
        ability = np.array([np.median(told) if len(told := row[~np.isnan(row)]) else np.nan for row in others])
        found = []
        for item in (item for item in among if item in self._is_split):
            votes = self._of_item[item]
            able = ability[self._raters[votes]]
            known = ~np.isnan(able)
            stratum = _Split(item, able[known], self._right[votes][known])
            if known.sum() > 1 and stratum.variance > 0:
                found.append(stratum)
        return found


def _above_average(
    items: Ints, raters: Ints, expected: Floats, parts: Sequence[Sequence[int]], n_items: int, n_raters: int
) -> Floats:
    """(R, P): how far the share of a rater's answers that are expected to be right is above all raters' in each part.

    NaN where a rater has given too few; items of no part are one more.
    """
    part_of = np.full(n_items, len(parts))
    for n, among in enumerate(parts):
        part_of[list(among)] = n
    answers, hits = (np.zeros((n_raters, len(parts) + 1)) for _ in range(2))
    np.add.at(answers, (raters, part_of[items]), 1.0)
    np.add.at(hits, (raters, part_of[items]), expected)
    usual = hits.sum(axis=0) / np.maximum(answers.sum(axis=0), 1)
    above: Floats = np.where(answers >= _FEWEST_ANSWERS, hits / np.maximum(answers, 1) - usual, np.nan)
    return above


def _together(what: str, splits: Sequence[_Split]) -> Doubt | None:
    """The test of all items of a rule; None where too few are split to tell."""
    from scipy.stats import norm

    if len(splits) < _FEWEST_SPLIT:
        return None
    excess, spread = sum(s.excess for s in splits), np.sqrt(sum(s.variance for s in splits))
    size = np.sqrt(
        sum(float(((s.ability - s.ability.mean()) ** 2).sum()) for s in splits)
        * sum(float(((s.right - s.right.mean()) ** 2).sum()) for s in splits)
    )
    telling = sorted(splits, key=lambda s: (s.excess, s.item))
    p = float(norm.cdf(excess / spread))
    return Doubt(what, len(splits), float(excess / size), p, p, tuple(s.item for s in telling[:5]))


def _alone(split: _Split) -> Doubt | None:
    """One item by counting all ways; None where so few raters could never say enough."""
    n, hits = len(split.right), int(split.right.sum())
    ways = comb(n, hits)
    if not 1 / ways <= _LEAST_CHANCE or ways > _MOST_COUNTED:
        return None
    seen = float(split.ability @ split.right) + 1e-12
    sums = split.ability[np.array(list(combinations(range(n), hits)))].sum(axis=1)
    p = float((sums <= seen).mean())
    correlation = float(np.corrcoef(split.ability, split.right)[0, 1])
    return Doubt(f"item {split.item}", 1, correlation, p, p, (split.item,))
