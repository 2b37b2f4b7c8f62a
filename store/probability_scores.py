"""How good a judge's probabilities are: proper scores, and what its confidence is worth, by group.

Light as `store.metrics`, and written like it: what a group contributes, then the figure from summed contributions.
Rows without probabilities (failed answers among them) are counted and left out; their share is never guessed.

From the field: negative log-likelihood in nats; Brier (1950), the sum over all grades, 0 to 2; the ranked probability
score (Epstein 1969), divided by K - 1; the area under the risk-coverage curve (Geifman and El-Yaniv 2017); fixed levels
tested together, so that the largest one that passes may be taken (Angelopoulos et al., Learn then Test, 2021). Chosen
by us: the floor of a probability, the levels, equal confidences never divided, and one group more that is all wrong in
the bound of an error, since few errors in few groups would bound it too well.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from store.stats import (
    REPLICATES,
    Floats,
    GroupBootstrap,
    Interval,
    Ints,
    Result,
    bootstrap_by_group,
    group_codes,
    group_sums,
    ratio,
)

FLOOR = 1e-6  # below it a probability counts as this: an endpoint that leaves a grade out says 0
STEPS = 100  # of confidence, about equally many rows each, that a risk-coverage curve is drawn from
LEVELS = 20  # coverages at which an error is bounded: 5 %, 10 %, ... 100 %
MOST_ERROR = 0.05
ALPHA = 0.05  # of all bounds together, two-sided as everywhere
_ONE_HOT = 1 - 1e-6


class Alone(Result):
    """What a judge may decide alone, its errors bounded.

    Attributes:
        most_error: what the upper bound of the error must not exceed.
        share: rows that may be decided alone, of all rows; 0 where no confidence keeps the bound.
        threshold: the confidence from which on they are, None where none are.
        error: of those rows; its interval holds for all levels together.
    """

    most_error: float
    share: Interval
    threshold: float | None
    error: Interval


class ProbabilityScores(Result):
    """Of the rows with probabilities.

    Attributes:
        rows: how many have probabilities.
        without: how many have none; failed answers are among them.
        one_hot: rows whose probabilities are 0 and 1: a grade, and no more.
        clipped: rows whose truth was given less than `FLOOR`, and counts as that.
        rps: None where the grades have no order.
    """

    rows: int
    without: int
    one_hot: int
    clipped: int
    nll: Interval
    brier: Interval
    rps: Interval
    aurc: Interval
    alone: Alone


def probability_scores(
    groups: Any,
    gold: ArrayLike,
    probs: ArrayLike,
    *,
    ordered: bool = True,
    most_error: float = MOST_ERROR,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> ProbabilityScores | None:
    """Scores of a judge's probabilities; None where it gave none.

    Args:
        groups: (N,) group of each row.
        gold: (N,) positions in the task's grade order.
        probs: (N, K), NaN rows where unknown; each row is taken relative to its sum.
        ordered: the grades have an order.
        most_error: for `alone`.
    """
    p, y = np.asarray(probs, dtype=np.float64), np.asarray(gold, dtype=np.int64)
    known = usable(p)
    if not known.any():
        return None
    codes, n_groups = group_codes(groups)
    bootstrap = GroupBootstrap(n_groups, replicates=replicates, seed=seed)
    block, q, truth = bootstrap.block_of[codes[known]], normalised(p[known]), y[known]
    confidence, right = q.max(axis=1), q.argmax(axis=1) == truth

    def mean(rows: Floats) -> Interval:
        pairs = np.stack([rows, np.ones(len(rows))], axis=1)
        return bootstrap.interval_of_blocks(group_sums(pairs, block, bootstrap.blocks), ratio)

    by_step = risk_by_step(confidence, right, block, bootstrap.blocks)
    everywhere = np.full(len(p), np.nan)
    everywhere[known] = confidence
    hits = np.zeros(len(p), dtype=bool)
    hits[known] = right
    return ProbabilityScores(
        rows=len(q),
        without=len(p) - len(q),
        one_hot=int((confidence >= _ONE_HOT).sum()),
        clipped=int((q[np.arange(len(q)), truth] < FLOOR).sum()),
        nll=mean(nll_of(q, truth)),
        brier=mean(brier_of(q, truth)),
        rps=mean(rps_of(q, truth)) if ordered else Interval(value=None),
        aurc=bootstrap.interval_of_blocks(by_step, area_of_risk),
        alone=alone(everywhere, hits, groups, most_error=most_error, replicates=replicates, seed=seed),
    )


# -- proper scores, one a row ------------------------------------------------------------------


def usable(probs: Floats) -> NDArray[np.bool_]:
    """(N,) whether the K probabilities of a row are finite, none negative, and not all 0."""
    total = probs.sum(axis=1)
    out: NDArray[np.bool_] = np.isfinite(total) & (probs >= 0).all(axis=1) & (total > 0)
    return out


def normalised(probs: Floats) -> Floats:
    """Each row of (N, K) relative to its sum: the store's numbers are rounded."""
    out: Floats = probs / probs.sum(axis=1, keepdims=True)
    return out


