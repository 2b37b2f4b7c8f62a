"""What any judge has to beat: the majority grade, TF-IDF with logistic regression, one rater alone.

Every baseline has one interface: `fit(name, frame, task)`, then `predict(frame)` gives
probabilities (N, K) in the task's grade order. Frames hold the task's fields as text and,
for fitting, `gold` as symbols.

    majority       the shares of the grades
    tfidf          words of each field, marked by field, into a logistic regression
    tfidf_overlap  the same, and how the first field's words overlap with the others'
    rater:COLUMN   what that rater said

A pair of texts is judged by how its parts fit together. Words alone cannot express that, so
plain TF-IDF learns which words are common among relevant rows; `tfidf_overlap` is the fair
linear baseline for search, and is named so because it is more than the standard one.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from store.errors import UsageError
from store.task import Task

Floats = NDArray[np.float64]
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline; `predict` maps a frame to (N, K) probabilities, NaN rows where it has no answer."""

    name: str
    predict: Callable[[pl.DataFrame], Floats]


def fit(name: str, frame: pl.DataFrame, task: Task, *, seed: int = 0) -> Baseline:
    """Fit a baseline on rows with `gold`.

    Raises:
        UsageError: no baseline of that name, or nothing to learn from.
    """
    if frame.is_empty() or frame["gold"].null_count() == len(frame):
        raise UsageError("A baseline needs labelled rows.", "Import a file with --gold or --raters first.")
    train = frame.filter(pl.col("gold").is_not_null())
    if name.startswith("rater:"):
        return Baseline(name, _rater(name.removeprefix("rater:"), task))
    if name not in _FITTERS:
        raise UsageError(f"There is no baseline {name!r}.", f"Choose one of {', '.join(NAMES)}, or rater:COLUMN.")
    with _one_thread():
        return Baseline(name, _FITTERS[name](train, task, seed))


def cross_validate(
    name: str, frame: pl.DataFrame, task: Task, groups: Any, *, folds: int = 5, seed: int = 0
) -> Floats | None:
    """Out-of-fold probabilities (N, K), no group both learnt from and predicted; None for fewer than two groups."""
    from sklearn.model_selection import GroupKFold

    groups = np.asarray(groups)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        return None
    probs = np.full((len(frame), len(task.grades)), np.nan)
    splitter = GroupKFold(min(folds, n_groups), shuffle=True, random_state=seed)
    for learn, held in splitter.split(groups, groups=groups):
        probs[held] = fit(name, frame[learn], task, seed=seed).predict(frame[held])
    return probs


def _majority(frame: pl.DataFrame, task: Task, seed: int) -> Callable[[pl.DataFrame], Floats]:
    counts = dict(frame["gold"].value_counts().iter_rows())
    shares = np.array([counts.get(symbol, 0) for symbol in task.symbols], dtype=np.float64) / len(frame)
    return lambda rows: np.tile(shares, (len(rows), 1))


def _tfidf(frame: pl.DataFrame, task: Task, seed: int, *, overlap: bool = False) -> Callable[[pl.DataFrame], Floats]:
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    labels = frame["gold"].to_numpy()
    if len(set(labels)) < 2:
        return _majority(frame, task, seed)
    vectorizers, words = {}, []
    for field in task.fields:
        vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=50_000, dtype=np.float32)
        try:
            words.append(vectorizer.fit_transform(frame[field].to_list()))
        except ValueError:  # a field without a single word
            continue
        vectorizers[field] = vectorizer
    if not vectorizers:
        return _majority(frame, task, seed)

    def together(parts: list[Any], rows: pl.DataFrame) -> Any:
        return hstack([*parts, csr_array(overlap_features(rows, task))] if overlap else parts).tocsr()

    model = LogisticRegression(max_iter=200, tol=3e-3, random_state=seed).fit(together(words, frame), labels)
    columns = [task.index(symbol) for symbol in model.classes_]

    def predict(rows: pl.DataFrame) -> Floats:
        probs = np.zeros((len(rows), len(task.grades)))
        if len(rows):
            with _one_thread():
                parts = [vectorizer.transform(rows[field].to_list()) for field, vectorizer in vectorizers.items()]
                probs[:, columns] = model.predict_proba(together(parts, rows))
        return probs

    return predict


def _tfidf_overlap(frame: pl.DataFrame, task: Task, seed: int) -> Callable[[pl.DataFrame], Floats]:
    return _tfidf(frame, task, seed, overlap=True)


def _rater(column: str, task: Task) -> Callable[[pl.DataFrame], Floats]:
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
    """(N, 4·(fields - 1)): per other field the share of the first field's words and 3-grams in it, Jaccard, length.

    The first field is the one that the task groups by, where that is a field.
    """
    first = task.group_by if task.group_by in task.fields else task.fields[0]
    asked = [_parts(text) for text in frame[first].to_list()]
    columns = [
        [_compare(*mine, *_parts(text)) for mine, text in zip(asked, frame[other].to_list(), strict=True)]
        for other in task.fields
        if other != first
    ]
    return np.hstack(
        [np.array(c, dtype=np.float64).reshape(len(frame), 4) for c in columns] or [np.zeros((len(frame), 0))]
    )


def _parts(text: str) -> tuple[frozenset[str], frozenset[str]]:
    lower = text[:2_000].lower()
    return frozenset(_WORD.findall(lower)), frozenset(lower[i : i + 3] for i in range(len(lower) - 2))


def _compare(
    words: frozenset[str], grams: frozenset[str], other_words: frozenset[str], other_grams: frozenset[str]
) -> tuple[float, float, float, float]:
    shared = len(words & other_words)
    return (
        shared / max(1, len(words)),
        shared / max(1, len(words | other_words)),
        len(grams & other_grams) / max(1, len(grams)),
        min(1.0, len(other_words) / 20),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices here are small: threads only wait for each other (ten times slower on a busy machine)."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


_FITTERS: dict[str, Callable[[pl.DataFrame, Task, int], Callable[[pl.DataFrame], Floats]]] = {
    "majority": _majority,
    "tfidf": _tfidf,
    "tfidf_overlap": _tfidf_overlap,
}
NAMES = tuple(_FITTERS)
