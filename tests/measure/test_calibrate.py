import json

import numpy as np
import polars as pl
import pytest

from piar.cli.app import run
from piar.cli.render.probabilities import calibration_view
from piar.cli.verb import Answer, show
from piar.judging.forecast import Receipt
from piar.measure.calibrate import after, calibrate
from piar.measure.calibrate import keep as keep_found
from piar.measure.score import measure
from store.calibrated import kept
from store.calibration import Calibration
from store.errors import PiarError, UsageError
from store.judges import Judge
from store.types import Verdict
from tests.documents import check
from trainers.checkpoint import StudentCard, read_card

LEAN = Judge("teacher:lean", "i")


def say(project, judge=LEAN, *, splits=("train", "dev", "test"), sharp=3.0, lean=9.0):
    """Probabilities that follow truth, too sure, and lean to the last grade."""
    draw = np.random.default_rng(0)
    rows = project.store.frame(
        "select s.sample_id, g.position from samples s join truth t using (sample_id) "
        "join grades g on g.symbol = t.grade "
        "where list_contains(?, s.split) order by s.sample_id",
        [list(splits)],
    ).rows()
    symbols = project.task.symbols
    verdicts = []
    for key, truth in rows:
        logits = draw.normal(0, 1, len(symbols)) + 1.5 * (np.arange(len(symbols)) == truth)
        logits = sharp * logits
        logits[-1] += lean
        p = np.exp(logits - logits.max())
        p /= p.sum()
        verdicts.append(Verdict("", key, judge.name, judge.instruction, 0, symbols[int(p.argmax())], tuple(p)))
    project.store.record_verdicts(verdicts, "r")


def keep(project, found):
    run_id = project.store.start_run("calibrate", {})
    detail = {"judge": LEAN.name, "instruction": LEAN.instruction, "calibration": found.kept.model_dump(mode="json")}
    project.store.finish_run(run_id, "done", 0.0, detail)


def test_a_leaning_teacher_is_put_right_on_rows_that_did_not_calibrate_it(shop):
    say(shop)
    found = calibrate(shop.store, LEAN)
    assert found.kept.strategy in ("bias", "isotonic")
    assert found.splits == ("train", "dev")
    assert after(shop.store, LEAN, "test") is None
    keep(shop, found)
    raw, test = measure(shop.store, LEAN, "test"), after(shop.store, LEAN, "test")
    assert not test.out_of_fold
    assert test.gain.above
    assert test.accuracy_gain.mean > 0.1
    assert test.ece.value < raw.scores.ece.value / 2
    assert test.probabilities.nll.value == pytest.approx(raw.probabilities.nll.value - test.gain.mean)
    assert measure(shop.store, LEAN, "test") == raw  # raw probabilities stay
    assert after(shop.store, LEAN, "dev").out_of_fold


def test_test_rows_calibrate_nothing(shop):
    say(shop, splits=("test",))
    with pytest.raises(PiarError, match="no answer outside the test split"):
        calibrate(shop.store, LEAN)
    say(shop, splits=("dev",))
    batch = calibrate(shop.store, LEAN, "prior").kept
    [dev] = shop.sql("select count(*) from samples where split = 'dev'").row(0)
    assert batch.rows == dev


def test_without_truth_the_prior_is_kept_and_called_unproven(shop, capsys):
    with shop.store.write() as con:
        con.execute("delete from labels")
    assert run(["-C", str(shop.folder), "calibrate"]) == 0
    told = capsys.readouterr().out
    assert "unproven" in " ".join(told.split())
    judge = Judge("teacher:rulebook", shop.adopt_instruction().id)
    assert kept(shop.store, judge).strategy == "prior"
    assert run(["-C", str(shop.folder), "calibrate", "--strategy", "none"]) == 0
    assert kept(shop.store, judge) is None


