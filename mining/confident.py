"""Confident learning: which labels a model's out-of-sample probabilities contradict.

Source: Northcutt, Jiang and Chuang, Confident Learning, JAIR 2021 (arXiv 1911.00068), "prune by noise rate". The set is
that of cleanlab 2.9.0's `find_label_issues` (`make peers` compares them). Works column by column,
which is what makes it fast for few grades.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[Any]
Probs = npt.NDArray[Any]
Mask = npt.NDArray[Any]
Array = npt.NDArray[Any]

_CLOSE = 1e-6  # probabilities closer than this count as equal


def find_issues(labels: Labels, probs: Probs) -> Mask:
    """(N,) true where the label is likely wrong: the largest margins of each (given, guessed) pair.

    Args:
        labels: (N,) positions of the given grades.
        probs: (N, K) out-of-sample probabilities, rows summing to 1.

    Raises:
        ValueError: shapes that do not fit, a label out of range, or probabilities that are none.
    """
    _check(labels, probs)
    columns = np.ascontiguousarray(probs.T)
    issues = _prune_by_noise_rate(labels, columns, _prune_counts(labels, columns))
    return np.asarray(issues & (_argmax(columns, favour=labels) != labels))


def thresholds(labels: Labels, columns: Probs) -> Array:
    """(K,) mean self-confidence of each grade: from here on a row is confidently of that grade; 2 for absent ones."""
    means = [column[mine].mean() if (mine := labels == k).any() else 2.0 for k, column in enumerate(columns)]
    return np.maximum(means, 2 * _CLOSE)


def _joint(labels: Labels, columns: Probs) -> Array:
    """(K, K) estimated counts of (given grade, true grade), calibrated to the counts of the given grades."""
    k = len(columns)
    guess = _guess(columns, thresholds(labels, columns))
    sure = guess >= 0
    joint = np.bincount(labels[sure] * k + guess[sure], minlength=k * k).reshape(k, k)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    given = np.bincount(labels, minlength=k)
    rows = joint / joint.sum(axis=1, keepdims=True) * given[:, None]
    return _round_rows(rows / rows.sum() * given.sum())


def _guess(columns: Probs, limits: Array) -> Array:
    """(N,) the confident grade of each row: the only one, the likeliest when there are several, -1 for none."""
    guess = np.full(columns.shape[1], -1, dtype=np.int64)
    several = np.zeros(columns.shape[1], dtype=bool)
    for k, column in enumerate(columns):
        confident = column >= limits[k] - _CLOSE
        several |= confident & (guess >= 0)
        guess[confident] = k
    if several.any():
        guess[several] = _argmax(columns[:, several])
    return guess


def _argmax(columns: Probs, favour: Labels | None = None) -> Array:
    """(N,) likeliest grade, the first of equals; the favoured grade of a row gets a hair's advantage."""

    def value(k: int) -> Probs:
        column = columns[k]
        return np.asarray(column if favour is None else column + columns.dtype.type(_CLOSE) * (favour == k))

    best, place = value(0), np.zeros(columns.shape[1], dtype=np.int64)
    for k in range(1, len(columns)):
        new = value(k)
        higher = new > best
        place[higher] = k
        best = np.where(higher, new, best)
    return place


def _prune_counts(labels: Labels, columns: Probs) -> Array:
    """(true, given) counts of rows to prune, at least one row of each grade kept as correct."""
    counts = _joint(labels, columns).T.astype(np.float64)
    kept = np.maximum(counts.diagonal(), 1)
    shared = (kept - counts.diagonal()) / np.maximum(np.count_nonzero(counts, axis=0) - 1.0, 1.0)
    counts = np.maximum(counts - shared, 0)
    np.fill_diagonal(counts, kept)
    return _round_rows(np.trunc(counts))


def _prune_by_noise_rate(labels: Labels, columns: Probs, counts: Array) -> Mask:
    issues = np.zeros(len(labels), dtype=bool)
    for given in range(len(columns)):
        rows = np.flatnonzero(labels == given)
        if len(rows) <= 1:
            continue
        own = columns[given][rows]
        for true in range(len(columns)):
            if true != given and counts[true, given] > 0:
                margin = columns[true][rows] - own
                issues[rows[_smallest(-margin, int(counts[true, given]))]] = True
    return issues


def _smallest(values: Array, n: int) -> Array:
    return np.argpartition(values, n - 1)[:n] if n < len(values) else np.arange(len(values))


def _round_rows(matrix: Array) -> Array:
    """Round to integers, each row keeping its (rounded) sum: the largest remainders give way."""
    whole = np.rint(matrix)
    for row, rounded in zip(matrix, whole, strict=True):
        while gap := int(np.rint(row.sum()) - rounded.sum()):
            step = 1 if gap > 0 else -1
            rounded[np.argsort(row - rounded)[::-step][: abs(gap)]] += step
    return whole.astype(np.int64)


def _check(labels: Labels, probs: Probs) -> None:
    if probs.ndim != 2 or len(labels) != len(probs):
        raise ValueError(f"{len(labels)} labels do not fit probabilities of shape {probs.shape}")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < probs.shape[1]):
        raise ValueError(f"a label lies outside 0 … {probs.shape[1] - 1}")
    if not (np.isfinite(probs).all() and (probs >= 0).all() and (probs <= 1 + _CLOSE).all()):
        raise ValueError("probabilities must be finite and between 0 and 1")
