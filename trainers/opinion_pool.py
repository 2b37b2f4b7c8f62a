"""What an encoder student begins with: logistic regressions of vectors and of words, pooled into one linear classifier.

Members: vectors with comparisons under three strengths of a ridge, words with comparisons, and the shares of the
grades. Their log-probabilities are added, a logarithmic opinion pool (Genest & Zidek 1986, Statistical Science 1), with
weights of 0 or more under which groups that the members have not seen are least surprising (stacking: Wolpert 1992;
Breiman 1996). A sum of linear classifiers is linear: asking the pool costs no more than asking one. Which members, and
a little shrinkage of the weights, are our choice (docs/experiments/real.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from trainers.probe import TELLING, logistic, scaled, small_fits, unseen_share
from trainers.words import Words

RIDGES = (1e-4, 1e-3, 1e-2)  # of the members that read vectors, as C of standardised features
COMPARISONS = 1 / 3  # how much one standard deviation of a comparison says beside words of length 1
SHRINK = 1e-2  # of the pool's squared weights, against nats
UNSEEN = -9.0  # logit of a grade that no row had, in a member
FOLDS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Linear:
    """Logits of K grades from scaled features [N, F] and words [N, S]."""

    weight: Floats  # [K, F]
    words: Floats  # [K, S]
    bias: Floats  # [K]

    def logits(self, features: Any, words: Any) -> Floats:
        """[N, K]."""
        return np.asarray(features @ self.weight.T + words @ self.words.T + self.bias)


@dataclass(frozen=True, slots=True)
class Begun:
    """A fitted pool: `weight` and `bias` are of (features − mean) / spread.

    Attributes:
        unseen: nats of a row of groups that the members had not seen, None where there are too few groups to tell.
    """

    weight: Floats
    bias: Floats
    mean: Floats
    spread: Floats
    words: Words
    unseen: float | None


@dataclass(frozen=True, slots=True)
class Rows:
    """What the pool learns from: features [N, F], the last `telling` of which compare texts; words; grades of K."""

    features: Any
    words: Any  # scipy's sparse [N, S]
    labels: NDArray[np.int64]
    grades: int
    telling: int
    seed: int

    def of(self, chosen: NDArray[np.int64]) -> "Rows":
        """Some of them."""
        told = (self.features[chosen], self.words[chosen], self.labels[chosen])
        return Rows(*told, self.grades, self.telling, self.seed)

    @property
    def seen(self) -> NDArray[np.int64]:
        """Grades that they have."""
        return np.unique(self.labels)


def fit_pool(
    features: Any, texts: Sequence[Sequence[str]], labels: Any, groups: Any, *, grades: int, telling: int, seed: int = 0
) -> Begun:
    """Fit the members and their weights.

    Args:
        features: [N, F] of the rows' vectors; telling: how many of the last compare texts, see `scaled`.
        texts: of each row; labels: [N] places of K `grades`, of two kinds or more; groups: [N].
    """
    scaler, inputs = scaled(features, telling)
    words = Words.seen(texts, grades)
    rows = Rows(inputs, words.features(texts), np.asarray(labels), grades, telling, seed)
    with small_fits():
        (weights, unseen), members = _weights(rows, np.asarray(groups)), _members(rows)
    weight, said, bias = (
        sum(w * getattr(one, name) for w, one in zip(weights, members, strict=True))
        for name in ("weight", "words", "bias")
    )
    missing = np.setdiff1d(np.arange(grades), rows.seen)
    if len(missing):
        share = unseen_share(len(rows.labels), len(missing))
        logits = Linear(weight, said, bias).logits(rows.features, rows.words)[:, rows.seen]
        bias[missing] = logsumexp(logits, axis=1).mean() + np.log(share / (1 - share * len(missing)))
    told = Words(words.index, words.rarity, said.astype(np.float32))
    return Begun(weight, bias, scaler.mean_, scaler.scale_, told, unseen)


def _members(rows: Rows) -> list[Linear]:
    features, size = rows.features.shape[1], rows.words.shape[1]
    shares = np.bincount(rows.labels, minlength=rows.grades) + 0.5
    found = [Linear(np.zeros((rows.grades, features)), np.zeros((rows.grades, size)), np.log(shares / shares.sum()))]
    for ridge in RIDGES:
        weight, bias = _fit(rows, rows.features, ridge)
        found.append(Linear(weight, np.zeros((rows.grades, size)), bias))
    if size:
        found.append(_by_words(rows))
    return found


def _by_words(rows: Rows) -> Linear:
    from scipy.sparse import csr_array, hstack

    compared, scale = rows.features[:, rows.features.shape[1] - rows.telling :], COMPARISONS / TELLING
    both, bias = _fit(rows, hstack([rows.words, csr_array(scale * compared)]).tocsr(), 1.0)
    weight = np.zeros((rows.grades, rows.features.shape[1]))
    size = rows.words.shape[1]
    weight[:, weight.shape[1] - rows.telling :] = scale * both[:, size:]
    return Linear(weight, both[:, :size], bias)


def _fit(rows: Rows, inputs: Any, ridge: float) -> tuple[Floats, Floats]:
    """Weights [K, columns] and biases [K] of a logistic regression; `UNSEEN` where a grade has no row."""
    model = logistic(ridge, rows.seed).fit(inputs, rows.labels)
    coef, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one row says the second against the first
        coef, intercept = np.vstack([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
    weight, bias = np.zeros((rows.grades, inputs.shape[1])), np.full(rows.grades, UNSEEN)
    weight[model.classes_], bias[model.classes_] = coef, intercept
    return weight, bias


def _weights(rows: Rows, groups: NDArray[Any]) -> tuple[Floats, float | None]:
    """Of each member, and `Begun.unseen`; alike for fewer than six groups, or where a grade is too rare to be left
    out."""
    from sklearn.model_selection import GroupKFold

    held, said = [], []
    folds = min(FOLDS, len(np.unique(groups)) // 2)
    if folds > 2:
        for learn, asked in GroupKFold(folds, shuffle=True, random_state=rows.seed).split(rows.labels, groups=groups):
            some, others = rows.of(learn), rows.of(asked)
            if len(some.seen) == len(rows.seen):
                logits = [one.logits(others.features, others.words)[:, rows.seen] for one in _members(some)]
                said.append(log_softmax(np.stack(logits), axis=-1))
                held.append(np.searchsorted(rows.seen, others.labels))
    if not held:
        members = 1 + len(RIDGES) + bool(rows.words.shape[1])
        return np.full(members, 1 / members), None
    logs, labels = np.concatenate(said, axis=1), np.concatenate(held)
    weights = pooled(logs, labels)
    joint = log_softmax(np.tensordot(weights, logs, 1), axis=-1)
    return weights, float(-joint[np.arange(len(labels)), labels].mean())


def pooled(said: Floats, labels: NDArray[np.int64]) -> Floats:
    """Weights [M] of members whose log-probabilities are [M, N, K], least surprised by labels [N]."""
    from scipy.optimize import minimize

    place = np.arange(len(labels))

    def loss(weights: Floats) -> tuple[float, Floats]:
        logs = log_softmax(np.tensordot(weights, said, 1), axis=-1)
        expected = np.einsum("nk,mnk->mn", np.exp(logs), said)
        slope = (expected - said[:, place, labels]).mean(1) + 2 * SHRINK * weights
        return float(-logs[place, labels].mean() + SHRINK * weights @ weights), slope

    start = np.full(len(said), 1 / len(said))
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(said)).x)
