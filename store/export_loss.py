"""What a judge's opinions lose when another tool tells them: accuracy and nDCG on the same rows, by group."""

import numpy as np
from numpy.typing import ArrayLike

from store.metrics import ndcg_by_group
from store.stats import Floats, Gain, Ints, Result, group_codes, paired_gain
from store.task import Task

DECIMALS = 6  # of a score: what only rounding tells apart is a tie


class ExportLoss(Result):
    """Figures against gold, the judge's first, then the export's.

    Attributes:
        accuracy: shares of rows whose grade is right.
        ndcg: means over the groups in which grades differ, ranked by expected grade or score; None for grades without
            an order, and where no group has two grades.
    """

    split: str
    rows: int
    groups: int
    accuracy: tuple[float, float]
    accuracy_gain: Gain
    ndcg: tuple[float, float] | None = None
    ndcg_gain: Gain | None = None


def levels(task: Task) -> Floats:
    """[K] the grades' values, scaled to run from 0 to 1."""
    values = np.array([grade.value for grade in task.grades], dtype=np.float64)
    scaled: Floats = (values - values[0]) / (values[-1] - values[0])
    return scaled


def export_loss(
    split: str,
    groups: list[str],
    gold: ArrayLike,
    task: Task,
    grades: Ints,
    before: Floats,
    after: Floats,
    cuts: Floats,
) -> ExportLoss:
    """What an export changes.

    Args:
        gold: [n] positions in the task's order.
        grades: [n] positions of the grades that the judge gives; before: [n, K] its probabilities.
        after: [n, K] the export's probabilities, or [n] its scores; cuts: [K - 1] where those turn to the next grade.
    """
    codes, n_groups = group_codes(groups)
    truth, scored = np.asarray(gold, dtype=np.int64), after.ndim == 1
    chosen = np.searchsorted(cuts, after, side="right") if scored else after.argmax(1)
    right = [(one == truth).astype(np.float64) for one in (grades, chosen)]
    found = ExportLoss(
        split=split,
        rows=len(truth),
        groups=n_groups,
        accuracy=(float(right[0].mean()), float(right[1].mean())),
        accuracy_gain=paired_gain(right[0], right[1], groups),
    )
    if not task.ordered:
        return found
    marks = levels(task)
    ranked = [np.round(one, DECIMALS) for one in (before @ marks, after if scored else after @ marks)]
    by_group = [ndcg_by_group(codes, n_groups, marks[truth], score) for score in ranked]
    told = by_group[0][:, 1] > 0
    if not told.any():
        return found
    first, second = (means[told, 0] for means in by_group)
    gain = paired_gain(first, second, np.arange(len(first)))
    return found.model_copy(update={"ndcg": (float(first.mean()), float(second.mean())), "ndcg_gain": gain})
