"""Statistics by group: validity under nulls that share effects within groups, and equality with naive loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from benchmarks.null_worlds import by_row as mcnemar
from store import stats


def naive_sign_flip(differences):
    observed, hits, total = sum(differences), 0, 0
    for signs in itertools.product((-1, 1), repeat=len(differences)):
        total += 1
        hits += sum(s * abs(d) for s, d in zip(signs, differences, strict=True)) >= observed - 1e-9
    return hits / total


@given(st.lists(st.integers(-6, 6), max_size=9))
def test_sign_flip_of_counts_equals_enumeration(differences):
    assert stats.sign_flip_test(differences) == pytest.approx(naive_sign_flip(differences), abs=1e-12)


@given(st.lists(st.floats(-3, 3).map(lambda x: round(x, 3)), max_size=9))
def test_sign_flip_of_fractions_equals_enumeration(differences):
    assert stats.sign_flip_test(differences) == pytest.approx(naive_sign_flip(differences), abs=1e-12)


def test_sign_flip_monte_carlo_agrees_with_counting():
    rng = np.random.default_rng(3)
    whole = rng.integers(-4, 6, 60)
    exact = stats.sign_flip_test(whole)
    drawn = stats.sign_flip_test(whole * 0.1, seed=1)
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 100_000))
    assert drawn == stats.sign_flip_test(whole * 0.1, seed=1)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=20), st.randoms())
def test_sign_flip_ignores_order_scale_and_untouched_groups(differences, random):
    shuffled = [*differences, 0, 0]
    random.shuffle(shuffled)
    p = stats.sign_flip_test(differences)
    assert stats.sign_flip_test(shuffled) == pytest.approx(p, abs=1e-12)
    assert stats.sign_flip_test([3 * d for d in differences]) == pytest.approx(p, abs=1e-12)
    assert 0 < p <= 1


def clustered(rng, groups=27, rows=24, shift=0.0):
    """Two judges' correctness whose difference is shared within groups; exchangeable when shift is 0."""
    lean = np.repeat(rng.beta(0.6, 0.6, groups), rows)
    codes = np.repeat(np.arange(groups), rows)
    differ = rng.random(groups * rows) < 0.35
    up = rng.random(groups * rows) < np.clip(lean + shift, 0, 1)
    before = rng.random(groups * rows) < 0.6
    return np.where(differ, ~up, before), np.where(differ, up, before), codes


def test_sign_flip_is_valid_under_a_group_exchangeable_null_where_mcnemar_is_not():
    rng = np.random.default_rng(11)
    by_group, by_row = [], []
    for _ in range(600):
        before, after, groups = clustered(rng)
        sums = stats.group_sums(after.astype(float) - before, groups, 27)[:, 0]
        by_group.append(stats.sign_flip_test(sums))
        by_row.append(mcnemar(int((after & ~before).sum()), int((before & ~after).sum())))
    for level in (0.01, 0.05, 0.2, 0.5):
        share = np.mean(np.array(by_group) <= level)
        assert share <= level + 3 * np.sqrt(level * (1 - level) / 600)
    assert np.mean(np.array(by_group) <= 0.5) > 0.4  # not merely conservative
    assert np.mean(np.array(by_row) <= 0.05) > 0.15


def test_paired_gain_states_mean_interval_and_p():
    before, after, groups = clustered(np.random.default_rng(5), groups=80, shift=0.25)
    gain = stats.paired_gain(before, after, groups)
    assert gain.mean == pytest.approx(after.mean() - before.mean())
    assert gain.low < gain.mean < gain.high
    assert (gain.p_value < 0.05) == (gain.low > 0)
    back = stats.paired_gain(after, before, groups)
    assert back.mean == pytest.approx(-gain.mean)
    assert back.p_value > 0.9


def test_paired_gain_with_a_margin_asks_for_non_inferiority():
    before, after, groups = clustered(np.random.default_rng(6), groups=200)
    superior, not_worse = (stats.paired_gain(before, after, groups, margin=m).p_value for m in (0.0, 0.3))
    assert not_worse < 0.01 < superior


@pytest.mark.parametrize(("groups", "rows", "p_value"), [(5, 4, 1 / 32), (40, 1, 2**-40)])
def test_too_few_groups_or_groups_that_all_gain_alike_have_no_interval(groups, rows, p_value):
    names = np.repeat(np.arange(groups), rows)
    gain = stats.paired_gain(np.zeros(len(names)), np.ones(len(names)), names)
    assert (gain.mean, gain.low, gain.high) == (1.0, None, None)
    assert gain.p_value == pytest.approx(p_value)
    assert gain.above == (groups > 5)


def test_a_share_of_all_or_none_ends_where_one_more_group_would_show():
    groups = np.repeat(np.arange(20), 3)
    every, none = (
        stats.share_by_group(np.ones(60), np.ones(60), groups),
        stats.share_by_group([0] * 60, [1] * 60, groups),
    )
    assert every.low == pytest.approx(scipy_stats.binomtest(20, 20).proportion_ci(method="exact").low)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - every.low)
    some = stats.share_by_group([1, 0, 0] * 20, [1, 1, 0] * 20, groups)
    assert some.value == 0.5
    assert stats.share_by_group([0] * 60, [0] * 60, groups).value is None


