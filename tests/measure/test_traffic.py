"""Live quality and drift of a project, against worlds whose truth is known."""

import json
import random

import numpy as np
import polars as pl
import pytest

from piar.cli import main
from piar.measure.live_logs import drift, estimate, judged, live
from piar.project.facade import Project
from piar.shop.world import make_shop
from store.draw import draw_queries
from store.errors import PiarError, UsageError
from store.importers import ImportMapping
from store.judges import Judge
from store.tables import numbered
from tests.documents import check
from tests.small_project import copy_of
from tests.worlds import fill


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


def test_the_verb_prints_what_its_schema_says(shop, capsys) -> None:
    assert main(["score", "--live", "split = 'pool'", "-C", str(shop.folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check("score", document)
    assert (document["gold"], document["drawn"]) == (120, 0)


def test_rows_that_a_queue_chose_do_not_count(shop) -> None:
    with shop.store.write() as con:
        con.execute(
            "update review_tasks set role = 'queue' where sample_id in (select min(sample_id) from review_tasks)"
        )
    assert shop.live("teacher", "split = 'pool'").found.gold == 119


def skewed_log(folder, queries: int = 240):
    """A log that a teacher has judged: right on frequent queries, often wrong on rare ones, as people say of each row.

    Returns:
        the store, the log (query, title, visits), and whether the teacher is right on each row.
    """
    ranks = np.repeat(np.arange(queries), 3)
    right = np.random.default_rng(0).random(len(ranks)) < np.where(ranks < 25, 0.95, 0.55)
    rows = [(f"q{i:03}", f"t{at}", str(3000 // (i + 1) + 1)) for at, i in enumerate(ranks)]
    log = pl.DataFrame(rows, orient="row", schema=["query", "title", "visits"])
    votes = [("1",) if one else ("0",) for one in right]
    store = fill(folder, [(query, title, "pool", None) for query, title, _ in rows], votes)[0]
    with store.write() as con:
        con.execute(
            "insert into verdicts by name select sample_id::varchar as key, sample_id, 'teacher:t' as judge, "
            "'i' as instruction, 0 as vote, '1' as grade, 'r' as run_id, now()::timestamp as created_at from samples"
        )
    return store, log, right


def test_over_many_draws_of_queries_the_weighed_estimate_is_that_of_the_whole_log(tmp_path) -> None:
    (store, log, right), teacher = skewed_log(tmp_path), Judge("teacher:t", "i")
    with store.write() as con:
        con.execute("insert into review_tasks select 'w', sample_id, 'ann', 'random', '', 0.5, 0 from samples")
    whole = judged(store, teacher, teacher, "true").drop("inclusion")
    rng, estimates, plain, covered, draws = np.random.default_rng(1), [], [], 0, 200
    for seed in range(draws):
        part, drawn = draw_queries(numbered(log), 60, "query", "visits", seed)
        rows = whole.join(drawn, on="query").with_columns(
            gold=pl.when(pl.Series(rng.random(len(part.frame)) < 0.5)).then("gold")
        )
        found = estimate(rows, store.task.symbols, "teacher:t", "true")
        estimates.append(found.found.estimate.value)
        covered += found.found.estimate.low <= right.mean() <= found.found.estimate.high
        plain.append(right[log["title"].is_in(part.frame["title"].implode()).to_numpy()].mean())
        assert found.stands_for == pytest.approx(len(log))
    assert np.mean(estimates) == pytest.approx(right.mean(), abs=3 * np.std(estimates) / np.sqrt(draws))
    assert np.mean(plain) > right.mean() + 0.05  # what the drawn rows would say if each counted once
    assert covered >= 0.93 * draws


def test_rows_taken_whole_count_once_each(shop, graded) -> None:
    before = graded.live("teacher", "split = 'pool'")
    with shop.store.write() as con:
        con.execute("update samples set inclusion = 1")
    after = shop.live("teacher", "split = 'pool'")
    assert after.found == before.found
    assert (before.drawn, after.drawn) == (0, 0)
    assert before.stands_for == before.found.rows


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
