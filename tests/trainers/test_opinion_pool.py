"""What an encoder student begins with: words against scikit-learn's own, and a pool that is one linear classifier."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from sklearn.feature_extraction.text import TfidfVectorizer

from trainers import opinion_pool, probe
from trainers.opinion_pool import fit_pool, pooled
from trainers.words import BUCKETS, Words

TEXTS = [
    ["red running shoe", "Adidas running shoe, red"],
    ["red lamp", "a lamp that is red"],
    ["blue chair", "chair"],
    ["chair chair chair", ""],
    ["größe 42", "Schuh Größe 42"],
]


def test_words_are_weighed_as_scikit_learn_weighs_them():
    """Hashed columns stand elsewhere: rows are compared by their products, old and new ones."""
    words, new = Words.seen(TEXTS, 3), [["red red chair", "an unseen lamp, red"], ["", "nothing of it"]]
    ours = words.features([*TEXTS, *new]).toarray()
    theirs = np.zeros((len(TEXTS) + len(new),) * 2)
    for old, asked in zip(zip(*TEXTS, strict=True), zip(*new, strict=True), strict=True):
        vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit(old)
        part = vectorizer.transform([*old, *asked]).toarray()
        theirs += part @ part.T
    assert np.allclose(ours @ ours.T, theirs, atol=1e-6)


def test_the_most_common_words_stay_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr("trainers.words.MOST", 2)
    words = Words.seen([["lamp"], ["lamp chair"], ["chair"], ["shoe"]], 2)
    assert len(words.index) == 2
    assert (words.features([["shoe"], ["lamp"], ["chair"]]).toarray().sum(1) > 0).tolist() == [False, True, True]


def test_words_are_kept_and_others_refused():
    words = Words.seen(TEXTS, 3)
    words.weight[:] = np.random.default_rng(0).normal(size=words.weight.shape)
    again = Words.of(words.tensors(), 3)
    assert np.array_equal(again.logits(TEXTS), words.logits(TEXTS))
    assert (again.index // BUCKETS).max() == 1
    with pytest.raises(ValueError, match="other shapes"):
        Words.of(words.tensors(), 2)
    with pytest.raises(ValueError, match="other shapes"):
        Words.of({**words.tensors(), "words.rarity": words.rarity[1:]}, 3)
    for harm in ({"words.index": words.index[::-1]}, {"words.rarity": words.rarity * np.nan}):
        with pytest.raises(ValueError, match="not in order"):
            Words.of({**words.tensors(), **harm}, 3)


def world(rows=120, seed=0, grades=3):
    """Features of which two tell the grade, texts that tell it now and then."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(grades, size=rows)
    features = rng.normal(size=(rows, 40))
    features[:, 38] += labels
    features[:, 39] -= labels
    texts = [[f"word{rng.integers(9)} grade{label if rng.random() < 0.5 else 9}", "same"] for label in labels]
    return features, texts, labels, np.arange(rows) // 4


def said(begun, features, texts):
    """[N, K] what a fitted pool says."""
    logits = (features - begun.mean) / begun.spread @ begun.weight.T + begun.bias
    return softmax(logits + begun.words.logits(texts), axis=1)


def test_the_pool_beats_its_shares_on_rows_it_has_not_seen():
    features, texts, labels, groups = world()
    begun = fit_pool(features, texts, labels, groups, grades=3, telling=2)
    new, others, gold, _ = world(seed=1)
    probs = said(begun, new, others)
    assert np.allclose(probs.sum(1), 1)
    assert (probs.argmax(1) == gold).mean() > 0.6
    assert -np.log(probs[np.arange(len(gold)), gold]).mean() < 0.95  # of three grades alike 1.10
    without = said(begun, new, [["", ""]] * len(others))
    assert -np.log(without[np.arange(len(gold)), gold]).mean() > -np.log(probs[np.arange(len(gold)), gold]).mean()


