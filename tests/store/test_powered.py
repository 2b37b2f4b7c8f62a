"""Live quality: the interval covers, uses the model where it helps, and is never wider than gold alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.powered import powered_mean


def logs(rng, groups=400, level=0.8, knows=0.9):
    """Rows of queries that are right or wrong together, and a model that knows it with a probability."""
    sizes = rng.integers(1, 9, groups)
    codes = np.repeat(np.arange(groups), sizes)
    chance = np.clip(level + 0.2 * rng.standard_normal(groups), 0.02, 0.98)[codes]
    y = (rng.random(len(codes)) < chance).astype(float)
    told = np.where(rng.random(len(codes)) < knows, y, rng.random(len(codes)) < level)
    return codes, y, told


def covers(rng, n_gold, repeats, **world):
    """Share of worlds whose expected accuracy the interval holds, and its width beside gold alone."""
    codes, y, _ = logs(rng, groups=200_000, **world)
    target, hits, shares = y.mean(), 0, []
    for _ in range(repeats):
        codes, y, f = logs(rng, **world)
        scores = np.full(len(y), np.nan)
        drawn = rng.choice(len(y), n_gold, replace=False)
        scores[drawn] = y[drawn]
        found = powered_mean(scores, f, codes)
        hits += found.estimate.low <= target <= found.estimate.high
        shares.append((found.estimate.high - found.estimate.low) / (found.alone.high - found.alone.low))
    return hits / repeats, float(np.mean(shares)), max(shares)


@pytest.mark.parametrize(
    ("n_gold", "world"),
    [(150, {}), (60, {}), (100, {"level": 0.95}), (150, {"knows": 0.0}), (150, {"knows": 0.99})],
)
def test_the_interval_covers_and_is_never_wider(n_gold, world):
    share, width, widest = covers(np.random.default_rng(1), n_gold, 400, **world)
    assert share >= 0.925
    assert widest <= 1.05  # both are cut at 1; before that it is never wider
    if world.get("knows", 0.9) >= 0.9 and world.get("level", 0.8) < 0.9:
        assert width < 0.75


def test_unequal_chances_are_weighed_out():
    """Gold drawn where the model is unsure: plain means are wrong, the weighed estimate is not."""
    rng, hits, plain = np.random.default_rng(2), 0, []
    target = logs(rng, groups=200_000)[1].mean()
    for _ in range(300):
        codes, y, f = logs(rng)
        chance = np.where(f == 1, 0.05, 0.3)
        drawn = rng.random(len(y)) < chance
        found = powered_mean(np.where(drawn, y, np.nan), f, codes, inclusion=chance)
        hits += found.estimate.low <= target <= found.estimate.high
        plain.append(y[drawn].mean())
    assert hits / 300 >= 0.925
    assert target - np.mean(plain) > 0.1


@given(st.integers(0, 2**32 - 1), st.integers(5, 60))
@settings(max_examples=50, deadline=None)
def test_a_model_that_says_the_same_of_all_rows_changes_nothing(seed, n_gold):
    rng = np.random.default_rng(seed)
    codes, y, _ = logs(rng, groups=60)
    scores = np.full(len(y), np.nan)
    scores[rng.choice(len(y), n_gold, replace=False)] = 1.0
    found = powered_mean(scores, np.full(len(y), 0.7), codes)
    assert found.estimate.model_dump() == pytest.approx(found.alone.model_dump())
    assert found.weight == 0
    assert found.estimate.low < 0.99
    assert found.estimate.value == pytest.approx(1)


def test_gold_in_one_group_has_no_interval():
    with pytest.raises(ValueError, match="two groups"):
        powered_mean([1.0, np.nan], [1.0, 1.0], ["a", "b"])