def test_paired_gain_of_one_group_has_no_interval():
    gain = stats.paired_gain([0, 0, 1], [1, 1, 1], ["q"] * 3)
    assert gain.mean == pytest.approx(2 / 3)
    assert gain.low is None
    assert gain.high is None
    assert gain.p_value == 0.5


def test_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(21)
    covered = 0
    for _ in range(300):
        sizes = rng.integers(1, 41, 27)
        rate = rng.beta(0.65 * 1.3, 0.35 * 1.3, 27)
        codes = np.repeat(np.arange(27), sizes)
        found = stats.bootstrap_by_group(rng.random(len(codes)) < rate[codes], codes, replicates=500)
        covered += found.low <= 0.65 <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_interval_by_group_is_wider_than_by_row_when_rows_hang_together():
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(40), 25)
    right = rng.random(1000) < rng.beta(0.7, 0.4, 40)[codes]
    grouped, single = (stats.bootstrap_by_group(right, g) for g in (codes, np.arange(1000)))
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


def test_interval_ignores_names_and_order_of_rows_and_repeats_by_seed():
    rng = np.random.default_rng(4)
    codes, right = rng.integers(0, 30, 500), rng.random(500) < 0.7
    found = stats.bootstrap_by_group(right, codes, seed=9)
    order = rng.permutation(500)
    names = np.array([f"query {c:03d}" for c in codes])
    assert stats.bootstrap_by_group(right[order], names[order], seed=9) == found
    assert stats.bootstrap_by_group(right, codes, seed=10) != found


def test_pooling_many_groups_keeps_the_width():
    rng = np.random.default_rng(8)
    right = (rng.random(8000) < 0.3).astype(float)
    found = stats.bootstrap_by_group(right, np.arange(8000))
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 8000), rel=0.1)


def test_paired_variance_recovers_a_planted_correlation():
    rng = np.random.default_rng(7)
    sizes = rng.integers(2, 40, 3000)
    codes = np.repeat(np.arange(3000), sizes)
    difference = rng.normal(0, np.sqrt(0.3), 3000)[codes] + rng.normal(0, np.sqrt(0.7), len(codes))
    found = stats.paired_variance(np.zeros(len(codes)), difference, codes)
    assert found.row == pytest.approx(1.0, rel=0.05)
    assert found.icc == pytest.approx(0.3, abs=0.03)


def test_detectable_effect_is_found_with_the_stated_power():
    rng = np.random.default_rng(13)
    variance = stats.PairedVariance(row=0.4, icc=0.4)
    effect = stats.detectable_effect(variance, np.full(40, 12))
    found = 0
    for _ in range(400):
        shared = rng.normal(0, np.sqrt(0.16), 40)[:, None]
        rows = effect + shared + rng.normal(0, np.sqrt(0.24), (40, 12))
        found += stats.sign_flip_test(rows.sum(axis=1), draws=2000, seed=1) <= 0.05
    assert 0.72 <= found / 400 <= 0.88


@given(st.integers(2, 60), st.integers(1, 50), st.floats(0, 1))
def test_detectable_effect_shrinks_with_groups_and_grows_with_correlation(groups, rows, icc):
    def effect(g, r, rho):
        return stats.detectable_effect(stats.PairedVariance(row=0.3, icc=rho), np.full(g, r))

    here = effect(groups, rows, icc)
    assert effect(groups + 5, rows, icc) < here
    assert effect(groups, rows, min(1.0, icc + 0.1)) >= here
    assert effect(groups * 2, 1, icc) <= effect(2, groups, icc)


@given(st.floats(0.01, 0.3), st.integers(1, 30))
def test_groups_for_is_the_fewest(effect, rows):
    variance = stats.PairedVariance(row=0.35, icc=0.4)
    groups = stats.groups_for(variance, effect, rows)
    assert stats.detectable_effect(variance, np.full(groups, rows)) <= effect
    if groups > 2:
        assert stats.detectable_effect(variance, np.full(groups - 1, rows)) > effect


def test_power_needs_two_groups():
    assert stats.detectable_effect(stats.PairedVariance(row=0.3, icc=0.1), [10]) is None
    with pytest.raises(ValueError, match="two groups"):
        stats.paired_variance([0, 1], [1, 1], ["a", "a"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_the_step_down_rule(p_values):
    adjusted = stats.holm(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected, m = set(), len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > 0.05 / (m - rank):
            break
        rejected.add(i)
    borderline = any(abs(p * (m - r) - 0.05) < 1e-12 for p in p_values for r in range(m))
    assert borderline or {i for i in range(m) if adjusted[i] <= 0.05} == rejected


def test_spending_never_exceeds_the_total():
    spent = []
    for _ in range(50):
        spent.append(stats.spend(spent))
    assert spent[0] == pytest.approx(0.03)
    assert sum(spent) <= 0.05
    assert all(a > b for a, b in itertools.pairwise(spent[:20]))
