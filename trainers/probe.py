"""A logistic regression on frozen vectors of one text or two: the baseline `probe`, part of `trainers.opinion_pool`.

The features are those of InferSent (Conneau et al. 2017, arXiv 1705.02364); that the strength of the ridge is chosen by
group is our choice.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

RIDGES = (1e-3, 1e-2, 1e-1)  # strengths to choose from, as C of standardised features
STEPS = 500  # of a fit at most
TELLING = 10.0  # our choice: 3, 10 and 30 did alike on two sets (docs/experiments/real.md), 1 less well


def pair_features(first: Any, second: Any | None) -> Any:
    """[N, 4 D] of vectors u and v [N, D]: u, v, |u − v| and u · v; u alone where there is one text."""
    return first if second is None else np.hstack([first, second, np.abs(first - second), first * second])


def fit_probe(features: Any, labels: Any, groups: Any, seed: int = 0) -> tuple[Any, Any]:
    """scikit-learn's scaler and logistic regression, fitted on rows [N, F] with labels [N] of two kinds or more."""
    scaler, inputs = scaled(features)
    with small_fits():
        return scaler, logistic(_strength(inputs, labels, groups, seed), seed).fit(inputs, labels)


def scaled(features: Any, telling: int = 0) -> tuple[Any, Any]:
    """scikit-learn's fitted scaler, and rows [N, F] by it.

    Args:
        telling: so many of the last features say much each, and are held `TELLING` times less by a ridge than one
            coordinate of a vector among a thousand.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    scaler.scale_[len(scaler.scale_) - telling :] /= TELLING
    return scaler, scaler.transform(features)


def unseen_share(rows: int, unseen: int) -> float:
    """Probability of each of so many grades that none of so many rows had: as if half a row had it (Krichevsky &
    Trofimov 1981). A rare grade is not impossible: certainty would cost each row that has it without bound."""
    return 0.5 / (rows + 0.5 * unseen)


def _strength(inputs: Any, labels: Any, groups: Any, seed: int) -> float:
    """The ridge under which unseen groups are least surprising; the middle one for fewer than six groups."""
    from sklearn.metrics import log_loss
    from sklearn.model_selection import GroupKFold

    if len(np.unique(groups)) < 6:
        return RIDGES[1]
    losses = np.zeros(len(RIDGES))
    classes = np.unique(labels)
    for learn, held in GroupKFold(3, shuffle=True, random_state=seed).split(inputs, groups=groups):
        if len(set(labels[learn])) < len(classes):  # a rare grade that these folds lack
            continue
        for i, strength in enumerate(RIDGES):
            probs = logistic(strength, seed).fit(inputs[learn], labels[learn]).predict_proba(inputs[held])
            losses[i] += log_loss(labels[held], probs, labels=classes, normalize=False)
    return RIDGES[int(losses.argmin())]


def logistic(strength: float, seed: int) -> Any:
    """scikit-learn's logistic regression under a ridge, not yet fitted."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=STEPS, tol=1e-3, random_state=seed)


@contextmanager
def small_fits() -> Iterator[None]:
    """Fits on one thread; one that is still moving after its steps is judged like any other: nobody needs to read of
    it."""
    from sklearn.exceptions import ConvergenceWarning

    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices here are small: threads only wait for each other (ten times slower on a busy machine)."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