@pytest.mark.parametrize("grades", [2, 3])
def test_the_sum_of_the_members_is_the_pool(monkeypatch, grades):
    """One linear classifier stands for weighted log-probabilities of all."""
    features, texts, labels, groups = world(grades=grades)
    kept = {}
    members, weights = opinion_pool._members, opinion_pool._weights
    monkeypatch.setattr(opinion_pool, "_members", lambda rows: kept.setdefault(len(rows.labels), members(rows)))
    monkeypatch.setattr(opinion_pool, "_weights", lambda rows, at: kept.setdefault("weights", weights(rows, at)))
    begun = fit_pool(features, texts, labels, groups, grades=grades, telling=2)
    inputs, words = (features - begun.mean) / begun.spread, begun.words.features(texts)
    logs = np.stack([log_softmax(one.logits(inputs, words), axis=1) for one in kept[len(labels)]])
    assert np.allclose(
        said(begun, features, texts), softmax(np.tensordot(kept["weights"][0], logs, 1), axis=1), atol=1e-5
    )


def test_a_grade_without_a_row_few_groups_and_texts_without_a_word():
    features, texts, labels, groups = world(60)
    begun = fit_pool(features, texts, labels, groups, grades=5, telling=2)  # two grades that nobody gave
    told = said(begun, features, texts)[:, 3:]
    assert 0.5 * 0.5 / 61 < told.mean() < 2 * 0.5 / 61  # as if half a row had each: rare, and not impossible
    assert (told < 0.1).all()
    few = fit_pool(features, texts, labels, np.arange(60) // 20, grades=3, telling=2)
    assert (said(few, features, texts).argmax(1) == labels).mean() > 0.6
    wordless = fit_pool(features, [["", "!"]] * 60, labels, groups, grades=3, telling=2)
    assert (said(wordless, features, [["", "a b"]] * 60).argmax(1) == labels).mean() > 0.5


def test_a_fit_that_does_not_settle_says_nothing(monkeypatch):
    monkeypatch.setattr(probe, "STEPS", 1)
    features, texts, labels, groups = world()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begun = fit_pool(features, texts, labels, groups, grades=3, telling=2)
    assert np.isfinite(said(begun, features, texts)).all()


@given(arrays(float, (4, 30, 3), elements=st.floats(-3, 3)), st.integers(0, 9))
def test_weights_are_those_of_the_least_loss(logits, seed):
    """No weight is negative, a nudge of any does not better the penalised loss, and equal weights are no better."""
    rng = np.random.default_rng(seed)
    logs, labels = log_softmax(logits, axis=-1), rng.integers(3, size=30)
    found = pooled(logs, labels)

    def loss(weights):
        nats = log_softmax(np.tensordot(weights, logs, 1), axis=-1)[np.arange(30), labels]
        return -nats.mean() + opinion_pool.SHRINK * weights @ weights

    assert (found >= 0).all()
    best = loss(found)
    assert best <= loss(np.full(4, 0.25)) + 1e-6
    for nudge in (*np.eye(4) * 0.01, *np.eye(4) * -0.01):
        assert best <= loss(np.maximum(found + nudge, 0)) + 1e-5


def test_a_member_that_knows_gets_the_weight():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=200)
    knows = np.full((200, 3), 0.1)
    knows[np.arange(200), labels] = 0.8
    guesses = rng.dirichlet(np.ones(3), 200)
    weights = pooled(np.log(np.stack([knows, guesses])), labels)
    assert weights[0] > 1
    assert weights[1] < 0.05


def test_the_loss_on_unseen_groups_tells_what_helps_there():
    features, texts, labels, groups = world(grades=3)
    mixed = np.random.default_rng(0).permutation(labels)
    told, guessed = (fit_pool(features, texts, of, groups, grades=3, telling=2).unseen for of in (labels, mixed))
    assert 0 < told < guessed - 0.2
    assert guessed == pytest.approx(np.log(3), abs=0.2)
    assert fit_pool(features, texts, labels, ["one"] * len(labels), grades=3, telling=2).unseen is None
