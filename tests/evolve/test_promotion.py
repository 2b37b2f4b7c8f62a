"""Promotion works on groups: chance is not promoted, harm is refused, wear is counted."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.null_worlds import by_row
from piar.evolve.guards import Paired
from piar.evolve.ledger import Ledger, check_uses, fingerprints, ledger, record
from piar.evolve.promotion import confirm, power
from piar.evolve.settings import PromotionSettings
from store.errors import PiarError
from tests.worlds import TASK, fill

SETTINGS = PromotionSettings()
FRESH = Ledger((), 0)


def paired(before, after, truth, groups, slices=None):
    return Paired(groups, truth, before, after, (before == truth) * 1.0, (after == truth) * 1.0, slices or {})


def rows(seed, groups=60, size=8, lift=0.0, shared=0.5):
    """Two judges whose rightness is alike within a group; the second gains `lift` on average."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    truth = rng.integers(0, 3, groups * size)
    wrong = (truth + 1) % 3

    def judge(p):
        chance = np.clip(p + shared * rng.normal(size=groups), 0, 1)[group]
        return np.where(rng.random(len(group)) < chance, truth, wrong)

    return paired(judge(0.5), judge(0.5 + lift), truth, group)


def test_chance_is_promoted_at_most_at_the_level_where_rows_would_promote_it_often():
    outcomes = [confirm("b", "a", rows(seed), TASK, FRESH, SETTINGS, seed) for seed in range(100)]
    assert sum(o.passed for o in outcomes) <= 6
    assert sum(by_row(o.fixed, o.broke) <= SETTINGS.alpha for o in outcomes) >= 20


def test_a_real_gain_is_promoted_and_counted():
    outcome = confirm("b", "a", rows(0, groups=200, lift=0.3), TASK, FRESH, SETTINGS, 0)
    assert outcome.passed
    assert outcome.fixed - outcome.broke == pytest.approx(outcome.gain.mean * outcome.n)
    assert all(g.state == "holds" for g in outcome.guards)
    assert "points on the holdout" in outcome.reason