def distributions(probs: Floats) -> Floats:
    """(N, K) with every row relative to its sum, NaN where it is no distribution."""
    known, out = usable(probs), np.full(probs.shape, np.nan)
    out[known] = normalised(probs[known])
    return out


def nll_of(probs: Floats, gold: Ints) -> Floats:
    """(N,) -log of the truth's probability, in nats; no probability counts as less than `FLOOR`."""
    out: Floats = -np.log(np.maximum(probs[np.arange(len(gold)), gold], FLOOR))
    return out


def brier_of(probs: Floats, gold: Ints) -> Floats:
    """(N,) squared distance between the probabilities and the truth's 1 and 0s, summed over grades."""
    out: Floats = ((probs - _indicator(gold, probs.shape[1])) ** 2).sum(axis=1)
    return out


def rps_of(probs: Floats, gold: Ints) -> Floats:
    """(N,) the same between cumulative probabilities, over K - 1: how far, not only whether, the judge was off."""
    k = probs.shape[1]
    gaps = np.cumsum(probs - _indicator(gold, k), axis=1)[:, :-1]
    out: Floats = (gaps**2).sum(axis=1) / max(1, k - 1)
    return out


def _indicator(gold: Ints, k: int) -> Floats:
    out: Floats = np.eye(k)[gold]
    return out


# -- what confidence is worth ------------------------------------------------------------------


def risk_by_step(confidence: Floats, right: NDArray[np.bool_], block: Ints, blocks: int) -> Floats:
    """(blocks, 2 * steps): rows and errors at each step of confidence, the surest first; equal ones are one step."""
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, STEPS + 1), method="lower"))
    step = len(edges) - np.searchsorted(edges, confidence, side="right")
    cell, size = block * len(edges) + step, blocks * len(edges)
    parts = [np.bincount(cell, weights=w, minlength=size) for w in (np.ones(len(cell)), (~right).astype(np.float64))]
    return np.concatenate([part.reshape(blocks, len(edges)) for part in parts], axis=1)


def area_of_risk(sums: Floats) -> Floats:
    """The mean, over all coverages from 0 to 1, of the error among the surest rows; from (..., 2 * steps).

    Within a step rows come in any order, so that errors grow evenly.
    """
    rows, errors = np.split(sums, 2, axis=-1)
    before, wrong = np.cumsum(rows, axis=-1) - rows, np.cumsum(errors, axis=-1) - errors
    some = np.where(rows > 0, rows, 1)
    rate, start = errors / some, np.where(before > 0, before, 1)
    inside = np.where(before > 0, rate + (wrong - before * rate) * np.log1p(rows / start) / some, rate)
    total = rows.sum(axis=-1)
    out: Floats = np.where(total > 0, (inside * rows).sum(axis=-1) / np.where(total > 0, total, 1), np.nan)
    return out


class Bin(Result):
    """Rows of about one confidence: how many, their mean confidence, and how often they are right."""

    rows: int
    confidence: float
    right: Interval


