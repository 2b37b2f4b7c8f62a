"""Agreement against scikit-learn, the krippendorff library and naive loops; Dawid-Skene against planted raters."""

import itertools

import krippendorff
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from store import agreement
from tests.data import shared

CLOSE = {"abs": 1e-9}


def matrix(seed, items=200, raters=4, k=4, missing=0.3):
    """(R, I) grades around a truth, NaN where a rater did not vote."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, items)
    votes = np.where(rng.random((raters, items)) < 0.7, truth, rng.integers(0, k, (raters, items))).astype(float)
    votes[rng.random((raters, items)) < missing] = np.nan
    return votes


def counts_of(votes, k):
    raters, items = np.nonzero(~np.isnan(votes))
    return agreement.vote_counts(items, votes[raters, items].astype(int), votes.shape[1], k)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(4))
def test_alpha_equals_the_krippendorff_library(level, seed):
    votes = matrix(seed, k=2 + seed)
    expected = krippendorff.alpha(votes, value_domain=list(range(2 + seed)), level_of_measurement=level)
    assert agreement.krippendorff_alpha(counts_of(votes, 2 + seed), level=level).value == pytest.approx(
        expected, **CLOSE
    )


def test_alpha_uses_the_grades_values_at_the_interval_level():
    values = np.array([0.0, 1.0, 10.0])
    votes = matrix(9, k=3)
    valued = np.where(np.isnan(votes), np.nan, values[np.nan_to_num(votes).astype(int)])
    expected = krippendorff.alpha(valued, level_of_measurement="interval")
    found = agreement.krippendorff_alpha(counts_of(votes, 3), level="interval", values=values)
    assert found.value == pytest.approx(expected, **CLOSE)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(3, 30), st.floats(0, 0.8))
def test_alpha_equals_the_library_on_any_holes(seed, k, items, missing):
    votes = matrix(seed, items=items, raters=3, k=k, missing=missing)
    found = agreement.krippendorff_alpha(counts_of(votes, k)).value
    pairable = votes[:, (~np.isnan(votes)).sum(axis=0) >= 2]
    if len(set(pairable[~np.isnan(pairable)])) < 2:
        assert found is None
    else:
        assert found == pytest.approx(krippendorff.alpha(votes, level_of_measurement="nominal"), **CLOSE)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohen_equals_scikit_learn(weights):
    first, second = matrix(3, raters=2, missing=0).astype(int)
    expected = cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
    found = agreement.cohen_kappa(first, second, 4, weights=weights)
    assert found.value == pytest.approx(expected, **CLOSE)
    assert found.low < found.value < found.high


def naive_fleiss(counts):
    items, votes = len(counts), sum(counts[0])
    shares = [sum(row[j] for row in counts) / (items * votes) for j in range(len(counts[0]))]
    agree = [
        sum(1 for a, b in itertools.permutations([j for j, c in enumerate(row) for _ in range(c)], 2) if a == b)
        / (votes * (votes - 1))
        for row in counts
    ]
    chance = sum(s * s for s in shares)
    return (sum(agree) / items - chance) / (1 - chance)


def test_fleiss_equals_a_naive_loop():
    counts = counts_of(matrix(5, missing=0), 4)
    assert agreement.fleiss_kappa(counts).value == pytest.approx(naive_fleiss(counts.tolist()), **CLOSE)


def test_perfect_agreement_and_nothing_to_compare():
    votes = np.tile(np.arange(40) % 3, (3, 1)).astype(float)
    counts = counts_of(votes, 3)
    assert agreement.krippendorff_alpha(counts).value == 1
    assert agreement.fleiss_kappa(counts).value == 1
    assert agreement.share_all_agree(counts) == 1
    single = counts_of(votes[:1], 3)
    assert agreement.krippendorff_alpha(single).value is None
    assert agreement.fleiss_kappa(single).value is None
    assert agreement.share_all_agree(single) is None


def test_chorus_by_query_is_less_certain_than_by_row():
    frame = pl.read_csv(shared("chorus/chorus.csv"))
    votes = frame.select("rater_1", "rater_2", "rater_3").to_numpy().T.astype(float)
    counts = counts_of(votes, 4)
    by_row = agreement.krippendorff_alpha(counts)
    by_query = agreement.krippendorff_alpha(counts, groups=frame["query"].to_numpy())
    assert by_row.value == by_query.value == pytest.approx(0.6426, abs=1e-4)
    assert agreement.share_all_agree(counts) == pytest.approx(0.7146, abs=1e-4)
    assert by_query.high - by_query.low > 1.5 * (by_row.high - by_row.low)


def crowd(seed, items=3000, reliabilities=(0.95, 0.7, 0.65, 0.6, 0.55), k=4):
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, items, p=[0.45, 0.1, 0.05, 0.4])
    right = rng.random((len(reliabilities), items)) < np.array(reliabilities)[:, None]
    votes = np.where(right, truth, (truth + rng.integers(1, k, right.shape)) % k)
    raters, ids = np.nonzero(rng.random(votes.shape) < 0.8)
    return truth, ids, raters, votes[raters, ids]


def test_dawid_skene_beats_the_majority_and_recovers_reliabilities():
    truth, items, raters, grades = crowd(1)
    found = agreement.dawid_skene(items, raters, grades, n_items=3000, n_raters=5, k=4)
    majority = agreement.vote_counts(items, grades, 3000, 4).argmax(axis=1)
    assert (found.grades == truth).mean() > (majority == truth).mean() + 0.03
    assert found.reliability == pytest.approx([0.95, 0.7, 0.65, 0.6, 0.55], abs=0.04)
    assert found.posterior.sum(axis=1) == pytest.approx(np.ones(3000))


def naive_dawid_skene(items, raters, grades, n_items, n_raters, k, rounds):
    share = [[0.0] * k for _ in range(n_items)]
    for i, g in zip(items, grades, strict=True):
        share[i][g] += 1
    post = [[x / sum(row) for x in row] for row in share]
    for _ in range(rounds):
        prior = [sum(row[t] for row in post) / n_items for t in range(k)]
        table = [[[0.01] * k for _ in range(k)] for _ in range(n_raters)]
        for i, r, g in zip(items, raters, grades, strict=True):
            for t in range(k):
                table[r][t][g] += post[i][t]
        table = [[[x / sum(row) for x in row] for row in one] for one in table]
        post = [list(prior) for _ in range(n_items)]
        for i, r, g in zip(items, raters, grades, strict=True):
            for t in range(k):
                post[i][t] *= table[r][t][g]
        post = [[x / sum(row) for x in row] for row in post]
    return np.array(post)


def test_dawid_skene_equals_a_naive_loop():
    rng = np.random.default_rng(2)
    items = np.concatenate([np.arange(60), rng.integers(0, 60, 120)])
    raters, grades = rng.integers(0, 4, 180), rng.integers(0, 3, 180)
    found = agreement.dawid_skene(items, raters, grades, n_items=60, n_raters=4, k=3, max_iterations=7, tolerance=0)
    expected = naive_dawid_skene(items, raters, grades, 60, 4, 3, 7)
    assert found.iterations == 7
    assert np.abs(found.posterior - expected).max() < 1e-9


def test_dawid_skene_ignores_the_order_of_votes_and_takes_items_without_any():
    _, items, raters, grades = crowd(4, items=200)
    order = np.random.default_rng(0).permutation(len(items))
    options = {"n_items": 201, "n_raters": 5, "k": 4}
    found = agreement.dawid_skene(items, raters, grades, **options)
    again = agreement.dawid_skene(items[order], raters[order], grades[order], **options)
    assert np.abs(found.posterior - again.posterior).max() < 1e-9
    assert found.posterior[200] == pytest.approx(found.prevalence)
    nothing = agreement.dawid_skene([], [], [], n_items=3, n_raters=1, k=2)
    assert nothing.posterior == pytest.approx(np.full((3, 2), 0.5))
