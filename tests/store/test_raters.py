"""How many raters are enough and where the guideline is doubted: planted raters are found, clean worlds stay quiet."""

import itertools

import numpy as np
import pytest

from benchmarks.guideline_doubts import project
from store.enough_raters import MOST, Raters, accuracy, enough, fit, how_many
from store.guideline_doubts import doubts

EVEN = (1 - np.eye(3)) / 2


def votes(raters, rows, rng, faulty=(), seeing=0):
    """Item, rater, grade of each vote, and the truth; everybody judges every row.

    In faulty rows the `seeing` ablest raters give the true grade, the others mostly the next one.
    """
    k, n = len(raters.prevalence), len(raters.ability)
    truth = rng.integers(0, k, rows)
    hard = raters.spread * rng.standard_normal((rows, 1))
    right = rng.random((rows, n)) < 1 / (1 + np.exp(hard - raters.ability))
    grades = np.where(right, truth[:, None], (truth[:, None] + rng.integers(1, k, (rows, n))) % k)
    ablest = np.argsort(raters.ability)[n - seeing :]
    for row in faulty:
        sees = np.isin(np.arange(n), ablest) & (rng.random(n) < 0.9)
        grades[row] = np.where(sees, truth[row], (truth[row] + 1) % k)
    return np.repeat(np.arange(rows), n), np.tile(np.arange(n), rows), grades.ravel(), truth


def test_planted_abilities_and_difficulty_are_found():
    planted = Raters(np.full(3, 1 / 3), np.array([0.5, 1.0, 1.5, 2.0, 2.5]), 1.0, EVEN)
    items, raters, grades, _ = votes(planted, 1500, np.random.default_rng(1))
    found = fit(items, raters, grades, n_items=1500, n_raters=5, k=3)
    assert np.abs(found.ability - planted.ability).max() < 0.35
    assert found.spread == pytest.approx(1.0, abs=0.3)
    assert found.prevalence == pytest.approx(planted.prevalence, abs=0.05)


def test_the_simulated_accuracy_is_that_of_counting_all_votes():
    """Three raters of one ability and two grades: the majority's accuracy is a binomial sum."""
    p = 0.8
    same = Raters(np.full(2, 0.5), np.full(3, np.log(p / (1 - p))), 0.0, 1 - np.eye(2))
    plain, weighed = accuracy(same, drawn=40_000)
    three = sum(
        np.prod([p if hit else 1 - p for hit in hits])
        for hits in itertools.product((True, False), repeat=3)
        if sum(hits) >= 2
    )
    assert plain[0] == pytest.approx(p, abs=0.01)
    assert plain[2] == pytest.approx(three, abs=0.01)
    assert weighed[2] == pytest.approx(three, abs=0.01)
    assert plain.shape == weighed.shape == (MOST,)


def test_enough_is_where_one_more_adds_less():
    assert enough(np.array([0.7, 0.7, 0.8, 0.8, 0.81, 0.81]), 0.02) == 3
    assert enough(np.array([0.5, 0.6, 0.7, 0.8]), 0.02) is None


def test_harder_rows_and_worse_raters_need_more_people_and_little_data_is_said_to_be_little():
    rng = np.random.default_rng(3)
    told = {}
    for name, ability, spread in (("easy", 5.0, 0.2), ("hard", 1.0, 0.5)):
        planted = Raters(np.full(3, 1 / 3), ability + np.array([-0.3, 0, 0.2, 0.4]), spread, EVEN)
        items, raters, grades, _ = votes(planted, 300, rng)
        told[name] = how_many(items, raters, grades, np.arange(300), k=3, gain=0.02, resamples=12)
    assert (told["easy"].weighed.number, told["easy"].unknown) == (1, "")
    assert told["easy"].weighed.high < told["hard"].weighed.low <= told["hard"].weighed.number
    few = items < 50
    short = how_many(items[few], raters[few], grades[few], np.arange(50), k=3, gain=0.02)
    assert (short.unknown, short.weighed) == (
        "50 rows drawn at random were judged by two people or more; it takes 100",
        None,
    )
    two = raters < 2
    assert (
        "cannot be told apart" in how_many(items[two], raters[two], grades[two], np.arange(300), k=3, gain=0.02).unknown
    )


ABLE = Raters(np.full(3, 1 / 3), np.array([0.8, 1.0, 1.2, 2.2, 2.6]), 0.7, EVEN)


def named(rows):
    return {f"rule {n}": list(range(n, rows, 10)) for n in range(10)}


def majority(items, grades, rows):
    counts = np.zeros((rows, 3))
    np.add.at(counts, (items, grades), 1)
    return counts.argmax(axis=1)


def test_a_rule_that_only_the_ablest_see_through_is_named_with_its_rows():
    items, raters, grades, _ = votes(ABLE, 400, np.random.default_rng(0), faulty=range(4, 400, 10), seeing=2)
    found, tested = doubts(items, raters, grades, majority(items, grades, 400), named(400), 3)
    assert [d.what for d in found] == ["rule 4"]
    assert tested == 10
    assert found[0].correlation < -0.5
    assert all(item % 10 == 4 for item in found[0].examples)


def test_two_rules_at_fault_do_not_hide_who_is_able_where_three_people_judge_a_row():
    found = [project(seed, 3, "gold", np.array([1, 7]))[0] for seed in range(12)]
    assert set().union(*found) == {"rule 1", "rule 7"}
    assert sum(map(len, found)) >= 20


def test_hard_rows_and_bad_raters_alone_name_no_rule():
    for seed in range(5):
        hard = Raters(ABLE.prevalence, ABLE.ability - 1.0, 2.0, EVEN)
        items, raters, grades, _ = votes(hard, 400, np.random.default_rng(seed))
        assert doubts(items, raters, grades, majority(items, grades, 400), named(400), 3)[0] == []


def test_one_row_is_named_where_enough_people_judged_it():
    many = Raters(ABLE.prevalence, np.linspace(0.5, 3.0, 14), 0.5, EVEN)
    items, raters, grades, _ = votes(many, 60, np.random.default_rng(3), faulty=[7], seeing=6)
    found, _ = doubts(items, raters, grades, majority(items, grades, 60), {}, 3)
    assert [d.what for d in found] == ["item 7"]


def test_without_votes_or_with_two_raters_nothing_is_named():
    assert doubts([], [], [], [], {}, 3) == ([], 0)
    items, raters, grades, _ = votes(ABLE, 100, np.random.default_rng(0))
    two = raters < 2
    assert doubts(items[two], raters[two], grades[two], majority(items, grades, 100), named(100), 3) == ([], 0)
