import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import brier_score_loss, log_loss

from store.probability_scores import (
    FLOOR,
    alone,
    area_of_risk,
    probability_scores,
    reliability,
    risk_by_step,
    risk_curve,
)

NAN = [np.nan] * 3


def world(groups=40, rows=6, k=3, seed=0):
    """Honest probabilities: the truth is drawn from them."""
    draw = np.random.default_rng(seed)
    probs = draw.dirichlet(np.full(k, 0.5), groups * rows)
    gold = np.array([draw.choice(k, p=p) for p in probs])
    return np.repeat(np.arange(groups), rows), gold, probs


def test_proper_scores_are_those_of_scikit_learn():
    groups, gold, probs = world()
    found = probability_scores(groups, gold, probs)
    clipped = np.clip(probs, FLOOR, None)
    assert found.nll.value == pytest.approx(log_loss(gold, clipped / clipped.sum(1, keepdims=True)), abs=1e-4)
    assert found.brier.value == pytest.approx(np.mean(((np.eye(3)[gold] - probs) ** 2).sum(1)))
    two = np.stack([1 - probs[:, 0], probs[:, 0]], axis=1)
    binary = probability_scores(groups, (gold == 0).astype(int), two)
    assert binary.brier.value == pytest.approx(2 * brier_score_loss(gold == 0, probs[:, 0]))
    assert binary.rps.value == pytest.approx(binary.brier.value / 2)  # two grades have one step between them
    assert found.nll.low < found.nll.value < found.nll.high


def test_a_distant_grade_costs_more_only_where_grades_have_an_order():
    groups, gold = np.arange(8) // 2, np.zeros(8, dtype=int)
    near, far = np.tile([0.0, 1.0, 0.0], (8, 1)), np.tile([0.0, 0.0, 1.0], (8, 1))
    a, b = (probability_scores(groups, gold, p) for p in (near, far))
    assert a.brier.value == b.brier.value == 2
    assert (a.rps.value, b.rps.value) == (0.5, 1.0)
    assert probability_scores(groups, gold, near, ordered=False).rps.value is None


def test_rows_without_probabilities_are_counted_and_never_guessed():
    groups, gold, probs = world()
    holes = probs.copy()
    holes[::4] = np.nan
    holes[1] = [0.0, 0.0, 0.0]
    kept = np.arange(len(gold)) % 4 != 0
    kept[1] = False
    found, alone_there = probability_scores(groups, gold, holes), probability_scores(groups, gold, probs)
    apart = probability_scores(groups[kept], gold[kept], probs[kept])
    assert (found.rows, found.without) == (kept.sum(), len(gold) - kept.sum())
    assert (found.nll, found.brier, found.aurc) == (apart.nll, apart.brier, apart.aurc)
    assert found.alone.share.value <= alone_there.alone.share.value or found.alone.threshold is None
    assert probability_scores(groups, gold, np.full((len(gold), 3), np.nan)) is None


def test_no_chance_for_the_truth_is_clipped_and_said():
    probs = np.array([[1.0, 0.0, 0.0]] * 9 + [NAN])
    found = probability_scores(np.arange(10), np.array([0] * 6 + [1] * 4), probs)
    assert (found.clipped, found.one_hot, found.rows) == (3, 9, 9)
    assert found.nll.value == pytest.approx(3 * -np.log(FLOOR) / 9)
    assert found.aurc.value == pytest.approx(1 / 3)  # equal confidences have no order: the error throughout


@pytest.mark.parametrize("k", [2, 15])
def test_any_number_of_grades(k):
    groups, gold, probs = world(k=k)
    found = probability_scores(groups, gold, probs)
    assert found.nll.value == pytest.approx(np.mean([entropy(p) for p in probs]), abs=0.15)
    assert 0 <= found.rps.value <= 1
    assert 0 <= found.aurc.value <= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_that_of_rows_laid_down_surest_first(rows):
    confidence = np.array([c / 9 for c, _ in rows])
    right = np.array([r for _, r in rows])
    area = area_of_risk(risk_by_step(confidence, right, np.zeros(len(rows), dtype=np.int64), 1).sum(axis=0))
    grid = np.linspace(0, len(rows), 4001)[1:]
    levels = [
        (np.sum(confidence == c), np.sum(~right & (confidence == c))) for c in sorted({*confidence}, reverse=True)
    ]
    ends, errors = np.cumsum([[0, 0], *levels], axis=0).T
    assert area == pytest.approx(np.mean(np.interp(grid, ends, errors) / grid), abs=2e-3)


def test_an_order_by_confidence_makes_the_area_smaller():
    groups, gold, probs = world(seed=2)
    found = probability_scores(groups, gold, probs)
    wrong = probs.argmax(1) != gold
    assert found.aurc.value < wrong.mean() - 0.1
    assert found.aurc.low < found.aurc.value < found.aurc.high


def shared_effects(seed, groups=120, rows=8):
    """Sure answers are right more often; each group has an effect of its own."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), rows)
    said = draw.uniform(0.3, 1, len(group))
    odds = 3 + 5 * (said - 0.6) + draw.normal(0, 1, groups)[group]
    return group, said, draw.uniform(size=len(said)) < 1 / (1 + np.exp(-odds))


def test_what_is_decided_alone_keeps_the_bound_on_fresh_groups():
    _, said, right = shared_effects(99, groups=4000)
    found = [alone(s, r, g, replicates=200, seed=n) for n in range(20) for g, s, r in [shared_effects(n)]]
    held = [(~right[said >= a.threshold]).mean() for a in found if a.threshold is not None]
    assert len(held) >= 15  # it is found
    assert max(held) <= 0.05
    assert all(a.error.value <= a.error.high <= 0.05 for a in found if a.threshold is not None)


def test_nothing_is_decided_alone_by_few_groups_or_by_noise():
    few = alone(np.linspace(0.5, 1, 300), np.ones(300, dtype=bool), np.arange(300) % 5)
    assert (few.threshold, few.share.value) == (None, 0.0)
    group, said, _ = shared_effects(0)
    coin = np.random.default_rng(0).uniform(size=len(said)) < 0.5
    assert alone(said, coin, group, replicates=200).threshold is None


def test_everything_is_decided_alone_by_who_is_always_right():
    group, said, _ = shared_effects(0, groups=200)
    found = alone(said, np.ones(len(said), dtype=bool), group)
    assert (found.share.value, found.threshold, found.error.value) == (1.0, said.min(), 0.0)
    assert 0 < found.error.high <= 0.05
    one_hot = alone(np.ones(len(said)), np.ones(len(said), dtype=bool), group)
    assert one_hot.share.value == 1.0


def test_points_of_reliability_hold_all_rows_and_honest_ones_lie_on_the_diagonal():
    groups, gold, probs = world(groups=200, rows=10, k=4)
    points = reliability(groups, gold, probs)
    assert sum(p.rows for p in points) == len(gold)
    assert len(points) == 10
    assert [p.confidence for p in points] == sorted(p.confidence for p in points)
    assert sum(p.right.low <= p.confidence <= p.right.high for p in points) >= 8
    [tied] = reliability(groups, gold, np.tile([0.7, 0.1, 0.1, 0.1], (len(gold), 1)))
    assert (tied.rows, tied.confidence) == (len(gold), pytest.approx(0.7))


def test_the_curve_of_risk_ends_at_the_error_of_all_rows():
    _, gold, probs = world()
    curve = risk_curve(gold, probs)
    assert curve[-1] == (1.0, pytest.approx(np.mean(probs.argmax(1) != gold)))
    assert [share for share, _ in curve] == sorted(share for share, _ in curve)