def planted(groups=100, size=10):
    """Gains 4 points overall and loses more than 10 on grade 2, the shape of a published case."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(groups), size)
    truth = rng.choice(3, p=[0.45, 0.4, 0.15], size=groups * size)
    before = np.where(rng.random(len(group)) < 0.75, truth, (truth + 1) % 3)
    after = before.copy()
    after[(before != truth) & (truth < 2) & (rng.random(len(group)) < 0.35)] = -2
    after = np.where(after == -2, truth, after)
    after[(before == truth) & (truth == 2) & (rng.random(len(group)) < 0.22)] = 0
    return paired(before, after, truth, group)


def test_a_gain_that_costs_one_grade_is_refused():
    data = planted()
    recall = [np.mean(j[data.truth == 2] == 2) for j in (data.before, data.after)]
    assert recall[0] - recall[1] > 0.10
    outcome = confirm("b", "a", data, TASK, FRESH, SETTINGS, 0)
    assert outcome.gain.mean > 0.04
    assert outcome.gain.p_value < 0.001
    assert not outcome.passed
    assert [g.name for g in outcome.guards if g.state == "harm"] == ["grade 2"]
    assert next(g.change for g in outcome.guards if g.name == "grade 2") == pytest.approx(recall[1] - recall[0])
    by_f1 = confirm("b", "a", data, TASK, FRESH, PromotionSettings(metric="f1", margin=0.03), 0)
    assert not by_f1.passed
    assert confirm("b", "a", data, TASK, FRESH, PromotionSettings(margin=0.5), 0).passed


def mostly(grade, rng, n, share):
    """(N,) `grade` on that share of the rows, some other one on the rest, whatever is true."""
    return np.where(rng.random(n) < share, grade, (grade + rng.integers(1, 3, n)) % 3)


@pytest.mark.parametrize("share", [1.0, 0.95])
@pytest.mark.parametrize("metric", ["recall", "f1"])
def test_a_grade_that_the_champion_gave_to_nearly_everything_vetoes_no_gain(share, metric):
    rng = np.random.default_rng(0)
    truth = rng.choice(3, p=[0.12, 0.33, 0.55], size=400)
    before = mostly(0, rng, 400, share)
    after = np.where((truth > 0) & (rng.random(400) < 0.8), truth, 1)  # the rare grade is never given any more
    data = paired(before, after, truth, np.arange(400) % 80)
    outcome = confirm("b", "a", data, TASK, FRESH, PromotionSettings(metric=metric), 0)
    rare = next(g for g in outcome.guards if g.name == "grade 0")
    assert outcome.passed
    assert (rare.state, rare.change < -0.05) == ("unearned", True)
    assert "kappa" in rare.note
    assert "grade 0 loses" in outcome.reason
    assert "not earned" in outcome.reason


def test_a_grade_that_the_champion_did_tell_from_the_rest_is_still_guarded():
    rng = np.random.default_rng(1)
    truth = rng.choice(3, p=[0.12, 0.33, 0.55], size=400)
    before = np.where((truth == 0) | (rng.random(400) < 0.3), 0, 1)  # misses no 0, though most that it calls so are not
    after = np.where((truth > 0) & (rng.random(400) < 0.9), truth, 1)
    outcome = confirm("b", "a", paired(before, after, truth, np.arange(400) % 80), TASK, FRESH, SETTINGS, 0)
    assert outcome.gain.mean > 0.3
    assert (outcome.passed, outcome.refused_by) == (False, "guard")
    assert [g.name for g in outcome.guards if g.state == "harm"] == ["grade 0"]


def test_recall_that_precision_makes_up_for_is_no_harm():
    rng = np.random.default_rng(2)
    truth = rng.choice(3, p=[0.2, 0.3, 0.5], size=600)
    before = np.where((truth == 0) | (rng.random(600) < 0.5), 0, truth)
    after = np.where((truth == 0) & (rng.random(600) < 0.2), 1, truth)
    outcome = confirm("b", "a", paired(before, after, truth, np.arange(600) % 120), TASK, FRESH, SETTINGS, 0)
    assert next(g for g in outcome.guards if g.name == "grade 0").state == "unearned"
    assert outcome.passed


def test_a_slice_is_guarded_too_when_it_has_enough_rows():
    data = rows(1, groups=200, lift=0.3)
    harmed = np.arange(len(data.truth)) % 10 == 0
    after = np.where(harmed, (data.truth + 1) % 3, data.after)
    guarded = paired(data.before, after, data.truth, data.groups, {"tenth": harmed})
    outcome = confirm("b", "a", guarded, TASK, FRESH, SETTINGS, 0)
    assert [g.name for g in outcome.guards if g.state == "harm"] == ["slice tenth"]
    loose = PromotionSettings(min_support=10_000)
    assert confirm("b", "a", guarded, TASK, FRESH, loose, 0).guards == ()


def test_levels_shrink_with_use_and_a_worn_holdout_is_refused(tmp_path):
    store, _ = fill(tmp_path, [("q", "t", "holdout", "1")])
    groups = [f"q{i}" for i in range(10)]
    detail = {"holdout_groups": fingerprints(groups), "level": 0.03}
    for run in range(4):
        record(store, "promotion", f"i{run}", "seed", "refused", "why", detail, "piar", f"run{run}")
        record(store, "promotion", f"i{run}", "seed", "refused", "why", detail, "piar", f"run{run}")
    used = ledger(store, groups, "run3")
    assert used.uses == 3
    assert used.spent == (0.03,) * 3
    half = ledger(store, groups[:5] + [f"new{i}" for i in range(5)], "")
    assert half.uses == 2
    assert check_uses(half) is None
    assert "stricter" in check_uses(used)
    with pytest.raises(PiarError, match="prove nothing more"):
        check_uses(replace(used, uses=8.0))


def test_power_says_what_more_groups_would_bring():
    told = power([f"q{i // 8}" for i in range(216)], 0.05)
    assert told.groups == 27
    assert 0.05 < told.detectable < 0.25
    halved = power([f"q{i // 8}" for i in range(8 * told.groups_to_halve)], 0.05)
    assert halved.detectable == pytest.approx(told.detectable / 2, rel=0.02)
    assert "27 groups" in told.sentence()
    assert "nothing can be shown" in power(["q"] * 5, 0.05).sentence()


def test_a_gain_that_hangs_on_how_often_one_large_group_is_drawn_is_not_promoted():
    sizes = [10] * 40 + [400]
    group = np.repeat(np.arange(41), sizes)
    truth = np.zeros(len(group), dtype=np.int64)
    before, after = np.ones_like(truth), np.ones_like(truth)
    for g in range(40):
        after[np.flatnonzero(group == g)[:3]] = 0  # three rows better in every small group
    before[np.flatnonzero(group == 40)[:45]] = 0  # and 45 worse in the large one
    outcome = confirm("b", "a", paired(before, after, truth, group), TASK, FRESH, PromotionSettings(alpha=0.1), 0)
    assert outcome.gain.p_value <= outcome.level
    assert outcome.gain.low < 0
    assert not outcome.passed
    assert outcome.refused_by == "test"
    assert "few groups decide it (one of 400 rows, 50 % of all, changes by -11 points)" in outcome.reason
