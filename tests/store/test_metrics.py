"""Metrics against scikit-learn and naive loops."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from store import metrics
from store.task import Grade, Task

TASK = Task(
    name="t", group_by="query", fields=("query",), grades=tuple(Grade(symbol=s, value=i) for i, s in enumerate("0123"))
)


def world(seed=0, n=600, groups=40, k=4):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(k), n)
    return rng.integers(0, groups, n), rng.integers(0, k, n), probs.argmax(axis=1), probs


def scores(groups, gold, predicted, probs=None, **options):
    return metrics.evaluate_arrays(groups, gold, predicted, probs, TASK, replicates=100, **options)


def test_equal_scikit_learn():
    groups, gold, predicted, probs = world()
    found = scores(groups, gold, predicted, probs)
    close = {"abs": 1e-9}
    assert found.accuracy.value == pytest.approx(sk.accuracy_score(gold, predicted), **close)
    assert found.macro_f1.value == pytest.approx(sk.f1_score(gold, predicted, average="macro"), **close)
    kappa = sk.cohen_kappa_score(gold, predicted, weights="quadratic")
    assert found.quadratic_kappa.value == pytest.approx(kappa, **close)
    precision, recall, f1, support = sk.precision_recall_fscore_support(gold, predicted)
    for k, grade in enumerate(TASK.symbols):
        mine = found.per_grade[grade]
        got = [mine.precision.value, mine.recall.value, mine.f1.value, mine.support]
        assert got == pytest.approx([precision[k], recall[k], f1[k], support[k]], **close)


def test_ndcg_equals_scikit_learn_with_ties():
    groups, gold, predicted, probs = world(1)
    for score, given_probs in ((probs @ np.arange(4), probs), (predicted.astype(float), None)):
        expected = []
        for g in np.unique(groups):
            rows = groups == g
            if gold[rows].sum() and rows.sum() > 1:
                expected.append(sk.ndcg_score(gold[rows][None].astype(float), score[rows][None]))
        found = scores(groups, gold, predicted, given_probs)
        assert found.ndcg.value == pytest.approx(np.mean(expected), abs=1e-9)


def naive_pairs(groups, gold, score):
    micro_points = micro_pairs = 0
    shares = []
    for g in sorted(set(groups)):
        rows = [i for i in range(len(groups)) if groups[i] == g]
        points = pairs = 0
        for i, j in itertools.permutations(rows, 2):
            if gold[i] > gold[j]:
                pairs += 1
                points += 1 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0
        micro_points, micro_pairs = micro_points + points, micro_pairs + pairs
        if pairs:
            shares.append(points / pairs)
    return micro_points / micro_pairs, np.mean(shares), micro_pairs


def test_pair_accuracy_equals_a_naive_loop():
    groups, gold, predicted, probs = world(2, n=200, groups=12)
    predicted[:15] = metrics.FAILED
    probs[:15] = np.nan
    found = scores(groups, gold, predicted, probs)
    soft = probs @ np.arange(4)
    hard = np.where(predicted < 0, np.nan, predicted)
    micro, macro, pairs = naive_pairs(groups, gold, soft)
    assert (found.pair_accuracy.value, found.pair_detail.macro.value) == pytest.approx((micro, macro), abs=1e-12)
    assert found.pair_detail.pairs == pairs
    micro, macro, _ = naive_pairs(groups, gold, hard)
    assert (found.pair_detail.argmax.value, found.pair_detail.argmax_macro.value) == pytest.approx((micro, macro))


def test_calibration_error_equals_a_naive_loop():
    groups, gold, predicted, probs = world(3)
    confidence, hit = probs.max(axis=1), probs.argmax(axis=1) == gold
    expected = 0.0
    for b in range(15):
        inside = (np.floor(confidence * 15).clip(max=14)) == b
        if inside.any():
            expected += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    assert scores(groups, gold, predicted, probs).ece.value == pytest.approx(expected, abs=1e-9)


def test_what_is_no_distribution_claims_no_confidence():
    groups, gold, predicted, probs = world()
    odd = [[0, 0, 0, 0], [np.inf, 0, 0, 0], [-0.5, 0.5, 0.5, 0.5], [np.nan, 1, 0, 0]]
    strange, unknown = probs.copy(), probs.copy()
    for row, values in enumerate(odd):
        strange[row], unknown[row] = values, np.nan
    strange[4:] *= 7  # weights that somebody's judge gave
    found, right = scores(groups, gold, predicted, strange), scores(groups, gold, predicted, unknown)
    for name in ("ece", "pair_accuracy", "ndcg"):
        assert getattr(found, name).value == pytest.approx(getattr(right, name).value)
    assert found.ece.value <= 1


def test_failed_answers_are_wrong_and_never_dropped():
    groups, gold, _, _ = world(4)
    failed = np.arange(600) % 3 == 0
    predicted = np.where(failed, metrics.FAILED, gold)
    found = scores(groups, gold, predicted)
    assert found.n == 600
    assert found.failed == 200
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.per_grade["1"].precision.value == 1.0
    assert found.per_grade["1"].recall.value == pytest.approx((predicted == 1).sum() / (gold == 1).sum())
    assert found.pair_accuracy.value < 1
    assert found.ndcg.value < 1
    assert 0 < found.quadratic_kappa.value < 1
    assert found.ece.value is None


def test_perfect_and_all_failed():
    groups, gold, _, _ = world(5)
    best = scores(groups, gold, gold, np.eye(4)[gold])
    for figure in (best.accuracy, best.macro_f1, best.pair_accuracy, best.quadratic_kappa, best.ndcg):
        assert figure.value == pytest.approx(1.0)
    assert best.ece.value == 0
    worst = scores(groups, gold, np.full(600, metrics.FAILED))
    assert worst.accuracy.value == 0
    assert worst.macro_f1.value == 0
    assert worst.pair_accuracy.value == 0


def test_grades_without_an_order_have_no_figure_of_order():
    groups, gold, predicted, probs = world(8)
    names = metrics.evaluate_arrays(groups, gold, predicted, probs, TASK.model_copy(update={"ordered": False}))
    for figure in (names.pair_accuracy, names.pair_detail.macro, names.quadratic_kappa, names.ndcg):
        assert figure.value is None
    assert names.accuracy.value == scores(groups, gold, predicted, probs).accuracy.value


def test_groups_in_which_every_order_is_as_good_say_nothing_of_order():
    rng = np.random.default_rng(7)
    gold = rng.integers(0, 4, 50)
    alone = scores(np.arange(50), gold, rng.integers(0, 4, 50))
    assert (alone.ndcg.value, alone.pair_accuracy.value) == (None, None)
    groups, gold, predicted, _ = world(7)
    more = scores(np.append(groups, [900, 901, 901]), np.append(gold, [3, 2, 2]), np.append(predicted, [0, 2, 0]))
    assert more.ndcg.value == scores(groups, gold, predicted).ndcg.value


def test_intervals_hold_the_value_and_slices_are_scored_apart():
    groups, gold, predicted, probs = world(6)
    odd = gold % 2 == 1
    found = scores(groups, gold, predicted, probs, slices={"odd": odd, "nothing": np.zeros(600, dtype=bool)})
    for figure in (found.accuracy, found.macro_f1, found.pair_accuracy, found.quadratic_kappa, found.ece, found.ndcg):
        assert figure.low < figure.value < figure.high
    assert found.per_slice["odd"].accuracy.value == pytest.approx((predicted == gold)[odd].mean())
    assert found.per_slice["nothing"].n == 0
    assert found.per_slice["nothing"].accuracy.value is None


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_never_crashes_and_every_figure_is_in_range(seed, n):
    rng = np.random.default_rng(seed)
    found = scores(rng.integers(0, 3, n), rng.integers(0, 4, n), rng.integers(-1, 4, n))
    for figure in (found.accuracy, found.macro_f1, found.pair_accuracy, found.ndcg):
        for x in (figure.value, figure.low, figure.high):
            assert x is None or -1e-12 <= x <= 1 + 1e-12


def test_a_frame_scores_as_its_arrays():
    groups, gold, predicted, probs = world(7)
    frame = pl.DataFrame(
        {
            "group": [f"q{g}" for g in groups],
            "gold": [str(y) for y in gold],
            "predicted": [None if i < 20 else str(z) for i, z in enumerate(predicted)],
            "probs": [None if i < 20 else list(p) for i, p in enumerate(probs)],
            "short": [i % 2 == 0 for i in range(600)],
        }
    )
    predicted[:20], probs[:20] = metrics.FAILED, np.nan
    names = frame["group"].to_numpy()
    expected = scores(names, gold, predicted, probs, slices={"short": np.arange(600) % 2 == 0})
    found = metrics.evaluate(frame, TASK, slices=["short"], replicates=100)
    assert found == expected
    assert found.model_dump(mode="json")["accuracy"].keys() == {"value", "low", "high"}
    with pytest.raises(ValueError, match="no grade of the task"):
        metrics.evaluate(frame.with_columns(gold=pl.lit("9")), TASK)
