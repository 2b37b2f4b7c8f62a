import json

import numpy as np
import pytest

from store.calibrated import calibrated_relation, calibrated_verdicts, kept, kept_rule
from store.calibration import CARD, Calibration, fitted
from store.decision_rule import DecisionRule
from store.errors import PiarError
from store.judges import Judge
from store.types import Verdict
from tests.small_project import small_project

LEANS = Calibration(strategy="bias", temperature=2.0, bias=(0.0, 1.5), rows=9, groups=3)
TEACHER = Judge("teacher:m", "i")
PROBS = {
    "red ball": (0.8, 0.2),
    '=HYPERLINK("http://x","y")': (0.99, 0.01),
    "-5 degrees": (float("nan"), 0.4),
    "unseen kite": (0.5,),
}


@pytest.fixture
def project(tmp_path):
    made = small_project(tmp_path / "toys")
    ids = dict(made.sql("select title, sample_id from samples").rows())
    verdicts = [Verdict("", ids[t], TEACHER.name, TEACHER.instruction, 0, "0", p) for t, p in PROBS.items()]
    verdicts.append(Verdict("", ids["red ball"], TEACHER.name, TEACHER.instruction, 1, "1", (0.8, 0.2)))  # a draw
    verdicts.append(Verdict("", ids["red ball"], "teacher:other", "i", 0, "0", (0.8, 0.2)))
    made.store.record_verdicts(verdicts, "r")
    return made


def keep(project, calibration, judge=TEACHER):
    detail = {"judge": judge.name, "instruction": judge.instruction, "calibration": calibration}
    run = project.store.start_run("calibrate", {})
    project.store.finish_run(run, "done", 0.0, detail)


def read(project, judges):
    with project.store.read() as con:
        relation = calibrated_relation(con, project.store, "verdict", judges)
        rows = con.execute(
            f"select title, judge, vote, grade, probs from {relation} v join samples using (sample_id) order by all"
        ).fetchall()
    return {(title, judge, vote): (grade, probs) for title, judge, vote, grade, probs in rows}


def test_verdicts_are_read_through_what_was_kept_last_and_stay_raw_in_the_store(project):
    before = read(project, [TEACHER])
    keep(project, LEANS.model_dump(mode="json"))
    after = read(project, [TEACHER])
    expected = LEANS.apply([PROBS["red ball"]])[0]
    assert after["red ball", "teacher:m", 0] == ("1", pytest.approx(expected.tolist(), abs=1e-6))
    assert after["red ball", "teacher:m", 1][0] == "1"  # a vote that was not the likeliest grade stays as drawn
    assert after['=HYPERLINK("http://x","y")', "teacher:m", 0][0] == "0"
    for untouched in [
        ("-5 degrees", "teacher:m", 0),
        ("unseen kite", "teacher:m", 0),
        ("red ball", "teacher:other", 0),
    ]:
        assert str(after[untouched]) == str(before[untouched])
    assert str(read(project, [Judge("teacher:m", "another")])) == str(before)
    keep(project, None)
    assert kept(project.store, TEACHER) is None
    assert str(read(project, [TEACHER])) == str(before)


def test_a_curve_goes_through_sql_as_well(project):
    draw = np.random.default_rng(0)
    said = draw.dirichlet([1, 1], 60)
    curve = fitted("isotonic", [f"g{i % 9}" for i in range(60)], draw.integers(0, 2, 60), said)
    keep(project, curve.model_dump(mode="json"))
    _, probs = read(project, [TEACHER])["red ball", "teacher:m", 0]
    assert probs == pytest.approx(curve.apply([PROBS["red ball"]])[0].tolist(), abs=1e-6)


def test_verdicts_of_no_store_come_out_as_those_of_sql(project):
    keep(project, LEANS.model_dump(mode="json"))
    by_sql = read(project, [TEACHER])
    given = [Verdict("", t, "j", "", 0, "0", p) for t, p in PROBS.items() if len(p) == 2]
    given += [Verdict("", "failed", "j", "", 0, None), Verdict("", "silent", "j", "", 0, "0")]
    found = calibrated_verdicts(given, LEANS, ("0", "1"))
    assert found[-2:] == given[-2:]
    for verdict in found[:2]:
        grade, probs = by_sql[verdict.sample_id, "teacher:m", 0]
        assert (verdict.grade, list(verdict.probs)) == (grade, pytest.approx(probs, abs=1e-6))


def test_a_students_calibration_is_in_its_folder(project):
    judge = Judge("student:students/a")
    assert kept(project.store, judge) is None  # its verdicts outlive the folder
    folder = project.folder / "students" / "a"
    folder.mkdir(parents=True)
    (folder / CARD).write_text(json.dumps({"calibration": LEANS.model_dump(mode="json")}))
    assert kept(project.store, judge) == LEANS
    (folder / CARD).write_text(json.dumps({"calibration": {"strategy": "magic"}}))
    with pytest.raises(PiarError, match="cannot be read"):
        kept(project.store, judge)
    (folder / CARD).write_text("{}")
    assert kept(project.store, judge) is None


def test_a_calibration_for_other_grades_is_refused(project):
    keep(project, Calibration(strategy="bias", bias=(0.0, 0.0, 0.0)).model_dump(mode="json"))
    with pytest.raises(PiarError, match="3 grades, not 2"):
        kept(project.store, TEACHER)


def test_a_students_rule_gives_the_grade_of_calibrated_probabilities(project):
    judge, folder = Judge("student:students/a"), project.folder / "students" / "a"
    ids = dict(project.sql("select title, sample_id from samples").rows())
    told = [("red ball", "0", (0.8, 0.2)), ("-5 degrees", "1", (0.8, 0.2)), ("unseen kite", "0", (float("nan"), 0.4))]
    project.store.record_verdicts([Verdict("", ids[t], judge.name, "", 0, g, p) for t, g, p in told], "r")
    folder.mkdir(parents=True)
    for calibration in (None, LEANS):
        rule = DecisionRule(name="cumulative", threshold=0.85)
        card = {"rule": rule.model_dump(), "calibration": calibration and calibration.model_dump(mode="json")}
        (folder / CARD).write_text(json.dumps(card))
        after = read(project, [judge])
        grade, probs = after["red ball", judge.name, 0]
        assert grade == "1"  # the lowest has less than .85
        assert probs == pytest.approx((LEANS.apply([told[0][2]])[0] if calibration else told[0][2]), abs=1e-6)
        assert after["-5 degrees", judge.name, 0][0] == "1"  # was not the likeliest: it stays
        assert after["unseen kite", judge.name, 0][0] == "0"
    assert kept_rule(project.store, TEACHER) is None
    (folder / CARD).write_text('{"rule": {"name": "guess"}}')
    with pytest.raises(PiarError, match="decision rule of student:students/a cannot be read"):
        read(project, [judge])
