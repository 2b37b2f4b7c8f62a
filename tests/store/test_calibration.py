import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.calibration import STRATEGIES, Calibration, cross_fitted, fit, fitted, prior
from store.errors import PiarError
from store.probability_scores import nll_of


def world(groups=60, rows=8, k=4, seed=0, temperature=1.0, bias=(0.0, 0.0, 0.0, 0.0)):
    """Truth drawn from honest probabilities; what a judge says of it is sharper and leans to some grades."""
    draw = np.random.default_rng(seed)
    honest = draw.dirichlet(np.full(k, 0.6), groups * rows)
    gold = np.array([draw.choice(k, p=p) for p in honest])
    said = np.exp(np.log(honest + 1e-9) / temperature + np.array(bias))
    return [f"g{i // rows}" for i in range(len(gold))], gold, said / said.sum(1, keepdims=True), honest


def test_a_judge_that_leans_and_is_too_sure_is_put_right():
    groups, gold, said, honest = world(temperature=0.3, bias=(4.0, 0, 0, -2))
    found = fit(groups, gold, said)
    assert found.kept.strategy == "bias"
    by_name = {t.strategy: t for t in found.tried}
    assert by_name["bias"].gain.above
    assert by_name["bias"].accuracy_gain.above
    assert by_name["bias"].nll.value == pytest.approx(nll_of(honest, gold).mean(), abs=0.05)
    assert np.abs(found.kept.apply(said) - honest).mean() < 0.05


def test_a_temperature_alone_never_changes_the_grade():
    groups, gold, said, _ = world(temperature=0.2)
    after = cross_fitted("temperature", groups, gold, said)
    assert (after.argmax(1) == said.argmax(1)).all()
    assert fit(groups, gold, said).kept.strategy in ("temperature", "bias")


def test_a_curve_wins_where_no_temperature_can_help():
    groups, gold, honest, _ = world(groups=150, k=2, bias=(0.0, 0.0))
    bent = np.where(honest[:, :1] > 0.5, 0.9 + 0.1 * (honest[:, :1] - 0.5), 0.1 * honest[:, :1])
    said = np.concatenate([bent, 1 - bent], axis=1)
    assert fit(groups, gold, said).kept.strategy == "isotonic"


def test_honest_probabilities_are_left_alone():
    kept = [fit(*world(groups=40, rows=5, seed=seed)[:3]).kept for seed in range(15)]
    assert sum(one is not None for one in kept) <= 2


def test_a_judge_that_knows_nothing_keeps_its_grades():
    """Two grades are as common, one in each half of the groups: what is learnt of the others is wrong of one's own."""
    draw = np.random.default_rng(0)
    gold = np.repeat(3 * (np.arange(40) % 2), 10)
    groups = [f"g{i // 10}" for i in range(400)]
    said = draw.dirichlet([1.0, 3.0, 2.0, 6.0], 400)
    found = fit(groups, gold, said)
    bias = next(t for t in found.tried if t.strategy == "bias")
    assert bias.gain.above
    assert bias.accuracy_gain.mean < 0
    assert found.kept is None or found.kept.strategy == "temperature"


def test_few_groups_prove_nothing():
    groups, gold, said, _ = world(groups=4, rows=40, temperature=0.3, bias=(4.0, 0, 0, -2))
    assert fit(groups, gold, said).kept is None


def test_no_group_helps_to_calibrate_itself():
    groups, gold, said, _ = world(groups=12, temperature=0.4)
    mine = np.array([g == "g3" for g in groups])
    other = np.where(mine, (gold + 1) % 4, gold)
    for strategy in STRATEGIES:
        a, b = (cross_fitted(strategy, groups, y, said)[mine] for y in (gold, other))
        assert (a == b).all()


def test_rows_without_probabilities_are_passed_over_and_stay_without():
    groups, gold, said, _ = world(temperature=0.4)
    holes = said.copy()
    holes[::3] = np.nan
    kept = np.arange(len(gold)) % 3 != 0
    found = fit(groups, gold, holes)
    assert found.rows == kept.sum()
    alone = fitted("bias", [g for g, k in zip(groups, kept, strict=True) if k], gold[kept], said[kept])
    assert fitted("bias", groups, gold, holes) == alone
    assert (np.isnan(alone.apply(holes)).all(1) == ~kept).all()
    with pytest.raises(PiarError, match="no probabilities"):
        fit(groups, gold, np.full(said.shape, np.nan))


def test_the_prior_is_what_a_batch_leans_to():
    said = world(bias=(6.0, 0, 0, 0))[2]
    found = prior(said)
    assert (said.argmax(1) == 0).mean() > 0.9
    assert np.bincount(found.apply(said).argmax(1), minlength=4).min() > 40
    high = said.min(axis=1) > 1e-5
    ratio = (found.apply(said) / said * said.mean(0))[high]
    assert ratio == pytest.approx(np.repeat(ratio[:, :1], 4, axis=1))  # each grade relative to its mean
    assert (found.rows, found.temperature) == (len(said), 1)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(STRATEGIES)), st.integers(2, 12), st.integers(0, 99))
def test_calibrated_rows_are_distributions_whatever_is_said(strategy, k, seed):
    draw = np.random.default_rng(seed)
    said = np.eye(k)[draw.integers(0, k, 40)] if seed % 2 else draw.dirichlet(np.full(k, 0.1), 40)
    gold = draw.integers(0, max(1, k - 1), 40)  # a grade that is never true
    found = fitted(strategy, [f"g{i % 5}" for i in range(40)], gold, said)
    after = found.apply(said)
    assert after.sum(1) == pytest.approx(np.ones(40))
    assert (after >= 0).all()
    assert Calibration.model_validate_json(found.model_dump_json()).apply(said) == pytest.approx(after)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["temperature", "bias"]), st.integers(2, 12), st.integers(10, 200), st.integers(0, 999))
def test_what_is_fitted_is_never_less_likely_on_its_own_rows(strategy, k, rows, seed):
    draw = np.random.default_rng(seed)
    said = np.maximum(draw.dirichlet(np.full(k, 10 ** draw.uniform(-2, 1)), rows), 1e-6)
    gold = draw.integers(0, k, rows) if seed % 3 else said.argmax(1)
    found = fitted(strategy, [f"g{i % 7}" for i in range(rows)], gold, said)
    raw = said / said.sum(1, keepdims=True)
    assert nll_of(found.apply(said), gold).sum() <= nll_of(raw, gold).sum() + 1e-6


def test_other_grades_than_it_was_fitted_for_are_refused():
    with pytest.raises(PiarError, match="4 grades, not 3"):
        prior(world()[2]).apply(np.full((2, 3), 1 / 3))
