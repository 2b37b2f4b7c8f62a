"""Live quality and drift of a project, against worlds whose truth is known."""

import random

import polars as pl
import pytest

from piar.measure.live_logs import drift, live
from piar.project.facade import Project
from piar.shop.world import make_shop
from store.errors import PiarError, UsageError
from store.importers import ImportMapping
from store.judges import Judge
from tests.small_project import copy_of


def imported(project, name, pairs) -> None:
    path = project.folder / f"{name}.csv"
    pairs.select("query", "title").write_csv(path)
    project.import_([path], ImportMapping(group="query", source=name))


@pytest.fixture(scope="module")
def graded(one_shop, tmp_path_factory) -> Project:
    """A project with a month of logs that the teacher has judged, and 120 random rows that people graded rightly."""
    project = copy_of(one_shop, tmp_path_factory.mktemp("traffic"))
    world = make_shop(600, 7)
    imported(project, "logs", world.pairs)
    project.label()
    truth = dict(world.answers.select("sample_id", "true_grade").iter_rows())
    ids = project.sql("select sample_id::varchar as id from samples where split = 'pool' order by id")["id"].to_list()
    drawn = random.Random(0).sample(ids, 120)
    with project.store.write() as con:
        for sample in drawn:
            con.execute(
                "insert into review_tasks values ('w1', ?, 'ann', 'random', '', ?, 0)", [sample, 120 / len(ids)]
            )
            con.execute(
                "insert into labels (label_id, sample_id, source, annotator, grade, batch, run_id, created_at) "
                "values (uuid(), ?, 'human', 'ann', ?, 'w1', 'r', now()::timestamp)", [sample, truth[sample]],
            )  # fmt: skip
    return project


@pytest.fixture
def shop(graded, tmp_path) -> Project:
    return copy_of(graded, tmp_path)


def test_the_estimate_is_near_the_truth_that_only_the_simulation_knows(shop) -> None:
    found = shop.live("teacher", "split = 'pool'")
    said = shop.sql(
        "select sample_id::varchar as sample_id, grade from verdict join samples using (sample_id) where split = 'pool'"
    )
    answers = make_shop(600, 7).answers
    both = said.join(answers, on="sample_id")
    true = (both["grade"] == both["true_grade"]).mean()
    estimate = found.found.estimate
    assert found.found.gold == 120
    assert found.found.rows == len(both)
    assert estimate.low < true < estimate.high
    assert estimate.high - estimate.low <= 1.02 * (found.found.alone.high - found.found.alone.low)


def test_rows_that_a_queue_chose_do_not_count(shop) -> None:
    with shop.store.write() as con:
        con.execute(
            "update review_tasks set role = 'queue' where sample_id in (select min(sample_id) from review_tasks)"
        )
    assert shop.live("teacher", "split = 'pool'").found.gold == 119


def test_it_says_what_is_missing(shop) -> None:
    teacher = Judge("teacher:rulebook", shop.instruction().id)
    with pytest.raises(PiarError, match="random rows of fewer than two"):
        live(shop.store, teacher, teacher, "split = 'train'")
    with pytest.raises(PiarError, match="judged no row"):
        live(shop.store, teacher, teacher, "false")
    with pytest.raises(UsageError, match="--live"):
        live(shop.store, teacher, teacher, "nonsense = 1")
    with pytest.raises(UsageError, match="does not run live"):
        shop.live("baseline:majority", "true")


def test_logs_of_the_same_kind_do_not_drift_and_others_do(one_shop, tmp_path) -> None:
    project = copy_of(one_shop, tmp_path)
    teacher = Judge("teacher:rulebook", project.instruction().id)
    imported(project, "january", make_shop(400, 1).pairs)
    project.label()
    assert drift(project.store, teacher) is None
    imported(project, "february", make_shop(400, 2).pairs)
    project.label()
    assert drift(project.store, teacher).p_value > 0.05
    assert not any("logs" in one.what for one in project.status().stale)
    other = make_shop(800, 3)
    perfect = other.pairs.join(other.answers, on="pair").filter(pl.col("true_grade") == "3")
    imported(project, "march", perfect)
    project.label()
    found = drift(project.store, teacher)
    assert found.source == "march"
    assert found.p_value < 0.01
    before, now, difference = found.shares["3"]
    assert found.most == "3"
    assert 0 < difference.low < now - before < difference.high
    assert sum(share[1] for share in found.shares.values()) == pytest.approx(1)
    assert [one for one in project.status().stale if "march" in one.why]


def test_the_report_shows_the_newest_estimate_and_whether_grades_have_moved(shop) -> None:
    shop.live("teacher", "split = 'pool'")
    found = shop.live("teacher", "split = 'pool'").found
    text = shop.report().path.read_text(encoding="utf-8")
    section = text.split('<section id="logs">')[1].split("</section>")[0]
    assert section.count("<td>split = &#39;pool&#39;</td>") == 1
    assert f"{100 * found.estimate.low:.1f} to {100 * found.estimate.high:.1f}" in section
    assert "Have the grades moved?" not in section  # one import of logs: nothing to compare with
    imported(shop, "later", make_shop(300, 11).pairs)
    shop.label()
    text = shop.report().path.read_text(encoding="utf-8")
    assert "The teacher's grades of later beside" in text
