"""Where the better raters contradict the label: what the guideline says there may be wrong, and not the people.

A plain hard item leaves everybody unsure. A fault of the guideline does something else: people who are usually right
depart from the label, and those who are usually wrong follow it. So ability and being right are negatively correlated
there, as a test theorist looks for items of negative discrimination. Each item that splits its raters is a stratum;
under the null hypothesis ability says nothing of who is right in it, so that all ways to hand out its right answers are
equally likely (a stratified permutation test).

Chosen by us: ability is how much oftener than usual under the other rules a rater gives the grade of whoever else
judged the row. The median over those rules comes first, so that a few at fault do not turn it round; then all of them
together, without those under which ability does not help (half of all at most), until these stay the same. (A posterior
of who is right, such as Dawid and Skene's, follows the rules at fault: with three people a row it put the raters in the
wrong order, and hid most faults.) Of several items the sum of (ability, being right) products is compared with its
permutation mean and variance by the normal law; of one item the chance is counted out. Where ability helps, as it
should, the test is conservative. The false discovery rate over all that is tested is held by Benjamini and Hochberg
(1995).
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from store.agreement import vote_counts
from store.stats import Floats, Ints

RATE = 0.05  # share of false ones among what is named
_FEWEST_RATERS, _FEWEST_ANSWERS, _FEWEST_SPLIT = 3, 5, 8  # people; others' answers to one's rows; rows of a rule
_MOST_COUNTED = 5000  # ways to hand out the right answers of one item
_ROUNDS = 4  # of finding who is able and which rules say otherwise
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
        self._raters, self._right = raters, (grades == labels[items]).astype(np.float64)
        self._of_item: list[list[int]] = [[] for _ in labels]
        for vote, item in enumerate(items):
            if labels[item] >= 0:
                self._of_item[item].append(vote)
        self.split = [item for item, v in enumerate(self._of_item) if v and 0 < self._right[v].sum() < len(v)]
        self._is_split = set(self.split)
        surplus, met = _agreement(items, raters, grades, parts, len(labels), k)
        self._ability = _medians(surplus, met)  # (P + 1, R) without each part, and with all of them
        apart: set[int] | None = None
        for _ in range(_ROUNDS):
            lean = [_lean(self.strata(among, part)) for part, among in enumerate(parts)]
            found = {part for part in np.argsort(lean)[: len(parts) // 2].tolist() if lean[part] < 0}
            if found == apart:
                break
            apart, self._ability = found, _pooled(surplus, met, found)

    def strata(self, among: Sequence[int], part: int = -1) -> list[_Split]:
        """Of these items those that split raters of different ability.

        Args:
            part: whose items say nothing of ability here, since it is about them.
        """
        ability = self._ability[part]
        found = []
        for item in (item for item in among if item in self._is_split):
            votes = self._of_item[item]
            able = ability[self._raters[votes]]
            known = ~np.isnan(able)
            stratum = _Split(item, able[known], self._right[votes][known])
            if known.sum() > 1 and stratum.variance > 0:
                found.append(stratum)
        return found


def _agreement(
    items: Ints, raters: Ints, grades: Ints, parts: Sequence[Sequence[int]], n_items: int, k: int
) -> tuple[Floats, Floats]:
    """(R, P + 1) twice: how many of the other answers to the same items are a rater's own beyond what is usual in each
    part, and how many there are. Items of no part are one more.
    """
    part_of = np.full(n_items, len(parts))
    for n, among in enumerate(parts):
        part_of[list(among)] = n
    counts, n_raters = vote_counts(items, grades, n_items, k), int(raters.max()) + 1
    alike, met = (np.zeros((n_raters, len(parts) + 1)) for _ in range(2))
    np.add.at(alike, (raters, part_of[items]), counts[items, grades] - 1.0)
    np.add.at(met, (raters, part_of[items]), counts.sum(axis=1)[items] - 1.0)
    usual = alike.sum(axis=0) / np.maximum(met.sum(axis=0), 1)
    return alike - usual * met, met


def _medians(surplus: Floats, met: Floats) -> Floats:
    """(P + 1, R): each rater's median over the parts but one, and over all; NaN where that rests on too little."""
    share = np.where(met >= _FEWEST_ANSWERS, surplus / np.maximum(met, 1), np.nan)
    found: Floats = np.full((share.shape[1], len(share)), np.nan)
    for part in range(share.shape[1]):
        for rater, row in enumerate(np.delete(share, part, axis=1) if part < share.shape[1] - 1 else share):
            known = row[~np.isnan(row)]
            if len(known):
                found[part, rater] = np.median(known)
    return found


def _pooled(surplus: Floats, met: Floats, apart: Set[int]) -> Floats:
    """The same of all answers together, without the parts that are set apart."""
    kept = np.array([part not in apart for part in range(surplus.shape[1])])
    without = np.tile(kept, (surplus.shape[1], 1))
    np.fill_diagonal(without[:-1, :-1], False)
    others = without @ met.T
    found: Floats = np.where(others >= _FEWEST_ANSWERS, (without @ surplus.T) / np.maximum(others, 1), np.nan)
    return found


def _lean(splits: Sequence[_Split]) -> float:
    """How far, in standard deviations, the able are right of these items; below 0: they contradict the labels."""
    spread = np.sqrt(sum(s.variance for s in splits))
    return float(sum(s.excess for s in splits) / spread) if splits else 0.0


def _together(what: str, splits: Sequence[_Split]) -> Doubt | None:
    """The test of all items of a rule; None where too few are split to tell."""
    from scipy.stats import norm

    if len(splits) < _FEWEST_SPLIT:
        return None
    size = np.sqrt(
        sum(float(((s.ability - s.ability.mean()) ** 2).sum()) for s in splits)
        * sum(float(((s.right - s.right.mean()) ** 2).sum()) for s in splits)
    )
    telling = sorted(splits, key=lambda s: (s.excess, s.item))
    p, excess = float(norm.cdf(_lean(splits))), sum(s.excess for s in splits)
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
