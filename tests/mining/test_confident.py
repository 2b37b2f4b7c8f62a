"""Confident learning gives cleanlab's sets."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mining.confident import find_issues


def noisy(n: int, k: int, seed: int, *, noise: float = 0.2, sharpness: float = 1.5):
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, size=n, p=rng.dirichlet(np.full(k, 2.0)))
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), truth] += sharpness
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(rng.random(n) < noise, rng.integers(k, size=n), truth)
    return labels, probs


def reference(labels, probs, **options):
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return find_label_issues(labels, probs, n_jobs=1, **options)


@pytest.mark.peers
@pytest.mark.parametrize(("n", "k"), [(40, 2), (500, 3), (3000, 4), (2000, 9)])
def test_sets_are_cleanlabs(n, k):
    for seed in range(5):
        labels, probs = noisy(n, k, seed)
        assert (find_issues(labels, probs) == reference(labels, probs)).all()


@pytest.mark.peers
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(30, 200), st.floats(0, 0.6), st.floats(0, 4))
@settings(max_examples=40, deadline=None)
def test_sets_are_cleanlabs_on_any_noise(seed, k, n, noise, sharpness):
    labels, probs = noisy(n, k, seed, noise=noise, sharpness=sharpness)
    if len(set(labels.tolist())) < 2:
        return
    assert (find_issues(labels, probs) == reference(labels, probs)).all()


@given(st.integers(0, 10_000), st.integers(10, 60))
@settings(max_examples=40, deadline=None)
def test_issues_are_the_rows_whose_grade_is_believed_least_and_another_more(seed, n):
    labels, probs = noisy(n, 2, seed)
    issues, own = find_issues(labels, probs), probs[np.arange(n), labels]
    assert (own[issues] < 0.5).all()
    for grade in (0, 1):
        mine = labels == grade
        assert own[mine & issues].max(initial=0) <= own[mine & ~issues].min(initial=1)


def test_planted_errors_are_found_and_nothing_without_noise():
    labels, probs = noisy(5000, 4, 3, noise=0.0, sharpness=8)
    wrong = np.arange(0, 5000, 25)
    planted = labels.copy()
    planted[wrong] = (planted[wrong] + 1) % 4
    found = np.flatnonzero(find_issues(planted, probs))
    assert len(set(found) & set(wrong)) > 0.9 * len(wrong)
    assert find_issues(labels, probs).sum() < 0.02 * len(labels)


@pytest.mark.peers
def test_an_absent_grade_is_no_hindrance():
    labels, probs = noisy(600, 4, 5)
    keep = labels != 2
    labels, probs = labels[keep], probs[keep]
    assert (find_issues(labels, probs) == reference(labels, probs)).all()


@pytest.mark.parametrize(
    ("labels", "probs"),
    [
        ([0, 1], [[0.5, 0.5]]),
        ([0, 2], [[0.5, 0.5], [1, 0]]),
        ([0, 1], [[np.nan, 1], [0, 1]]),
        ([0, 1], [[-1, 2], [0, 1]]),
    ],
)
def test_input_that_makes_no_sense_is_refused(labels, probs):
    with pytest.raises(ValueError, match=r"labels|label|probabilities"):
        find_issues(np.array(labels), np.array(probs, dtype=float))