def test_a_judge_is_calibrated_scored_and_trusted_by_command(shop, capsys):
    folder = ["-C", str(shop.folder)]
    assert run([*folder, "calibrate", "--strategy", "isotonic", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check("calibrate", document)
    assert document["kept"]["strategy"] == "isotonic"
    assert {t["strategy"] for t in document["fit"]["tried"]} == {"prior", "temperature", "bias", "isotonic"}
    assert run([*folder, "score", "--split", "dev", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    check("score", scored)
    assert (scored["calibrated"]["strategy"], scored["calibrated"]["out_of_fold"]) == ("isotonic", True)
    assert scored["accuracy"]["value"] is not None
    assert run([*folder, "score", "--split", "dev"]) == 0
    assert "a rising curve for each grade" in " ".join(capsys.readouterr().out.split())


def test_a_correction_that_leaves_one_grade_for_every_row_is_told(shop, capsys):
    draw = np.random.default_rng(0)
    rows = shop.sql("select sample_id from samples where split in ('train', 'dev') order by all")["sample_id"].to_list()
    guesses = draw.dirichlet(np.full(len(shop.task.symbols), 1_000), len(rows))  # nothing is known, all grades are said
    verdicts = [
        Verdict("", str(key), LEAN.name, LEAN.instruction, 0, shop.task.symbols[p.argmax()], tuple(p), None)
        for key, p in zip(rows, guesses, strict=True)
    ]
    shop.store.record_verdicts(verdicts, "r")
    found = calibrate(shop.store, LEAN, "bias")
    assert found.says_only in shop.task.symbols
    assert calibrate(shop.store, LEAN, "temperature").says_only is None
    show(Answer({}, calibration_view(found, Receipt(0, 0, {}, 0, 0, 0, 0.0, 0.0))), as_json=False)
    assert f"says {found.says_only} of every one" in " ".join(capsys.readouterr().out.split())


def test_a_judge_without_probabilities_is_told_apart(shop, capsys):
    silent = Judge("teacher:silent", "i")
    ids = shop.sql("select sample_id from samples where split = 'dev'")["sample_id"].to_list()
    shop.store.record_verdicts([Verdict("", key, silent.name, "i", 0, "0") for key in ids], "r")
    with pytest.raises(PiarError, match="no probabilities"):
        calibrate(shop.store, silent)


def test_what_a_student_learns_from_is_calibrated(shop, tmp_path):
    judge = Judge(LEAN.name, shop.adopt_instruction().id)
    say(shop, judge)
    found = calibrate(shop.store, judge)
    raw = dict(shop.store.frame("select sample_id, probs from verdicts where judge = ?", [judge.name]).rows())
    detail = {"judge": judge.name, "instruction": judge.instruction, "calibration": found.kept.model_dump(mode="json")}
    shop.store.finish_run(shop.store.start_run("calibrate", {}), "done", 0.0, detail)
    shop.mine()
    shop.curriculum_export(tmp_path / "shards")
    rows = pl.concat([pl.read_parquet(path) for path in sorted((tmp_path / "shards").glob("**/*.parquet"))])
    told = {key: probs for key, probs in rows.select("sample_id", "grade_probs").iter_rows() if probs is not None}
    assert len(told) > 50
    expected = found.kept.apply([raw[key] for key in told])
    assert np.array(list(told.values())) == pytest.approx(expected, abs=1e-5)
    assert np.abs(np.array([raw[key] for key in told]) - expected).max() > 0.1


def test_votes_are_asked_until_the_calibrated_confidence_is_high(shop):
    shy = Calibration(strategy="temperature", temperature=9.0, bias=(0.0,) * len(shop.task.symbols))
    where = "split = 'dev'"
    assert shop.forecast_label(where, votes=3, sure=0.5).asked > 0
    report, _ = shop.label(where, votes=3, sure=0.5)
    judge = Judge("teacher:rulebook", shop.adopt_instruction().id)
    assert shop.forecast_label(where, votes=3, sure=0.5).asked == 0
    detail = {"judge": judge.name, "instruction": judge.instruction, "calibration": shy.model_dump(mode="json")}
    shop.store.finish_run(shop.store.start_run("calibrate", {}), "done", 0.0, detail)
    more = shop.forecast_label(where, votes=3, sure=0.99)
    assert more.asked >= report.labelled  # nobody is sure any more


def test_a_students_rule_is_chosen_for_the_metric_and_kept_in_its_folder(shop):
    judge, folder = Judge("student:students/a"), shop.folder / "students" / "a"
    folder.mkdir(parents=True)
    (folder / "student.json").write_text(StudentCard(task=shop.task).model_dump_json())
    say(shop, judge, lean=5.0)
    raw = calibrate(shop.store, judge, "none", rule="cumulative", metric="qwk")
    assert (raw.kept, raw.rule.name, raw.rule.metric) == (None, "cumulative", "qwk")
    assert raw.rule.groups == raw.rules.groups > 1
    keep_found(shop.store, raw)
    assert read_card(folder).rule == raw.rule
    test, dev = after(shop.store, judge, "test"), after(shop.store, judge, "dev")
    assert (test.strategy, test.rule, test.out_of_fold, dev.out_of_fold) == (None, "cumulative", False, True)
    assert test.accuracy_gain.mean > 0.05
    keep_found(shop.store, calibrate(shop.store, judge, "none"))
    assert after(shop.store, judge, "test") is None
    with pytest.raises(UsageError, match="Only a student"):
        calibrate(shop.store, LEAN, rule="expected")
