import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from store.decision_rule import RULES, DecisionRule, cross_decided, fit_rule, fitted_rule
from store.errors import PiarError
from store.gain_metrics import METRICS

VALUES = np.arange(4.0)
rows = st.lists(st.integers(0, 20), min_size=2, max_size=7).filter(any)


def world(seed, *, shy=0.0, groups=60, each=8, k=4):
    """Probabilities over ordered grades that follow truth; with `shy` the judge leans to the lowest."""
    draw = np.random.default_rng(seed)
    gold = draw.integers(0, k, groups * each)
    logits = -1.2 * (np.arange(k) - gold[:, None] - draw.normal(0, 0.7, len(gold))[:, None]) ** 2
    logits[:, 0] += shy
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return [f"g{i}" for i in np.repeat(np.arange(groups), each)], gold, probs / probs.sum(1, keepdims=True)


@given(rows, st.floats(0.05, 0.95))
def test_every_rule_gives_one_grade_whatever_the_scale_of_the_numbers(weights, threshold):
    p = np.array(weights, dtype=float)
    for name in RULES:
        rule = DecisionRule(name=name, threshold=threshold)
        [place] = rule.apply([p])
        assert 0 <= place < len(p)
        assert rule.apply([p / p.sum()]) == place
        assert rule.apply([np.full(len(p), np.nan)]) == -1


@given(rows)
def test_rules_are_what_their_definitions_say(weights):
    p = np.array(weights) / sum(weights)
    assert DecisionRule().apply([p]) == p.argmax()
    mean = float(p @ np.arange(len(p)))
    distance = np.abs(np.arange(len(p)) - mean)
    assert DecisionRule(name="expected").apply([p]) == np.flatnonzero(distance <= distance.min() + 1e-9)[0]
    places = [int(DecisionRule(name="cumulative", threshold=t).apply([p])[0]) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert places == sorted(places)  # one dial, from low grades to high ones
    median = places[2]
    assert p[: median + 1].sum() >= 0.5 - 1e-9 > p[:median].sum() - 1e-8


def test_certain_rows_get_their_grade_by_any_rule():
    for name in RULES:
        assert DecisionRule(name=name, threshold=0.3).apply(np.eye(5)).tolist() == list(range(5))


def test_a_shy_judge_is_put_right_by_its_threshold_on_groups_that_did_not_choose_it():
    groups, gold, probs = world(0, shy=3.5)
    metric = METRICS["qwk"]
    found = fit_rule(groups, gold, probs, metric, VALUES, ordered=True)
    assert found.kept is not None
    best = max(found.tried, key=lambda tried: tried.gain.mean)
    assert (found.kept.name, best.gain.above) == (best.name, True)
    fresh_groups, fresh, told = world(1, shy=3.5)
    assert kappa(fresh_groups, fresh, found.kept.apply(told)) > kappa(fresh_groups, fresh, told.argmax(1)) + 0.02
    assert found.value == pytest.approx(kappa(groups, gold, probs.argmax(1)))


def kappa(groups, gold, said):
    from store.gain_metrics import rows_of

    metric = METRICS["qwk"]
    return metric.value(metric.sums(rows_of(groups, gold, said, (gold == said).astype(float), VALUES.tolist())))


def test_the_likeliest_grade_stands_where_nothing_is_shown_to_help():
    groups, gold, probs = world(2)
    found = fit_rule(groups, gold, probs, METRICS["accuracy"], VALUES, ordered=True)
    assert (found.kept, {t.name for t in found.tried}) == (None, {"expected", "cumulative"})
    noise = np.random.default_rng(3).integers(0, 4, len(gold))
    assert fit_rule(groups, noise, probs, METRICS["accuracy"], VALUES, ordered=True).kept is None


def test_kinds_without_an_order_have_one_rule():
    groups, gold, probs = world(4)
    found = fit_rule(groups, gold, probs, METRICS["accuracy"], VALUES, ordered=False)
    assert (found.tried, found.kept) == ((), None)


def test_no_row_is_decided_by_a_threshold_of_its_own_group():
    groups, gold, probs = world(5, shy=2.0, groups=10)
    said = cross_decided("cumulative", groups, gold, probs, METRICS["qwk"], VALUES)
    own = np.array(groups) == "g3"
    changed = np.where(own, 3 - gold, gold)
    again = cross_decided("cumulative", groups, changed, probs, METRICS["qwk"], VALUES)
    assert (said[own] == again[own]).all()


def test_rows_without_probabilities_choose_nothing_and_one_group_cannot():
    groups, gold, probs = world(6, shy=2.0)
    holes = probs.copy()
    holes[::3] = np.nan
    whole = fitted_rule("cumulative", groups, gold, holes, METRICS["qwk"], VALUES)
    known = np.arange(len(gold)) % 3 > 0
    names = [g for g, k in zip(groups, known, strict=True) if k]
    assert whole == fitted_rule("cumulative", names, gold[known], probs[known], METRICS["qwk"], VALUES)
    with pytest.raises(PiarError, match="two groups"):
        fit_rule(["g"] * len(gold), gold, probs, METRICS["qwk"], VALUES, ordered=True)
    with pytest.raises(ValidationError):
        DecisionRule(name="cumulative", threshold=1.0)
