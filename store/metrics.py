"""How good a judge is: every headline with an interval by group.

Works on numpy arrays; `evaluate` also takes a Polars frame. Trainers import this file,
so nothing heavier is loaded. A failed verdict (no grade) is wrong everywhere: it costs
accuracy and recall, loses each of its pairs and is ranked last; it is never dropped. Grades
without an order (`Task.ordered`) leave pair accuracy, kappa and nDCG undefined.

Each metric is written twice over sums: once what a group contributes, once how the figure
follows from summed contributions. That makes a bootstrap of 1,000 replicates one matrix
product, whatever the number of rows.

Definitions of ours: Pair Accuracy (over pairs of one group with different gold: the
higher grade scored higher 1, a tie ½). From the field: macro F1, quadratic kappa (Cohen
1968), nDCG with linear gain and averaged ties, expected calibration error with equal bins.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from store.probability_scores import distributions
from store.stats import REPLICATES, Floats, GroupBootstrap, Interval, Ints, Result, Statistic, group_codes, ratio
from store.task import Task

FAILED = -1
CALIBRATION_BINS = 15
_PAIR_BLOCK = 2_000_000


class GradeScores(Result):
    """One grade: `support` rows have it as gold, `predicted` rows as verdict."""

    precision: Interval
    recall: Interval
    f1: Interval
    support: int
    predicted: int


class PairDetail(Result):
    """Beside the headline (all pairs, by expected grade): the mean over groups, and order by the grade alone."""

    pairs: int
    macro: Interval
    argmax: Interval
    argmax_macro: Interval


class SliceScores(Result):
    """A named part of the rows."""

    n: int
    groups: int
    accuracy: Interval
    macro_f1: Interval


class Scores(Result):
    """What `piar score` prints; `failed` verdicts are among the `n` and count as wrong.

    Grades that are not `ordered` leave the figures of order without a value.
    """

    n: int
    groups: int
    failed: int
    accuracy: Interval
    macro_f1: Interval
    per_grade: dict[str, GradeScores]
    pair_accuracy: Interval
    pair_detail: PairDetail
    quadratic_kappa: Interval
    ece: Interval
    ndcg: Interval
    per_slice: dict[str, SliceScores]
    ordered: bool = True


def evaluate(
    frame: Any, task: Task, *, slices: Sequence[str] = (), replicates: int = REPLICATES, seed: int = 0
) -> Scores:
    """Scores of a judge.

    Args:
        frame: Polars frame with `group`, `gold` (symbol), `predicted` (symbol, null when the
            answer failed) and, optionally, `probs` (list of K in the task's grade order, or null).
        task: gives the grades and their values.
        slices: names of boolean columns to score apart.

    Raises:
        ValueError: a gold symbol that the task does not have.
    """
    position = {symbol: i for i, symbol in enumerate(task.symbols)}
    groups, gold, probs = positions(frame, task)
    return evaluate_arrays(
        groups,
        gold,
        np.array([position.get(s, FAILED) for s in frame["predicted"].to_list()], dtype=np.int64),
        probs,
        task,
        slices={name: frame[name].fill_null(False).to_numpy().astype(bool) for name in slices},
        replicates=replicates,
        seed=seed,
    )


def positions(frame: Any, task: Task) -> tuple[Any, Ints, Floats]:
    """Groups (N,), gold as positions in the task's grade order (N,) and probabilities (N, K) of a frame of `evaluate`.

    Raises:
        ValueError: a gold symbol that the task does not have.
    """
    position = {symbol: i for i, symbol in enumerate(task.symbols)}
    symbols = frame["gold"].to_list()
    unknown = {str(s) for s in symbols if s not in position}
    if unknown:
        raise ValueError(f"gold holds {', '.join(sorted(unknown)[:5])}, which is no grade of the task")
    gold = np.array([position[s] for s in symbols], dtype=np.int64)
    probs = frame["probs"].to_list() if "probs" in frame.columns else [None] * len(symbols)
    return frame["group"].to_numpy(), gold, _probabilities(probs, len(position))


def evaluate_arrays(
    groups: Any,
    gold: ArrayLike,
    predicted: ArrayLike,
    probs: ArrayLike | None,
    task: Task,
    *,
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Scores:
    """`evaluate` on arrays.

    Args:
        groups: (N,) group of each row.
        gold: (N,) positions in the task's grade order.
        predicted: (N,) positions, -1 where the answer failed.
        probs: (N, K) probabilities, or None; a row that is no distribution counts as unknown.
        slices: name -> (N,) mask.
    """
    y, z = np.asarray(gold, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    unknown = np.full((len(y), len(task.grades)), np.nan)
    p = unknown if probs is None else distributions(np.asarray(probs, dtype=np.float64))
    values = np.array([g.value for g in task.grades], dtype=np.float64)
    codes, n_groups = group_codes(groups)
    bootstrap = GroupBootstrap(n_groups, replicates=replicates, seed=seed)
    table = confusion_by_group(codes, n_groups, y, z, len(values))
    chosen = np.where(z == FAILED, np.nan, values[z])
    expected = np.where(z == FAILED, np.nan, expected_grade(p, values, chosen))
    soft, hard = pair_counts(codes, y, expected), pair_counts(codes, y, chosen)

    def by_order(sums: Floats, statistic: Statistic) -> Interval:
        return bootstrap.interval(sums, statistic) if task.ordered else Interval(value=None)

    return Scores(
        n=len(y),
        groups=n_groups,
        failed=int(np.sum(z == FAILED)),
        accuracy=bootstrap.interval(table, lambda s: accuracy(_square(s, len(values)))),
        macro_f1=bootstrap.interval(table, lambda s: macro_f1(_square(s, len(values)))),
        per_grade={symbol: _grade(bootstrap, table, k, len(values)) for k, symbol in enumerate(task.symbols)},
        pair_accuracy=by_order(soft, ratio),
        pair_detail=PairDetail(
            pairs=int(soft[:, 1].sum()) if task.ordered else 0,
            macro=by_order(_group_means(soft), ratio),
            argmax=by_order(hard, ratio),
            argmax_macro=by_order(_group_means(hard), ratio),
        ),
        quadratic_kappa=by_order(table, lambda s: quadratic_kappa(_square(s, len(values)))),
        ece=bootstrap.interval(calibration_counts(codes, n_groups, y, p), calibration_error),
        ndcg=by_order(_group_means(ndcg_by_group(codes, n_groups, values[y] - values[0], expected)), ratio),
        per_slice={
            name: _slice(codes[mask], y[mask], z[mask], len(values), replicates, seed)
            for name, mask in (slices or {}).items()
        },
        ordered=task.ordered,
    )


def expected_grade(probs: Floats, values: Floats, otherwise: Floats) -> Floats:
    """Σ value·p per row (N,); `otherwise` where the probabilities are unknown."""
    score = probs @ values
    out: Floats = np.where(np.isnan(score), otherwise, score)
    return out


# -- from a confusion table --------------------------------------------------------------------


def confusion_by_group(codes: Ints, n_groups: int, gold: Ints, predicted: Ints, k: int) -> Floats:
    """(G, K·(K+1)) counts of gold × predicted within each group; the last column is failed."""
    cell = gold * (k + 1) + np.where(predicted == FAILED, k, predicted)
    width = k * (k + 1)
    counts = np.bincount(codes * width + cell, minlength=n_groups * width)
    return counts.reshape(n_groups, width).astype(np.float64)


def _square(sums: Floats, k: int) -> Floats:
    return sums.reshape(*sums.shape[:-1], k, k + 1)


def accuracy(table: Floats) -> Floats:
    """Share of rows on the diagonal of (…, K, K+1)."""
    return _share(np.trace(table[..., :-1], axis1=-2, axis2=-1), table.sum(axis=(-2, -1)))


def macro_f1(table: Floats) -> Floats:
    """Mean F1 over the grades that occur in gold or among the verdicts."""
    right = np.diagonal(table[..., :-1], axis1=-2, axis2=-1)
    seen = table.sum(axis=-1) + table[..., :-1].sum(axis=-2)
    scores = _share(2 * right, seen)
    occurs = seen > 0
    return _share(np.where(occurs, scores, 0.0).sum(axis=-1), occurs.sum(axis=-1))


def quadratic_kappa(table: Floats) -> Floats:
    """Cohen's kappa with squared distance between positions; failed rows count at the farthest grade."""
    k = table.shape[-2]
    place = np.arange(k)
    farthest = np.where(place * 2 >= k - 1, 0, k - 1)
    square = table[..., :-1].copy()
    square[..., place, farthest] += table[..., -1]
    weight = (place[:, None] - place[None, :]) ** 2.0
    total = square.sum(axis=(-2, -1))
    by_chance = square.sum(axis=-1)[..., :, None] * square.sum(axis=-2)[..., None, :]
    chance = _share((weight * by_chance).sum(axis=(-2, -1)), total)
    return 1 - _share((weight * square).sum(axis=(-2, -1)), chance)


def _grade(bootstrap: GroupBootstrap, table: Floats, k: int, size: int) -> GradeScores:
    counts = _square(table, size)
    right, support, predicted = counts[:, k, k], counts[:, k, :].sum(axis=1), counts[:, :, k].sum(axis=1)
    return GradeScores(
        precision=bootstrap.interval(np.stack([right, predicted], axis=1), ratio),
        recall=bootstrap.interval(np.stack([right, support], axis=1), ratio),
        f1=bootstrap.interval(np.stack([2 * right, support + predicted], axis=1), ratio),
        support=int(support.sum()),
        predicted=int(predicted.sum()),
    )


def _slice(codes: Ints, gold: Ints, predicted: Ints, k: int, replicates: int, seed: int) -> SliceScores:
    within, n_groups = group_codes(codes)
    table = confusion_by_group(within, n_groups, gold, predicted, k)
    bootstrap = GroupBootstrap(n_groups, replicates=replicates, seed=seed)
    return SliceScores(
        n=len(gold),
        groups=n_groups,
        accuracy=bootstrap.interval(table, lambda s: accuracy(_square(s, k))),
        macro_f1=bootstrap.interval(table, lambda s: macro_f1(_square(s, k))),
    )


# -- order within groups -------------------------------------------------------------------------


def pair_counts(codes: Ints, gold: Ints, score: Floats) -> Floats:
    """(G, 2): points won and pairs compared, over pairs of a group with different gold.

    Args:
        score: (N,) higher means a higher grade; NaN (failed) loses every pair.
    """
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    out = np.zeros((len(sizes), 2))
    for group, rows in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        out[group] = _pairs_of(gold[rows], score[rows])
    return out


def _pairs_of(gold: Ints, score: Floats) -> tuple[float, float]:
    """Points and pairs of one group, in blocks so that a group of any size fits in memory."""
    points = pairs = 0.0
    step = max(1, _PAIR_BLOCK // max(len(gold), 1))
    for start in range(0, len(gold), step):
        higher = gold[start : start + step, None] > gold[None, :]
        mine, other = score[start : start + step, None], score[None, :]
        points += float(np.sum(higher & (mine > other)) + 0.5 * np.sum(higher & (mine == other)))
        pairs += float(higher.sum())
    return points, pairs


def ndcg_by_group(codes: Ints, n_groups: int, gain: Floats, score: Floats) -> Floats:
    """(G, 2): nDCG of each group and 1; zeros where every order is as good (one row, or one grade throughout).

    Linear gain, discount 1/log2(rank + 1), ties share the mean discount of their ranks (as scikit-learn does).
    """
    ranked = np.where(np.isnan(score), -np.inf, score)
    out = np.zeros((n_groups, 2))
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=n_groups)
    for group, rows in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        discount = 1 / np.log2(np.arange(len(rows)) + 2)
        ideal = float(np.sort(gain[rows])[::-1] @ discount)
        if len(rows) and np.ptp(gain[rows]) > 0:
            _, tie = np.unique(-ranked[rows], return_inverse=True)
            shared = np.bincount(tie, weights=gain[rows]) / np.bincount(tie)
            out[group] = float(shared[np.sort(tie)] @ discount) / ideal, 1.0
    return out


def _group_means(counts: Floats) -> Floats:
    """From (points, of) of each group to (share, 1): a macro average as a ratio of sums."""
    has = counts[:, 1] > 0
    return np.stack([np.where(has, counts[:, 0] / np.where(has, counts[:, 1], 1), 0.0), has.astype(float)], axis=1)


# -- calibration -----------------------------------------------------------------------------------


def calibration_counts(codes: Ints, n_groups: int, gold: Ints, probs: Floats) -> Floats:
    """(G, 3·bins): rows, hits and summed confidence of the likeliest grade, per confidence bin.

    Rows without probabilities (failed answers) claim no confidence and are left out here only.
    """
    known = ~np.isnan(probs.sum(axis=1))
    top = np.where(known[:, None], probs, 0.0)
    confidence = top.max(axis=1)
    hit = (top.argmax(axis=1) == gold).astype(np.float64)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    cell = codes[known] * CALIBRATION_BINS + bins[known]
    size = n_groups * CALIBRATION_BINS
    columns: list[Floats] = [np.ones(len(gold)), hit, confidence]
    parts = [np.bincount(cell, weights=column[known], minlength=size) for column in columns]
    return np.concatenate([part.reshape(n_groups, CALIBRATION_BINS) for part in parts], axis=1)


def calibration_error(sums: Floats) -> Floats:
    """Expected calibration error from (…, 3·bins)."""
    rows, hits, confidence = np.split(sums, 3, axis=-1)
    gaps: Floats = np.abs(hits - confidence)
    return _share(gaps.sum(axis=-1), rows.sum(axis=-1))


def _probabilities(rows: list[Sequence[float] | None], k: int) -> Floats:
    unknown = [np.nan] * k
    return np.array([unknown if row is None else row for row in rows], dtype=np.float64).reshape(len(rows), k)


def _share(part: Floats, whole: Floats) -> Floats:
    out: Floats = np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
    return out
