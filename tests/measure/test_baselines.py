"""Baselines learn what they can, nothing of what they must not see, and answer for every row."""

import numpy as np
import polars as pl
import pytest

from piar.measure import baselines
from store.errors import UsageError
from store.task import Grade, Task

TASK = Task(
    name="t",
    group_by="query",
    fields=("query", "title"),
    grades=tuple(Grade(symbol=s, value=i) for i, s in enumerate("012")),
)


def rows(n=300, seed=0):
    """Titles hold both words of the query (grade 2), one (1) or none (0); no word tells the grade by itself."""
    rng = np.random.default_rng(seed)
    words = np.array([f"{a}{b}" for a in "bcdfgklmnprst" for b in ("ako", "eli", "ora", "uti")])
    out = []
    for _ in range(n):
        query = rng.choice(words, 2, replace=False)
        rest = rng.choice([w for w in words if w not in query], 3, replace=False)
        grade = int(rng.integers(0, 3))
        out.append((" ".join(query), " ".join([*query[:grade], *rest]), str(grade)))
    return pl.DataFrame(out, schema=["query", "title", "gold"], orient="row")


def accuracy(probs, frame):
    return np.mean(probs.argmax(axis=1) == np.array([TASK.index(s) for s in frame["gold"]]))


@pytest.mark.parametrize("name", baselines.names(TASK))
def test_probabilities_for_every_row_in_grade_order(name):
    frame = rows()
    probs = baselines.fit(name, frame, TASK).predict(frame[:50])
    assert probs.shape == (50, 3)
    assert probs.sum(axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    assert baselines.fit(name, frame, TASK).predict(frame[:0]).shape == (0, 3)


def test_majority_gives_the_shares():
    frame = rows().with_columns(gold=pl.Series(["2"] * 200 + ["0"] * 100))
    assert baselines.fit("majority", frame, TASK).predict(frame[:1])[0] == pytest.approx([1 / 3, 0, 2 / 3], abs=2e-3)


@pytest.mark.parametrize("name", baselines.names(TASK))
def test_a_grade_that_no_row_had_is_rare_and_not_impossible(name):
    frame = rows().filter(pl.col("gold") != "1")
    probs = baselines.fit(name, frame, TASK).predict(rows(seed=1)[:40])
    assert probs[:, 1] == pytest.approx(np.full(40, 0.5 / (len(frame) + 0.5)))
    assert probs.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-5)


def test_overlap_sees_how_texts_fit_together_where_words_alone_cannot():
    frame = rows(600)
    groups = frame["query"].to_numpy()
    plain = baselines.cross_validate("tfidf", frame, TASK, groups)
    overlap = baselines.cross_validate("tfidf_overlap", frame, TASK, groups)
    assert accuracy(overlap, frame) > 0.85
    assert accuracy(plain, frame) < 0.5


def test_cross_validation_by_group_never_sees_the_group():
    """A grade that only the query's name tells is learnt from rows of that query, or not at all."""
    rng = np.random.default_rng(1)
    names = [f"query{i:02d}" for i in range(40)]
    grade = dict(zip(names, rng.integers(0, 3, 40).astype(str), strict=True))
    queries = rng.choice(names, 800)
    frame = pl.DataFrame({"query": queries, "title": "a thing", "gold": [grade[q] for q in queries]})
    by_row = baselines.cross_validate("tfidf", frame, TASK, np.arange(800))
    by_group = baselines.cross_validate("tfidf", frame, TASK, queries)
    assert accuracy(by_row, frame) > 0.95
    assert accuracy(by_group, frame) < 0.6


def test_one_rater_says_what_the_column_says():
    frame = rows(4).with_columns(anna=pl.Series(["0", "2", None, "9"]))
    probs = baselines.fit("rater:anna", frame, TASK).predict(frame)
    assert probs[:2].argmax(axis=1).tolist() == [0, 2]
    assert np.isnan(probs[2:]).all()


def test_texts_without_words_and_a_single_grade_fall_back_to_the_shares():
    blank = rows(30).with_columns(query=pl.lit("?"), title=pl.lit(""))
    single = rows(30).with_columns(gold=pl.lit("1"))
    assert baselines.fit("tfidf", blank, TASK).predict(blank).std(axis=0) == pytest.approx(np.zeros(3))
    assert baselines.fit("tfidf_overlap", single, TASK).predict(single)[:, 1] == pytest.approx(np.full(30, 30 / 31))


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(UsageError, match="no baseline 'bert'"):
        baselines.fit("bert", rows(), TASK)
    with pytest.raises(UsageError, match="labelled rows"):
        baselines.fit("majority", rows().with_columns(gold=pl.lit(None, pl.String)), TASK)
    assert baselines.cross_validate("tfidf", rows(5), TASK, ["one"] * 5) is None
