"""How far judges agree, and what they say together.

Light: numpy, and scipy's sparse matrices for Dawid-Skene. Votes are arrays of codes: the
item, the rater and the grade's position of each vote. Intervals resample items, or groups
of items where rows of one query hang together.

From the field: Cohen's kappa (1960, weighted 1968), Fleiss's kappa (1971), Krippendorff's
alpha (2004), Dawid and Skene's model of observer error (1979).
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from store.stats import Floats, GroupBootstrap, Interval, Ints, Statistic, group_codes
from store.task import Task

Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["none", "linear", "quadratic"]

_SMOOTHING = 0.01  # a pseudo-vote per cell of a rater's table, so that no grade becomes impossible


def vote_counts(items: Ints, grades: Ints, n_items: int, k: int) -> Ints:
    """(I, K): how many votes each item has for each grade."""
    return np.bincount(items * k + grades, minlength=n_items * k).reshape(n_items, k)


def share_all_agree(counts: Ints) -> float | None:
    """Share of items whose votes, two or more, are all the same; None when no item has two."""
    votes = counts.sum(axis=1)
    twice = votes >= 2
    return float(np.mean(counts.max(axis=1)[twice] == votes[twice])) if twice.any() else None


# -- agreement beyond chance ---------------------------------------------------------------------


def cohen_kappa(
    first: ArrayLike, second: ArrayLike, k: int, *, weights: Weights = "none", groups: Any = None, seed: int = 0
) -> Interval:
    """Cohen's kappa of two raters on the same items.

    Args:
        first, second: (I,) positions of the grades.
        k: number of grades.
        weights: none, or distance between positions, linear or quadratic.
        groups: (I,) what to resample; each item by itself when None.
    """
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    place = np.arange(k)
    apart = np.abs(place[:, None] - place[None, :]).astype(np.float64)
    distance = {"none": (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[weights]

    def kappa(sums: Floats) -> Floats:
        table = sums.reshape(*sums.shape[:-1], k, k)
        by_chance = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]
        total = table.sum(axis=(-2, -1))
        return _beyond_chance((distance * table).sum(axis=(-2, -1)) * total, (distance * by_chance).sum(axis=(-2, -1)))

    bootstrap, block = _blocks(len(a), groups, seed)
    return bootstrap.interval_of_blocks(_cells(block, a * k + b, bootstrap.blocks, k * k), kappa)


def fleiss_kappa(counts: Ints, *, groups: Any = None, seed: int = 0) -> Interval:
    """Fleiss's kappa of any raters; items with fewer than two votes are left out.

    Args:
        counts: (I, K) from `vote_counts`. Items may differ in their number of votes; each
            counts once, as in Fleiss's formula for equal numbers.
    """
    n = counts.sum(axis=1)
    use = n >= 2
    c, votes = counts[use].astype(np.float64), n[use].astype(np.float64)
    pairs = ((c**2).sum(axis=1) - votes) / (votes * (votes - 1))
    columns = np.column_stack([np.ones(len(c)), pairs, c])

    def kappa(sums: Floats) -> Floats:
        items, agree, grades = sums[..., 0], sums[..., 1], sums[..., 2:]
        total = grades.sum(axis=-1)
        chance = ((grades / np.where(total > 0, total, 1)[..., None]) ** 2).sum(axis=-1)
        return _beyond_chance(1 - agree / np.where(items > 0, items, 1), np.where(items > 0, 1 - chance, 0.0))

    return _interval_of_items(columns, None if groups is None else np.asarray(groups)[use], kappa, seed)


def level_of(task: Task) -> Level:
    """How grades of a task may differ: by distance in their order, or, where they have none, at all."""
    return "ordinal" if task.ordered else "nominal"


def krippendorff_alpha(
    counts: Ints, *, level: Level = "nominal", values: ArrayLike | None = None, groups: Any = None, seed: int = 0
) -> Interval:
    """Krippendorff's alpha; missing votes are allowed, items with fewer than two are left out.

    Args:
        counts: (I, K) from `vote_counts`, grades in ascending order.
        level: nominal (any difference is a difference), ordinal, or interval (uses `values`).
        values: (K,) value of each grade; positions when None.
        groups: (I,) what to resample; each item by itself when None.
    """
    k = counts.shape[1]
    n = counts.sum(axis=1)
    use = n >= 2
    c = counts[use].astype(np.float64)
    scale = 1 / (n[use] - 1.0)
    bootstrap, block = _blocks(len(c), None if groups is None else np.asarray(groups)[use], seed)
    cells = [
        np.bincount(block, weights=c[:, i] * (c[:, j] - (i == j)) * scale, minlength=bootstrap.blocks)
        for i in range(k)
        for j in range(k)
    ]
    place = np.arange(k, dtype=np.float64) if values is None else np.asarray(values, dtype=np.float64)

    def alpha(sums: Floats) -> Floats:
        pairs = sums.reshape(*sums.shape[:-1], k, k)
        votes = pairs.sum(axis=-1)
        distance = _distance(level, place, votes)
        observed = (pairs * distance).sum(axis=(-2, -1)) * (votes.sum(axis=-1) - 1)
        return _beyond_chance(observed, (votes[..., :, None] * votes[..., None, :] * distance).sum(axis=(-2, -1)))

    return bootstrap.interval_of_blocks(np.stack(cells, axis=1), alpha)


def _distance(level: Level, values: Floats, votes: Floats) -> Floats:
    """Squared distance between grades: (K, K), or (…, K, K) where it depends on how often each was given."""
    if level == "ordinal":
        middle = np.cumsum(votes, axis=-1) - votes / 2
        return (middle[..., :, None] - middle[..., None, :]) ** 2
    if level == "interval":
        return (values[:, None] - values[None, :]) ** 2
    return 1 - np.eye(len(values))


def _beyond_chance(observed: Floats, expected: Floats) -> Floats:
    """1 - disagreement / disagreement by chance; NaN when chance cannot disagree (one grade only)."""
    out: Floats = np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), np.nan)
    return out


def _blocks(n_items: int, groups: Any, seed: int) -> tuple[GroupBootstrap, Ints]:
    """What is resampled, and to which of its blocks each item belongs."""
    codes, n_groups = (np.arange(n_items), n_items) if groups is None else group_codes(groups)
    bootstrap = GroupBootstrap(n_groups, seed=seed)
    return bootstrap, bootstrap.block_of[codes]


def _cells(block: Ints, cell: Ints, blocks: int, width: int) -> Floats:
    return np.bincount(block * width + cell, minlength=blocks * width).reshape(blocks, width).astype(np.float64)


def _interval_of_items(columns: Floats, groups: Any, statistic: Statistic, seed: int) -> Interval:
    bootstrap, block = _blocks(len(columns), groups, seed)
    sums = [np.bincount(block, weights=column, minlength=bootstrap.blocks) for column in columns.T]
    return bootstrap.interval_of_blocks(np.stack(sums, axis=1), statistic)


# -- what the judges say together ------------------------------------------------------------------


class Consensus:
    """What Dawid and Skene's model makes of the votes.

    Attributes:
        posterior: (I, K) probability of each grade.
        tables: (R, K, K) chance that a rater gives grade j when the truth is i.
        prevalence: (K,) share of each grade.
        iterations: rounds of expectation-maximisation.
    """

    def __init__(self, posterior: Floats, tables: Floats, prevalence: Floats, iterations: int) -> None:
        self.posterior = posterior
        self.tables = tables
        self.prevalence = prevalence
        self.iterations = iterations

    @property
    def grades(self) -> Ints:
        """(I,) the likeliest grade."""
        best: Ints = self.posterior.argmax(axis=1)
        return best

    @property
    def reliability(self) -> Floats:
        """(R,) chance that each rater gives the true grade."""
        out: Floats = np.einsum("k,rkk->r", self.prevalence, self.tables)
        return out


def dawid_skene(
    items: ArrayLike,
    raters: ArrayLike,
    grades: ArrayLike,
    *,
    n_items: int,
    n_raters: int,
    k: int,
    max_iterations: int = 100,
    tolerance: float = 1e-4,
) -> Consensus:
    """True grades and each rater's errors, estimated together; people and a teacher are raters alike.

    Starts at the share of votes and ends when no probability moves by more than `tolerance`.
    An item without votes keeps the prevalence.

    Args:
        items, raters, grades: (V,) codes of each vote.
    """
    from scipy.sparse import coo_array

    i, r, g = (np.asarray(x, dtype=np.int64) for x in (items, raters, grades))
    counts = vote_counts(i, g, n_items, k).astype(np.float64)
    voted = counts.sum(axis=1) > 0
    posterior: Floats = np.full((n_items, k), 1 / k)
    posterior[voted] = counts[voted] / counts[voted].sum(axis=1, keepdims=True)
    votes = coo_array((np.ones(len(i)), (i, r * k + g)), shape=(n_items, n_raters * k)).tocsr()
    votes_by_rater = votes.T.tocsr()
    iterations = 0
    while True:
        iterations += 1
        prevalence = posterior[voted].mean(axis=0) if voted.any() else np.full(k, 1 / k)
        tables = _rater_tables(votes_by_rater @ posterior, n_raters, k)
        latest = _posterior(prevalence, votes @ np.log(tables).transpose(0, 2, 1).reshape(n_raters * k, k))
        moved = float(np.abs(latest - posterior).max(initial=0.0))
        posterior = latest
        if moved < tolerance or iterations == max_iterations:
            return Consensus(posterior, tables, prevalence, iterations)


def _rater_tables(given: Floats, n_raters: int, k: int) -> Floats:
    """Maximisation: from (R·K, K), votes of a rater for a grade by true grade, to (R, K, K) whose rows sum to 1."""
    tables = given.reshape(n_raters, k, k).transpose(0, 2, 1) + _SMOOTHING
    normed: Floats = tables / tables.sum(axis=2, keepdims=True)
    return normed


def _posterior(prevalence: Floats, log_likelihood: Floats) -> Floats:
    """Expectation: (I, K) rows sum to 1."""
    score = log_likelihood + np.log(np.maximum(prevalence, 1e-300))
    likely = np.exp(score - score.max(axis=1, keepdims=True))
    normed: Floats = likely / likely.sum(axis=1, keepdims=True)
    return normed
