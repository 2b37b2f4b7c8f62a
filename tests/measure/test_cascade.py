import numpy as np
import pytest

from piar.measure.cascade import Paid, Rows, Said, fit_cascade, rows_of, said
from store.errors import PiarError
from store.judges import Judge
from store.types import Verdict

STUDENT, TEACHER = Judge("student:s"), Judge("teacher:t", "i")
SYMBOLS = ("0", "1", "2")
NOISE = (0.0, 0.0)


def judged(draw, gold, effect, base, rise):
    """Grades that are right more often where they are surer; the effect of a group is shared by its rows."""
    sure = draw.uniform(0.34, 1, len(gold))
    right = draw.uniform(size=len(gold)) < 1 / (1 + np.exp(-(base + rise * (sure - 0.6) + effect)))
    return Said(np.where(right, gold, (gold + 1) % 3), sure, False)


def world(seed, groups=300, each=6, spread=1.0, student=(2.0, 8.0), teacher=(3.5, 4.0)):
    draw = np.random.default_rng(seed)
    names = np.repeat(np.arange(groups), each)
    gold = draw.integers(0, 3, len(names))
    rows = Rows([str(n) for n in range(len(names))], names, gold)
    shared = draw.normal(0, spread, (2, groups))
    hard = 0.6 * shared[0] + 0.8 * shared[1]  # what is hard for one is hard for the other, too
    return rows, [
        (STUDENT, judged(draw, gold, shared[0][names], *student)),
        (TEACHER, judged(draw, gold, hard[names], *teacher)),
    ]


def kept_promises(found, rows, judges):
    """Precision of each tier's rows on other rows."""
    left = np.ones(len(rows.ids), dtype=bool)
    for tier, (_, told) in zip(found.cascade.tiers, judges, strict=True):
        if tier.threshold is not None:
            taken = left & (told.confidence >= tier.threshold)
            yield (told.place == rows.gold)[taken].mean()
            left &= ~taken


def test_the_promised_precision_holds_on_fresh_groups():
    fresh, broken, certified = world(999, groups=8_000), 0, 0
    for seed in range(4):
        rows, judges = world(seed)
        found = fit_cascade(rows, judges, 0.95, SYMBOLS)
        held = list(kept_promises(found, *fresh))
        certified += len(held)
        broken += sum(share < 0.95 for share in held)
        for tier in found.cascade.tiers:
            assert tier.threshold is None or tier.precision.low >= 0.95
    assert (broken, certified >= 6) == (0, True)


def test_shares_costs_and_counts_add_up():
    rows, judges = world(1)
    took = {STUDENT.name: Paid(cost_usd=0.0, seconds=0.01), TEACHER.name: Paid(cost_usd=0.002, seconds=1.5)}
    found = fit_cascade(rows, judges, 0.95, SYMBOLS, took=took, prints={STUDENT.name: "f"})
    first, second = found.cascade.tiers
    assert first.share.value + second.share.value + found.cascade.people.value == pytest.approx(1)
    assert found.decided.value == pytest.approx(1 - found.cascade.people.value)
    assert found.usd_per_1000 == pytest.approx(2 * (1 - first.share.value))
    assert found.alone.usd_per_1000 == pytest.approx(2)
    counted = np.array(list(found.grades.values())).sum(axis=0)
    assert counted[1] / counted[0] == pytest.approx(found.precision.value)
    assert (first.fingerprint, first.seconds, second.fingerprint) == ("f", 0.01, "")
    unpriced = fit_cascade(rows, judges, 0.95, SYMBOLS, took={STUDENT.name: Paid(cost_usd=0.0)})
    assert unpriced.usd_per_1000 is None


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (0.999, {}),
        (0.95, {"groups": 1, "each": 900}),
        (0.95, {"groups": 9}),
        (0.95, {"student": (0, 0), "teacher": (0, 0)}),
    ],
)
def test_where_nothing_can_be_shown_all_rows_are_for_people(target, shape):
    found = fit_cascade(*world(2, **shape), target, SYMBOLS)
    assert [tier.threshold for tier in found.cascade.tiers] == [None, None]
    assert (found.decided.value, found.cascade.people.value) == (0.0, 1.0)
    assert found.precision.value is None
    assert set(found.surest) == {STUDENT.name, TEACHER.name}


def test_a_judge_without_probabilities_decides_all_that_it_grades_or_nothing(toys):
    ids = toys.sql("select sample_id::varchar as sample_id from samples where split = 'test' order by title")[
        "sample_id"
    ].to_list()
    toys.store.record_verdicts([Verdict("", ids[0], "teacher:quiet", "i", 0, "1")], "r")
    rows = rows_of(toys.store, "test")
    told = said(toys.store, Judge("teacher:quiet", "i"), rows, "test")
    assert told.silent
    assert sorted(told.place.tolist()) == [-1, 1]
    assert np.isnan(told.confidence).tolist() == (told.place < 0).tolist()
    with pytest.raises(PiarError, match="has graded no row"):
        said(toys.store, Judge("teacher:absent", "i"), rows, "test")
    with pytest.raises(PiarError, match="nothing can be certified"):
        rows_of(toys.store, "holdout")
    everyone, judges = world(3)
    place = np.where(np.arange(len(everyone.gold)) % 100, everyone.gold, (everyone.gold + 1) % 3)
    quiet = Said(place, np.ones(len(place)), True)
    found = fit_cascade(everyone, [judges[0], (TEACHER, quiet)], 0.95, SYMBOLS)
    assert (found.cascade.tiers[1].threshold, found.cascade.people.value) == (1.0, 0.0)


def test_rows_without_a_grade_are_decided_by_nobody():
    rows, judges = world(4)
    holes = np.arange(len(rows.ids)) % 4 == 0
    silent = [(j, Said(np.where(holes, -1, t.place), np.where(holes, np.nan, t.confidence), False)) for j, t in judges]
    found = fit_cascade(rows, silent, 0.9, SYMBOLS)
    assert found.cascade.people.value >= 0.25
    assert found.decided.value > 0.3
