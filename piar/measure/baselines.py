"""What any judge has to beat: the majority grade, TF-IDF with logistic regression, a frozen encoder, one rater alone.

Every baseline has one interface: `fit(name, frame, task)`, then `predict(frame)` gives
probabilities (N, K) in the task's grade order. Frames hold the task's fields as text and,
for fitting, `gold` as symbols.

    majority       the shares of the grades
    tfidf          words of each field, marked by field, into a logistic regression
    tfidf_overlap  the same, and how the first field's words overlap with the others'
    cosine         cosine of a frozen encoder's vectors of the two texts of `Task.pair`, into a logistic regression
    probe          those vectors u and v, |u − v| and u · v (one field: u alone), into a logistic regression
    rater:COLUMN   what that rater said

A pair of texts is judged by how its parts fit together. Words alone cannot express that, so
plain TF-IDF learns which words are common among relevant rows; `tfidf_overlap` is the fair
linear baseline for search, and is named so because it is more than the standard one. The probe is `trainers.probe`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from piar.measure.embeddings import NO_ENCODER, Embedder
from store.errors import UsageError
from store.task import Task
from trainers.overlap import overlap, parts
from trainers.probe import fit_probe, one_thread, pair_features, unseen_share
from trainers.sentence_folder import roles

Floats = NDArray[np.float64]
Predict = Callable[[pl.DataFrame], Floats]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]  # texts -> (N, D) unit vectors


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline; `predict` maps a frame to (N, K) probabilities, NaN rows where it has no answer."""

    name: str
    predict: Predict


@dataclass(frozen=True, slots=True)
class Fitting:
    """What a baseline learns from: labelled rows of a task, the group of each, and what makes vectors of texts."""

    frame: pl.DataFrame
    task: Task
    groups: NDArray[Any]
    seed: int
    embed: Embed | None

    @property
    def embedded(self) -> Embed:
        """What makes vectors of texts.

        Raises:
            UsageError: no encoder is named.
        """
        if self.embed is None:
            raise UsageError("This baseline needs a frozen text encoder.", NO_ENCODER)
        return self.embed


def names(task: Task, embed: Embed | None = None) -> tuple[str, ...]:
    """The baselines that a task can have, the plainest first; those of an encoder only where there is one."""
    usable = {"cosine": embed is not None and len(task.fields) > 1, "probe": embed is not None}
    return tuple(name for name in _FITTERS if usable.get(name, True))


def fit(
    name: str, frame: pl.DataFrame, task: Task, *, groups: Any = None, seed: int = 0, embed: Embed | None = None
) -> Baseline:
    """Fit a baseline on rows with `gold`.

    Args:
        groups: (N,) group of each row, by which the probe chooses; each row alone when None.
        embed: texts -> vectors, for `cosine` and `probe`.

    Raises:
        UsageError: no baseline of that name or none for this task, no encoder, or nothing to learn from.
    """
    if frame.is_empty() or frame["gold"].null_count() == len(frame):
        raise UsageError("A baseline needs labelled rows.", "Import a file with --gold or --raters first.")
    if name.startswith("rater:"):
        return Baseline(name, _rater(name.removeprefix("rater:"), task))
    if name not in _FITTERS:
        raise UsageError(f"There is no baseline {name!r}.", f"Choose one of {', '.join(NAMES)}, or rater:COLUMN.")
    known = frame["gold"].is_not_null()
    group_of = np.arange(len(frame)) if groups is None else np.asarray(groups)
    return Baseline(name, _FITTERS[name](Fitting(frame.filter(known), task, group_of[known.to_numpy()], seed, embed)))


def cross_validate(
    name: str,
    frame: pl.DataFrame,
    task: Task,
    groups: Any,
    *,
    folds: int = 5,
    seed: int = 0,
    embed: Embed | None = None,
) -> Floats | None:
    """Out-of-fold probabilities (N, K), no group both learnt from and predicted; None for fewer than two groups.

    Rows without `gold` are predicted too. A fold whose other folds hold no `gold` stays NaN.
    """
    from sklearn.model_selection import GroupKFold

    groups = np.asarray(groups)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        return None
    probs = np.full((len(frame), len(task.grades)), np.nan)
    splitter = GroupKFold(min(folds, n_groups), shuffle=True, random_state=seed)
    for learn, held in splitter.split(groups, groups=groups):
        if frame["gold"][learn].null_count() < len(learn):
            fitted = fit(name, frame[learn], task, groups=groups[learn], seed=seed, embed=embed)
            probs[held] = fitted.predict(frame[held])
    return probs


def _majority(given: Fitting) -> Predict:
    task = given.task
    counts = dict(given.frame["gold"].value_counts().iter_rows())
    shares = np.array([counts.get(symbol, 0) for symbol in task.symbols], dtype=np.float64) / len(given.frame)
    told = _never_certain(shares[None], len(given.frame), shares == 0)
    return lambda rows: np.tile(told, (len(rows), 1))


def _never_certain(probs: Floats, rows: int, unseen: NDArray[np.bool_]) -> Floats:
    """Probabilities [N, K] of a judge that learnt from so many rows, with a share for grades that none of them had."""
    share = unseen_share(rows, int(unseen.sum()))
    return np.where(unseen, share, probs * (1 - share * unseen.sum()))