def reliability(groups: Any, gold: ArrayLike, probs: Floats, *, bins: int = 10, seed: int = 0) -> list[Bin]:
    """How often the likeliest grade is right, by its probability: bins of about equally many rows, ties undivided.

    Args:
        groups, gold: as of `probability_scores`.
        probs: (N, K), all usable.
    """
    q, truth = normalised(probs), np.asarray(gold, dtype=np.int64)
    confidence, right = q.max(axis=1), (q.argmax(axis=1) == truth).astype(np.float64)
    edges = np.unique(np.quantile(confidence, np.arange(bins) / bins, method="lower"))
    place = np.searchsorted(edges, confidence, side="right")
    parts = [place == number for number in np.unique(place)]
    names = np.asarray(groups)
    return [
        Bin(
            rows=int(part.sum()),
            confidence=float(confidence[part].mean()),
            right=bootstrap_by_group(right[part], names[part], seed=seed),
        )
        for part in parts
    ]


def risk_curve(gold: ArrayLike, probs: Floats) -> list[tuple[float, float]]:
    """(share of the rows, error among them), the surest first, at each step of confidence."""
    q, truth = normalised(probs), np.asarray(gold, dtype=np.int64)
    right = q.argmax(axis=1) == truth
    steps = risk_by_step(q.max(axis=1), right, np.zeros(len(q), dtype=np.int64), 1).sum(axis=0)
    rows, errors = (np.cumsum(part) for part in np.split(steps, 2))
    return [(float(n / len(q)), float(e / n)) for n, e in zip(rows, errors, strict=True) if n]


def alone(
    confidence: Floats,
    right: NDArray[np.bool_],
    groups: Any,
    *,
    most_error: float = MOST_ERROR,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Alone:
    """The largest share of rows whose error is at most `most_error` by its upper bound.

    The thresholds are quantiles of the confidences, which know no truth, and their bounds hold together (Bonferroni):
    no fold is needed.

    Args:
        confidence: (N,) of the decision, NaN where there is none; such rows cannot be decided.
        right: (N,) whether the decision is the truth.
        groups: (N,) group of each row.
    """
    codes, n_groups = group_codes(groups)
    said = confidence[~np.isnan(confidence)]
    thresholds = np.unique(np.quantile(said, np.arange(LEVELS) / LEVELS, method="lower")) if len(said) else ()
    level = 1 - ALPHA / max(1, len(thresholds))
    bound = GroupBootstrap(n_groups, replicates=replicates, seed=seed, level=level)
    block = bound.block_of[codes]
    for threshold in thresholds:
        taken = confidence >= threshold
        error = _error(bound, block, taken, taken & ~right, 1 - level)
        if error.high is not None and error.high <= most_error:
            share = GroupBootstrap(n_groups, replicates=replicates, seed=seed).interval_of_blocks(
                group_sums(np.stack([taken, np.ones(len(taken))], axis=1), block, bound.blocks), ratio
            )
            return Alone(most_error=most_error, share=share, threshold=float(threshold), error=error)
    return Alone(most_error=most_error, share=Interval(value=0.0), threshold=None, error=Interval(value=None))


def _error(
    bound: GroupBootstrap, block: Ints, taken: NDArray[np.bool_], wrong: NDArray[np.bool_], alpha: float
) -> Interval:
    sums = group_sums(np.stack([wrong, taken], axis=1), block, bound.blocks)
    found = bound.interval_of_blocks(sums, ratio)
    if found.value is None or (found.high is None and found.value > 0):
        return found
    groups = float((sums[:, 1] > 0).sum())
    # One group more, all wrong; and where no error was seen, what so many groups could have hidden (exact).
    one_more = (sums[:, 0].sum() + sums[:, 1].sum() / groups) / (sums[:, 1].sum() * (1 + 1 / groups))
    hidden = 1 - (alpha / 2) ** (1 / groups) if not found.value else 0.0
    return Interval(value=found.value, low=found.low or 0.0, high=float(max(found.high or 0.0, one_more, hidden)))
