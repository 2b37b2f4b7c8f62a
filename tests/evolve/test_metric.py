"""A search goes by the metric that is chosen: the same figures as elsewhere, tested by group."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, ndcg_score

from piar.cli.render.evolve import event_line, evolve_view
from piar.evolve.ending import HEADLINES
from piar.evolve.guards import Paired
from piar.evolve.ledger import Ledger
from piar.evolve.metric import chosen
from piar.evolve.promotion import confirm
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import PromotionSettings
from piar.report.page import report as make_page
from store.errors import UsageError
from store.gain_metrics import METRICS, rows_of
from store.stats import paired_gain
from tests.worlds import SEED, TASK, WordReviser, WordTeacher, fill, loop_models, world

VALUES = [grade.value for grade in TASK.grades]
UNGUARDED = PromotionSettings(min_support=10_000)


def draw(seed=0, groups=18, size=6):
    """Groups, truth and the grades of two judges, some of the second's failed."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, groups * size)
    before, after = (np.where(rng.random(len(truth)) < p, truth, rng.integers(0, 3, len(truth))) for p in (0.3, 0.6))
    return np.repeat(np.arange(groups), size), truth, before, after


def sums(metric, group, truth, said):
    return metric.sums(rows_of(group, truth, said, (said == truth).astype(float), VALUES))


def gain(metric, group, truth, before, after):
    return metric.gain(sums(metric, group, truth, before), sums(metric, group, truth, after), seed=0)


def test_figures_are_those_of_scikit_learn():
    group, truth, before, after = draw()
    kappa, ndcg, accuracy = METRICS["qwk"], METRICS["ndcg"], METRICS["accuracy"]
    for said in (before, after):
        wanted = cohen_kappa_score(truth, said, weights="quadratic")
        assert kappa.value(sums(kappa, group, truth, said)) == pytest.approx(wanted)
        by_group = [ndcg_score([truth[group == g]], [said[group == g]]) for g in range(18)]
        assert ndcg.value(sums(ndcg, group, truth, said)) == pytest.approx(np.mean(by_group))
        assert accuracy.value(sums(accuracy, group, truth, said)) == np.mean(truth == said)
    found = gain(kappa, group, truth, before, after)
    told = [cohen_kappa_score(truth, said, weights="quadratic") for said in (before, after)]
    assert found.mean == pytest.approx(told[1] - told[0])
    assert found.low < found.mean < found.high


def test_a_gain_of_accuracy_is_that_of_every_other_page():
    group, truth, before, after = draw()
    assert gain(METRICS["accuracy"], group, truth, before, after) == paired_gain(before == truth, after == truth, group)


def test_what_is_better_by_one_metric_is_not_by_another():
    rng = np.random.default_rng(3)
    group, truth = np.repeat(np.arange(40), 9), np.tile([0, 1, 2] * 3, 40)
    near = np.where(rng.random(360) < 0.6, np.clip(truth + 1, 0, 2), truth)  # a grade too high, in order
    wild = np.where(rng.random(360) < 0.3, 2 - truth, truth)  # right more often, else upside down
    scores = [(said == truth).astype(float) for said in (near, wild)]
    data = Paired(group, truth, near, wild, *scores, {})
    passed = {
        name: confirm("b", "a", data, TASK, Ledger((), 0), UNGUARDED, 0, metric).passed
        for name, metric in METRICS.items()
    }
    assert passed == {"accuracy": True, "qwk": False, "ndcg": False}
    found = confirm("b", "a", data, TASK, Ledger((), 0), UNGUARDED, 0, METRICS["qwk"])
    assert "points of quadratic kappa on the holdout" in found.reason
    assert found.after > found.before
    assert found.scores[1] < found.scores[0]


def test_one_grade_for_everything_is_worth_nothing_by_kappa():
    group, truth, before, _ = draw()
    kappa = METRICS["qwk"]
    constant = np.ones_like(truth)
    assert kappa.value(sums(kappa, group, truth, constant)) == 0
    assert not gain(kappa, group, truth, before, constant).above
    alike = np.zeros_like(truth)
    assert kappa.value(sums(kappa, group, alike, alike)) == 0  # nothing to agree on beyond chance
    assert gain(kappa, group, alike, alike, alike).p_value == 1.0


@pytest.mark.parametrize("name", ["qwk", "ndcg"])
def test_a_search_goes_by_the_metric_that_is_chosen(tmp_path, name):
    store, journal = world(tmp_path)
    events = []
    settings = EvolveSettings(rounds=1, metric=name)
    report, standing = evolve(
        store, loop_models(WordTeacher(), WordReviser()), SEED, settings, journal=journal, on_event=events.append
    )
    journal.close()
    (tested,) = report.promotions
    assert (report.proposal, tested["metric"]) == (standing.id, name)
    assert tested["gain"]["mean"] == pytest.approx(tested["score"]["after"] - tested["score"]["before"])
    with store.read() as con:
        rows = con.execute(
            "select s.group_key, t.grade::int, v.grade::int from samples s join truth t using (sample_id) "
            "join verdict v using (sample_id) where s.split = 'test' and v.instruction = ?",
            [standing.id],
        ).fetchall()
    group, truth, said = (np.array(column) for column in zip(*rows, strict=True))
    metric = METRICS[name]
    assert report.test["gold"]["champion"]["score"] == pytest.approx(metric.value(sums(metric, group, truth, said)))
    told = " ".join(line.plain for e in events if (line := event_line(e)))
    assert f"the present instruction has {metric.words} " in told
    assert "points of accuracy" in report.detectable
    assert evolve_view(report, accepted=False)
    assert f"points of {metric.words} on the holdout" in tested["reason"]
    page = make_page(store, tmp_path / "report.html", current=SEED)
    assert page.headline == HEADLINES["proposed"]  # and no claim by another metric
    assert tested["reason"] in page.path.read_text()


def test_a_metric_that_the_task_cannot_have_is_refused(tmp_path):
    splits = ("train", "dev", "holdout") * 20
    store, journal = fill(tmp_path, [(f"q{i}", f"t{i}", split, str(i % 3)) for i, split in enumerate(splits)])
    models = loop_models(WordTeacher(), WordReviser())
    with pytest.raises(UsageError, match="dev has 0 of them"):
        evolve(store, models, SEED, EvolveSettings(metric="ndcg"), journal=journal)
    unordered = TASK.model_copy(update={"ordered": False})
    with pytest.raises(UsageError, match="ordered = false"):
        chosen("qwk", unordered, {}, {})