def _tfidf(given: Fitting, *, overlap: bool = False) -> Predict:
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    frame, task, labels = given.frame, given.task, given.frame["gold"].to_numpy()
    if len(set(labels)) < 2:
        return _majority(given)
    vectorizers, words = {}, []
    for field in task.fields:
        vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=50_000, dtype=np.float32)
        try:
            words.append(vectorizer.fit_transform(frame[field].to_list()))
        except ValueError:  # a field without a single word
            continue
        vectorizers[field] = vectorizer
    if not vectorizers:
        return _majority(given)

    def together(words: list[Any], rows: pl.DataFrame) -> Any:
        return hstack([*words, csr_array(overlap_features(rows, task))] if overlap else words).tocsr()

    def features(rows: pl.DataFrame) -> Any:
        return together(
            [vectorizer.transform(rows[field].to_list()) for field, vectorizer in vectorizers.items()], rows
        )

    model = LogisticRegression(max_iter=200, tol=3e-3, random_state=given.seed)
    with one_thread():
        model.fit(together(words, frame), labels)
    return _by_model(model, features, given)


def _tfidf_overlap(given: Fitting) -> Predict:
    return _tfidf(given, overlap=True)


def _cosine(given: Fitting) -> Predict:
    from sklearn.linear_model import LogisticRegression

    task, embed, labels = given.task, given.embedded, given.frame["gold"].to_numpy()
    if len(task.fields) < 2:
        raise UsageError("A cosine needs two texts; this task has one field.", "Use baseline:probe.")
    if len(set(labels)) < 2:
        return _majority(given)

    def features(rows: pl.DataFrame) -> Floats:
        asked, others = _vectors(rows, task, embed)
        return np.asarray(np.sum(asked * others, axis=1, keepdims=True), dtype=np.float64)

    model = LogisticRegression(C=1e3, max_iter=1000, random_state=given.seed)  # two figures a grade need no ridge
    inputs = features(given.frame)
    with one_thread():
        model.fit(inputs, labels)
    return _by_model(model, features, given)


def _probe(given: Fitting) -> Predict:
    task, embed, labels = given.task, given.embedded, given.frame["gold"].to_numpy()
    if len(set(labels)) < 2:
        return _majority(given)

    def raw(rows: pl.DataFrame) -> Any:
        return pair_features(*_vectors(rows, task, embed))

    scaler, model = fit_probe(raw(given.frame), labels, given.groups, given.seed)
    return _by_model(model, lambda rows: scaler.transform(raw(rows)), given)


def _vectors(rows: pl.DataFrame, task: Task, embed: Embed) -> tuple[Any, Any]:
    """(N, D) vectors of the two texts of `Task.pair`; None for the second where there is one field."""
    pairs = [task.pair(texts) for texts in rows.select(task.fields).iter_rows()]
    texts = [first for first, _ in pairs], [second for _, second in pairs]
    told = [[role] if isinstance(embed, Embedder) else [] for role in roles(task)]  # others' encoders take texts alone
    return embed(texts[0], *told[0]), embed(texts[1], *told[1]) if len(task.fields) > 1 else None


def _by_model(model: Any, features: Callable[[pl.DataFrame], Any], given: Fitting) -> Predict:
    """Probabilities in the task's order of grades."""
    task, learnt = given.task, len(given.frame)
    columns = [task.index(symbol) for symbol in model.classes_]
    unseen = ~np.isin(np.arange(len(task.grades)), columns)

    def predict(rows: pl.DataFrame) -> Floats:
        probs = np.zeros((len(rows), len(task.grades)))
        if len(rows):
            inputs = features(rows)
            with one_thread():
                probs[:, columns] = model.predict_proba(inputs)
        return _never_certain(probs, learnt, unseen)

    return predict


def _rater(column: str, task: Task) -> Predict:
    def predict(rows: pl.DataFrame) -> Floats:
        if column not in rows.columns:
            raise UsageError(f"There is no rater {column!r} among the columns.", "Name one of the file's raters.")
        place = {symbol: i for i, symbol in enumerate(task.symbols)}
        probs = np.full((len(rows), len(task.grades)), np.nan)
        for i, vote in enumerate(rows[column].to_list()):
            if vote in place:
                probs[i] = 0.0
                probs[i, place[vote]] = 1.0
        return probs

    return predict


def overlap_features(frame: pl.DataFrame, task: Task) -> Floats:
    """(N, 4·(fields - 1)): `overlap` of the field `Task.asked` with each other one."""
    asked = [parts(text) for text in frame[task.asked].to_list()]
    columns = [
        [overlap(mine, parts(text)) for mine, text in zip(asked, frame[other].to_list(), strict=True)]
        for other in task.fields
        if other != task.asked
    ]
    return np.hstack(
        [np.array(c, dtype=np.float64).reshape(len(frame), 4) for c in columns] or [np.zeros((len(frame), 0))]
    )


_FITTERS: dict[str, Callable[[Fitting], Predict]] = {
    "majority": _majority,
    "tfidf": _tfidf,
    "tfidf_overlap": _tfidf_overlap,
    "cosine": _cosine,
    "probe": _probe,
}
NAMES = tuple(_FITTERS)
