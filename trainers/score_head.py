"""The expected grade as one score from 0 to 1, as layers that serving tools have.

Of K logits the score is Σ p_k (v_k − v_1) / (v_K − v_1), p their calibrated softmax. Two or three plain layers give it
exactly (`layers`). One linear row and a
sigmoid do so for two grades (`exact_label`); for more they are a fit (`fitted_label`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from store.calibration import Calibration
from store.export_loss import levels
from store.stats import Floats, Ints
from store.task import Task

Activation = Literal["Identity", "Tanh", "Softmax"]
_LOOSE = 1e4  # inverse strength of the ridge: enough that separable rows do not run away


@dataclass(frozen=True, slots=True)
class GradeRows:
    """How a student makes logits of what its last layer reads: `cap * tanh((W x + b) / cap)`, uncapped where cap is 0.

    Attributes:
        weight: [K, h]; bias: [K].
    """

    weight: Floats
    bias: Floats
    cap: float = 0.0


@dataclass(frozen=True, slots=True)
class Layer:
    """`activation(W x + b)`."""

    weight: Floats  # [out, in]
    bias: Floats  # [out]
    activation: Activation = "Identity"

    def __call__(self, x: Floats) -> Floats:
        """[n, out] of rows [n, in]."""
        y: Floats = x @ self.weight.T + self.bias
        if self.activation == "Softmax":
            return softmax(y)
        if self.activation == "Tanh":
            y = np.tanh(y)
        return y


def softmax(logits: Floats) -> Floats:
    """[n, K] probabilities."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probs: Floats = shifted / shifted.sum(1, keepdims=True)
    return probs


def layers(rows: GradeRows, task: Task, calibration: Calibration | None) -> list[Layer]:
    """What turns the input of a student's last layer into its score, exactly but for a calibration by curves."""
    k = len(rows.bias)
    temperature, bias = _linear(calibration, k)
    if rows.cap:
        capped = [Layer(rows.weight / rows.cap, rows.bias / rows.cap, "Tanh")]
        probable = Layer(np.eye(k) * rows.cap / temperature, bias, "Softmax")
    else:
        capped, probable = [], Layer(rows.weight / temperature, rows.bias / temperature + bias, "Softmax")
    return [*capped, probable, Layer(levels(task)[None], np.zeros(1))]


def exact_label(rows: GradeRows, calibration: Calibration | None, *, biased: bool) -> tuple[Floats, float] | None:
    """One linear row w [h] and a bias with sigmoid(w x + bias) = score; None where there is no such row.

    There is one for two grades, where a bias can be written or none is needed.

    Args:
        biased: whether the serving architecture's head has a bias.
    """
    if len(rows.bias) != 2 or rows.cap or _curved(calibration):
        return None
    temperature, bias = _linear(calibration, 2)
    constant = float((rows.bias[1] - rows.bias[0]) / temperature + bias[1] - bias[0])
    return ((rows.weight[1] - rows.weight[0]) / temperature, constant) if biased or not constant else None


def fitted_label(rows: GradeRows, read: Floats, scores: Floats, *, biased: bool) -> tuple[Floats, float]:
    """One linear row w [h] and a bias whose sigmoid comes near the score.

    A logistic regression of the scores themselves (fractional logit, Papke and Wooldridge 1996) on the grades' logits:
    our choice. Where no bias can be written, the mean of what the layer reads stands in for one, which hardly varies
    along itself.

    Args:
        read: [n, h] what the last layer reads; scores: [n] from 0 to 1.
    """
    basis = rows.weight - rows.weight.mean(0)  # a softmax does not see what all logits share
    if not biased:
        mean = read.mean(0)
        basis = np.vstack([basis, mean / (mean @ mean)])
    coefficients, constant = _fractional_logit(read @ basis.T, scores, biased=biased)
    row: Floats = coefficients @ basis
    return row, constant


def cut_points(scores: Floats, grades: Ints, k: int) -> Floats:
    """[k - 1] rising scores; those from the i-th on stand for grade i + 1 or a higher one.

    Each is where the fewest rows are on another side than their grade: our choice. 1 where that is above all scores.

    Args:
        scores: [n] from 0 to 1; grades: [n] positions of what they stand for.
    """
    order = np.argsort(scores, kind="stable")
    ends = np.concatenate([[0.0], scores[order], [1.0]])
    middles = (ends[:-1] + ends[1:]) / 2
    middles[0], middles[-1] = 0.0, 1.0
    found = []
    for grade in range(1, k):
        above = grades[order] >= grade
        wrong = np.concatenate([[0], np.cumsum(above)]) + np.concatenate([np.cumsum(~above[::-1])[::-1], [0]])
        found.append(middles[int(wrong.argmin())])
    return np.maximum.accumulate(np.array(found))


def _fractional_logit(columns: Floats, scores: Floats, *, biased: bool) -> tuple[Floats, float]:
    from sklearn.linear_model import LogisticRegression

    scale = np.abs(columns).max(0)
    scale[scale == 0] = 1
    n = len(scores)
    model = LogisticRegression(C=_LOOSE, fit_intercept=biased, solver="newton-cholesky", max_iter=1_000)
    model.fit(
        np.vstack([columns / scale] * 2),
        np.repeat([1, 0], n),
        sample_weight=np.concatenate([scores, 1 - scores]).clip(1e-12),
    )
    return model.coef_[0] / scale, float(model.intercept_[0]) if biased else 0.0


def _curved(calibration: Calibration | None) -> bool:
    return calibration is not None and bool(calibration.curves)


def _linear(calibration: Calibration | None, k: int) -> tuple[float, Floats]:
    """Temperature and bias [K] of a calibration; none for one by curves, which no layer can write."""
    if calibration is None or _curved(calibration):
        return 1.0, np.zeros(k)
    return calibration.temperature, np.array(calibration.bias or np.zeros(k), dtype=np.float64)
