"""Probabilities that mean what they say: strategies that correct a judge's distribution, and whether one helps.

A calibration is a pure function of raw probabilities and kept parameters; raw ones stay where they are. Fitted ones are
judged out of fold by group, on rows that no training saw, and kept only where the likelihood gains by group. numpy;
scipy and scikit-learn inside the functions that fit.

From the field: temperature (Guo et al. 2017), with a bias for each grade (vector scaling's, Alexandari et al. 2020);
isotonic regression, one grade against the rest (Zadrozny and Elkan 2002); batch calibration (Zhou et al. 2024), which
divides by the mean over a batch. Contextual calibration (Zhao et al. 2021) divides by what the judge says of an empty
sample instead: we leave it out, since that asks more of the judge and an empty pair of texts is a sample of one grade,
not of none. Chosen by us: the ridge, the floors, and the rule of what is kept.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from store.errors import PiarError
from store.ids import seed_of
from store.probability_scores import FLOOR, nll_of, normalised, usable
from store.stats import Floats, Gain, Interval, Ints, Result, bootstrap_by_group, paired_gain

Strategy = Literal["prior", "temperature", "bias", "isotonic"]
CARD = "student.json"  # in a student's folder: what it was taught to judge, and its calibration
FOLDS = 5
LEVEL = 0.025  # one-sided, as of an interval; shared by the strategies that are tried
MARGIN = 0.01  # of accuracy, that a likelier distribution may cost
SPREAD = 3.0  # standard deviation, in nats, of a grade's bias before anything is seen; of log temperature it is 1
TIE = 1e-9  # of the raw probability: equal heights of a step curve keep the judge's order


SILENT = "Use an endpoint that sends log-probabilities, or a model in this process (`hf:PATH`)."


class Calibration(Result):
    """A fitted strategy.

    Attributes:
        temperature, bias: log-probabilities are divided by the one, and one bias for each grade is added.
        curves: for each grade the steps (from, to) that its probability goes through, `isotonic` only.
        rows, groups: what it was fitted on; of `prior`, which knows no truth, the batch.
    """

    strategy: Strategy
    temperature: float = Field(default=1.0, gt=0)
    bias: tuple[float, ...] = ()
    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    rows: int = 0
    groups: int = 0

    def apply(self, probs: ArrayLike) -> Floats:
        """Calibrated probabilities (N, K) of raw ones; rows that have none are NaN and stay so.

        Raises:
            PiarError: it was fitted for another number of grades.
        """
        raw = np.asarray(probs, dtype=np.float64)
        self.require(raw.shape[1])
        out, known = np.full(raw.shape, np.nan), usable(raw)
        out[known] = self._apply(normalised(raw[known]))
        return out

    def require(self, grades: int) -> None:
        """Make sure that it is for so many grades.

        Raises:
            PiarError: it is for another number.
        """
        own = len(self.curves) or len(self.bias)
        if own != grades:
            raise PiarError(f"The calibration is for {own} grades, not {grades}.", "Fit it again: `piar calibrate`.")

    def _apply(self, p: Floats) -> Floats:
        if self.curves:
            columns = [np.interp(p[:, k], x, y) for k, (x, y) in enumerate(self.curves)]
            return normalised(np.stack(columns, axis=1) + TIE * p)
        return _softmax(_logs(p) / self.temperature + np.array(self.bias))


class Tried(Result):
    """A strategy on rows that it was not fitted on (`prior`: that it was, without their truth).

    Attributes:
        gain: nats that a row's truth gains over the raw probabilities.
        accuracy_gain: what the likeliest grade gains.
    """

    strategy: Strategy
    nll: Interval
    accuracy: Interval
    gain: Gain
    accuracy_gain: Gain


class Fit(Result):
    """Which strategies were tried on a judge's rows with truth, and which one helps.

    Attributes:
        nll, accuracy: of the raw probabilities.
        kept: fitted on all rows; None where none is shown to help.
    """

    rows: int
    groups: int
    nll: Interval
    accuracy: Interval
    tried: tuple[Tried, ...]
    kept: Calibration | None


def fit(groups: list[str], gold: ArrayLike, probs: ArrayLike, *, seed: int = 0) -> Fit:
    """Try every strategy out of fold by group; the best by likelihood is kept where it gains.

    It gains when the interval by group of the likelihood it adds lies above zero, its sign-flip p-value holds beside
    all that were tried (Bonferroni), and the likeliest grade is right about as often or more: of a judge that knows
    nothing a bias learns how common each grade is, which is likelier and may be wrong more often.

    Args:
        groups: (N,) group of each row.
        gold: (N,) positions in the task's grade order.
        probs: (N, K) raw; rows that have none are passed over.

    Raises:
        PiarError: no row has probabilities, or all are of one group.
    """
    raw, truth = np.asarray(probs, dtype=np.float64), np.asarray(gold, dtype=np.int64)
    known = usable(raw)
    if not known.any():
        raise PiarError("The judge gave no probabilities, so there is nothing to calibrate.", SILENT)
    p, y, names = normalised(raw[known]), truth[known], [g for g, k in zip(groups, known, strict=True) if k]
    tried = {strategy: cross_fitted(strategy, names, y, p, seed=seed) for strategy in STRATEGIES}
    assessed = tuple(_assessed(strategy, p, after, y, names, seed) for strategy, after in tried.items())
    helps = [
        a
        for a in assessed
        if a.gain.above and len(assessed) * a.gain.p_value <= 2 * LEVEL and a.accuracy_gain.mean >= -MARGIN
    ]
    best = min(helps, key=lambda a: a.nll.value or 0.0, default=None)
    return Fit(
        rows=len(p),
        groups=len(set(names)),
        nll=bootstrap_by_group(nll_of(p, y), names, seed=seed),
        accuracy=bootstrap_by_group(p.argmax(axis=1) == y, names, seed=seed),
        tried=assessed,
        kept=None if best is None else fitted(best.strategy, names, y, p),
    )


def fitted(strategy: Strategy, groups: list[str], gold: ArrayLike, probs: ArrayLike) -> Calibration:
    """A strategy fitted on all rows that have probabilities."""
    raw = np.asarray(probs, dtype=np.float64)
    known = usable(raw)
    found = STRATEGIES[strategy](normalised(raw[known]), np.asarray(gold, dtype=np.int64)[known])
    return found.model_copy(update={"rows": int(known.sum()), "groups": len(set(np.asarray(groups)[known]))})


def cross_fitted(strategy: Strategy, groups: list[str], gold: ArrayLike, probs: ArrayLike, *, seed: int = 0) -> Floats:
    """Calibrated probabilities (N, K), each row's from other groups alone; rows that have none are NaN.

    `prior` knows no truth and is fitted on all rows at once.

    Raises:
        PiarError: fewer than two groups.
    """
    raw, truth = np.asarray(probs, dtype=np.float64), np.asarray(gold, dtype=np.int64)
    known, folds = usable(raw), fold_of(groups, seed)
    if strategy == "prior":
        return prior(raw).apply(raw)
    out = np.full(raw.shape, np.nan)
    for fold in range(int(folds.max()) + 1):
        inside, outside = known & (folds == fold), known & (folds != fold)
        if inside.any() and outside.any():
            out[inside] = STRATEGIES[strategy](normalised(raw[outside]), truth[outside]).apply(raw[inside])
    return out


def fold_of(groups: list[str], seed: int = 0) -> NDArray[np.int64]:
    """[n] fold of each answer; a group is never divided, and folds hold about equally many groups.

    Raises:
        PiarError: fewer than two groups.
    """
    names = sorted(set(groups), key=lambda name: seed_of(seed, "fold", name))
    if len(names) < 2:
        raise PiarError("Calibration needs gold in two groups at least.", "Label rows of more groups, then try again.")
    fold = {name: place % min(FOLDS, len(names)) for place, name in enumerate(names)}
    return np.array([fold[name] for name in groups])


# -- strategies ----------------------------------------------------------------------------------


def prior(probs: ArrayLike) -> Calibration:
    """Batch calibration: each grade relative to its mean over the batch, so that none is favoured over all rows.

    Right where all grades are about equally common; where one dominates in truth, it takes away what is right.
    """
    p = np.asarray(probs, dtype=np.float64)
    p = normalised(p[usable(p)])
    bias = -np.log(np.maximum(p.mean(axis=0), FLOOR))
    return Calibration(strategy="prior", bias=tuple(bias - bias.mean()), rows=len(p))


def _prior(probs: Floats, gold: Ints) -> Calibration:
    return prior(probs)


def _temperature(probs: Floats, gold: Ints) -> Calibration:
    return _scaled(probs, gold, biased=False)


def _bias(probs: Floats, gold: Ints) -> Calibration:
    return _scaled(probs, gold, biased=True)


def _scaled(probs: Floats, gold: Ints, *, biased: bool) -> Calibration:
    """Maximum likelihood with a ridge towards no change: log temperature by 1 nat, each bias by `SPREAD` nats."""
    from scipy.optimize import minimize

    logs, k = _logs(probs), probs.shape[1]
    truth = np.eye(k)[gold]

    def loss(theta: Floats) -> tuple[float, Floats]:
        slope, bias = np.exp(-theta[0]), theta[1:] if biased else np.zeros(k)
        q = _softmax(slope * logs + bias)
        gap = q - truth
        value = _exact(q, gold).sum() + theta[0] ** 2 / 2 + (bias**2).sum() / (2 * SPREAD**2)
        steps = [-(gap * logs).sum() * slope + theta[0]]
        return float(value), np.concatenate([steps, gap.sum(axis=0) + bias / SPREAD**2]) if biased else np.array(steps)

    theta = minimize(loss, np.zeros(1 + k * biased), jac=True, method="L-BFGS-B").x
    return Calibration(
        strategy="bias" if biased else "temperature",
        temperature=float(np.exp(theta[0])),
        bias=tuple(float(b) for b in theta[1:]) if biased else (0.0,) * k,
    )


def _isotonic(probs: Floats, gold: Ints) -> Calibration:
    """A rising step curve for each grade, away from 0 and 1 by one row in all that were seen."""
    from sklearn.isotonic import IsotonicRegression

    least, curves = 1 / (len(gold) + 2), []
    for k in range(probs.shape[1]):
        curve = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(probs[:, k], gold == k)
        curves.append((tuple(curve.X_thresholds_.tolist()), tuple(curve.y_thresholds_.tolist())))
    return Calibration(strategy="isotonic", curves=tuple(curves))


STRATEGIES: dict[Strategy, Callable[[Floats, Ints], Calibration]] = {
    "prior": _prior,
    "temperature": _temperature,
    "bias": _bias,
    "isotonic": _isotonic,
}


def _assessed(strategy: Strategy, before: Floats, after: Floats, gold: Ints, groups: list[str], seed: int) -> Tried:
    old, new = nll_of(before, gold), nll_of(after, gold)
    was, is_now = before.argmax(axis=1) == gold, after.argmax(axis=1) == gold
    return Tried(
        strategy=strategy,
        nll=bootstrap_by_group(new, groups, seed=seed),
        accuracy=bootstrap_by_group(is_now, groups, seed=seed),
        gain=paired_gain(-old, -new, groups, seed=seed),
        accuracy_gain=paired_gain(was, is_now, groups, seed=seed),
    )


def _exact(probs: Floats, gold: Ints) -> Floats:
    """(N,) -log of the truth's probability without the floor of `nll_of`, where the gradient would end."""
    out: Floats = -np.log(np.maximum(probs[np.arange(len(gold)), gold], np.finfo(np.float64).tiny))
    return out


def _logs(probs: Floats) -> Floats:
    out: Floats = np.log(np.maximum(probs, FLOOR))
    return out


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: Floats = powers / powers.sum(axis=1, keepdims=True)
    return out
