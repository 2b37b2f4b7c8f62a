import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piar.judging.threshold import confidence_curve, threshold_for
from store.calibration import fold_of
from store.errors import PiarError


def world(n_groups=200, rows=5, seed=0):
    """Over-confident answers: says c, is right with c squared."""
    draw = np.random.default_rng(seed)
    said = draw.uniform(0.3, 1, n_groups * rows)
    right = (draw.uniform(size=len(said)) < said**2).astype(float)
    return said, right, [f"g{i // rows}" for i in range(len(said))]


def test_calibration_undoes_overconfidence():
    said, right, groups = world()
    found = confidence_curve(said, right, groups)
    assert np.abs(found.apply(np.array([0.5, 0.7, 0.9])) - [0.25, 0.49, 0.81]).max() < 0.12
    assert abs(found.out_of_fold.mean() - right.mean()) < 0.02
    bins = np.digitize(found.out_of_fold, [0.25, 0.5, 0.75])
    for b in range(4):
        assert abs(found.out_of_fold[bins == b].mean() - right[bins == b].mean()) < 0.1


def test_calibration_rises():
    said, right, groups = world(seed=3)
    curve = confidence_curve(said, right, groups).apply(np.linspace(0, 1, 50))
    assert (np.diff(curve) >= 0).all()


def test_no_group_helps_to_calibrate_itself():
    said, right, groups = world(20)
    before = confidence_curve(said, right, groups).out_of_fold
    mine = np.array([g == "g3" for g in groups])
    flipped = np.where(mine, 1 - right, right)
    assert (confidence_curve(said, flipped, groups).out_of_fold[mine] == before[mine]).all()


def test_the_threshold_keeps_its_promise_on_fresh_data():
    said, right, groups = world(400)
    calibration = confidence_curve(said, right, groups)
    found = threshold_for(0.8, calibration.out_of_fold, right, groups)
    assert found.low <= found.precision <= found.high
    assert 0 < found.coverage < 1
    fresh, truth, _ = world(2000, seed=9)
    trusted = calibration.apply(fresh) >= found.value
    assert truth[trusted].mean() == pytest.approx(0.8, abs=0.04)
    assert found.low - 0.02 <= truth[trusted].mean() <= found.high + 0.02


def test_a_target_that_nobody_reaches_trusts_nothing():
    _, _, groups = world(30)
    found = threshold_for(0.99, np.full(150, 0.5), np.zeros(150), groups)
    assert (found.value, found.coverage, found.precision, found.reached) == (np.inf, 0, None, False)


def test_one_group_is_not_enough():
    with pytest.raises(PiarError, match="two groups"):
        confidence_curve(np.array([0.5, 0.6]), np.array([1.0, 0.0]), ["g", "g"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=10, max_size=60), st.integers(0, 5))
def test_a_group_is_in_one_fold(numbers, seed):
    groups = [f"g{n}" for n in [*numbers, 10, 11]]
    folds = fold_of(groups, seed)
    assert len({(g, f) for g, f in zip(groups, folds, strict=True)}) == len(set(groups))
