"""From labelled rows to a document, and by it through a pool: by command, with a student that is a script."""

import json
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from piar.cli.app import run
from piar.judging.parquet_files import Pool
from piar.project.cascading import SecondJudge
from piar.project.facade import Project
from piar.project.labelling import pool_of
from store.cascade import read_cascade
from store.decision_rule import DecisionRule
from store.errors import PiarError, UsageError
from store.task import Grade
from tests.cascade_world import RULE, STUDENT, FakeStudent, lamps, titles
from tests.documents import check
from tests.small_project import copy_of
from trainers.checkpoint import keep_calibration


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        project = lamps(tmp_path_factory.mktemp("one") / "world", patch)
        assert run(["-C", str(project.folder), "cascade", "--tiers", f"{STUDENT},teacher"]) == 0
        yield project


@pytest.fixture
def project(fitted, tmp_path):
    return copy_of(fitted, tmp_path)


def pool(folder, rows=60):
    made = titles(rows, seed=7)
    table = {"query": [row[0] for row in made], "title": [row[1] for row in made], "true": [row[2] for row in made]}
    pq.write_table(pa.table(table), folder / "logs.parquet")
    return ["--judge", STUDENT, "--pool", str(folder / "logs.parquet"), "-o", str(folder / "graded")]


def graded(folder):
    return pq.read_table(folder / "graded" / "logs.parquet").to_pylist()


def test_a_cascade_is_fitted_forecast_and_kept_by_command(project, capsys):
    tiers = ["-C", str(project.folder), "cascade", "--tiers", f"{STUDENT},teacher", "--json"]
    assert run([*tiers, "--dry-run"]) == 0
    forecast = json.loads(capsys.readouterr().out)
    check("cascade", forecast)
    assert forecast["asked"] == 0  # dev is known by now
    assert run(tiers) == 0
    document = json.loads(capsys.readouterr().out)
    check("cascade", document)
    kept = read_cascade(project.folder / "cascade.json")
    assert kept.model_dump(mode="json") == document["fitted"]["cascade"]
    student, teacher = kept.tiers
    assert (student.name, teacher.name, document["receipt"]["calls"]) == ("student", "teacher", 0)
    assert 0.4 < student.share.value < 0.6  # the plain titles
    assert min(student.precision.low, teacher.precision.low) >= 0.95
    (project.folder / "cascade.json").unlink()
    assert run([*tiers[:-1], "--precision", "0.999"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert f"99.9 % for any confidence of {STUDENT}; its surest tenth is 100.0" in told
    assert "people 100.0" in told


@pytest.mark.parametrize("symbols", [("1", "0"), ("0", "1", "2"), ("no", "yes")])
def test_a_student_of_other_grades_or_of_another_order_is_no_judge_here(project, monkeypatch, capsys, symbols):
    grades = tuple(Grade(symbol=symbol, name=symbol, value=i) for i, symbol in enumerate(symbols))
    taught = FakeStudent(project.task.model_copy(update={"grades": grades}))
    monkeypatch.setattr("trainers.students.load_student", lambda *path, **how: taught)
    for verb in (["score", "--split", "dev", "--judge", STUDENT], ["audit", STUDENT]):
        assert run(["-C", str(project.folder), *verb]) == 1
        assert f"was taught the grades {', '.join(symbols)}" in " ".join(capsys.readouterr().err.split())


def test_rows_of_a_pool_are_decided_by_whoever_is_sure(project, tmp_path, capsys):
    command = ["-C", str(project.folder), "score", *pool(tmp_path), "--cascade", "cascade.json"]
    assert run([*command, "--dry-run", "--json"]) == 0
    forecast = json.loads(capsys.readouterr().out)
    check("score", forecast)
    assert 20 < forecast["asked"] < 40
    assert run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check("score", document)
    rows = graded(tmp_path)
    plain = sum("plain" in row["title"] for row in rows)
    assert document["tiers"] == {"student": plain, "teacher": 60 - plain}
    assert document["second"]["asked"] == 60 - plain
    assert all(row["piar_grade"] == row["true"] for row in rows)
    assert all((row["piar_tier"] == "student") == ("plain" in row["title"]) for row in rows)
    assert sorted(path.name for path in (tmp_path / "graded").iterdir()) == ["logs.parquet"]


def test_a_teacher_that_is_down_leaves_its_rows_to_people(project, tmp_path, capsys, monkeypatch):
    def down(*asked, **how):
        raise PiarError("All 9 requests failed (connection): refused.")

    monkeypatch.setattr(Pool, "ask", down)
    assert run(["-C", str(project.folder), "score", *pool(tmp_path), "--cascade", "cascade.json"]) == 0
    assert "teacher: All 9 requests failed (connection): refused." in " ".join(capsys.readouterr().out.split())
    for row in graded(tmp_path):
        mine = "plain" in row["title"]
        assert row["piar_tier"] == ("student" if mine else "people")
        assert (row["piar_grade"] is not None, row["piar_probs"] is not None) == (mine, mine)
        assert mine or row["piar_failure"].startswith("teacher: ")


def test_what_hangs_at_the_teacher_is_given_up_when_the_server_ends(project, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as thread:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        asking = Project.open(project.folder, ["teacher.model=openai:m", f"teacher.base_url={address}"])
        judge = SecondJudge(pool_of(asking, asking.instruction(), 1, None, None))
        said = thread.submit(judge, project.store.samples("dev")[:2], tmp_path / "work")
        with silent.accept()[0]:  # it asks, and nobody answers
            judge.end()
            with pytest.raises(PiarError, match="not asked any more"):
                said.result()


def test_a_spent_budget_writes_no_half_file(project, tmp_path, capsys):
    command = ["-C", str(project.folder), "score", *pool(tmp_path), "--cascade", "cascade.json"]
    assert run([*command, "--max-calls", "5"]) == 1
    assert "larger --max-usd" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "graded" / "logs.parquet").exists()
    assert run([*command, "--json"]) == 0
    second = json.loads(capsys.readouterr().out)["second"]
    assert second["cached"] == 5  # what was paid for was kept


def test_a_judge_that_has_changed_is_refused_and_the_mend_works(project, tmp_path):
    student, path = project.folder / "students" / "a", project.folder / "cascade.json"
    assert project.open_cascade(path, student)[1] is not None
    instruction = project.folder / "instruction.md"
    before = instruction.read_text()
    instruction.write_text(before + "- **R02** → 0: the title contains `odd`\n")
    with pytest.raises(PiarError, match="other answers than those of teacher:rulebook"):
        project.open_cascade(path, student)
    instruction.write_text(before)
    keep_calibration(student, None, DecisionRule(name="expected"))
    with pytest.raises(PiarError, match="have changed since") as stale:
        project.open_cascade(path, student)
    assert f"--tiers student:{student},teacher --precision 0.95" in stale.value.fix
    project.cascade([STUDENT, "teacher"])
    assert project.open_cascade(path, student)[1] is not None


def test_one_that_decides_nothing_replaces_no_earlier_one_that_holds(project, capsys):
    path = project.folder / "cascade.json"
    before = path.read_text()
    nothing = ["-C", str(project.folder), "cascade", "--tiers", f"{STUDENT},teacher", "--precision", "0.999"]
    assert run([*nothing, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    check("cascade", document)
    assert (path.read_text(), document["fitted"]["instead"]) == (before, json.loads(before))
    assert run(nothing) == 1
    assert f"as it was, of {read_cascade(path).made[:10]}: {STUDENT} and teacher" in " ".join(
        capsys.readouterr().out.split()
    )
    path.write_text(before.replace('"target": 0.95', '"target": 0.9995'))
    project.cascade([STUDENT, "teacher"], 0.999)  # the same judges are not sure enough for less
    assert not read_cascade(path).certified
    path.write_text(before)
    (project.folder / "instruction.md").write_text(RULE.replace("lamp`", "lamps`"))
    project.cascade([STUDENT], 0.999)  # nobody may use the earlier one any more
    assert not read_cascade(path).certified


def test_status_names_a_cascade_whose_judges_have_changed_and_the_command_that_mends_it(project):
    def told():
        return [(s.why.partition(", and ")[2], s.fix) for s in project.status().stale if s.what == "the cascade"]

    student, instruction = project.folder / "students" / "a", project.folder / "instruction.md"
    again = f"piar cascade --tiers {STUDENT},teacher --precision 0.95"
    assert told() == []
    instruction.write_text(RULE.replace("lamp`", "lamps`"))
    assert told() == [("the instruction has changed since", again)]
    instruction.write_text(RULE)
    card = (student / "student.json").read_bytes()
    keep_calibration(student, None, DecisionRule(name="expected"))
    assert told() == [(f"weights, calibration or decision rule of {STUDENT} have changed since", again)]
    (student / "student.json").write_bytes(card)
    project.calibrate(strategy="none")
    assert told() == [("the teacher has been calibrated anew", again)]
    shutil.rmtree(student)
    assert told()[0][0] == f"{STUDENT} is gone"
    (project.folder / "cascade.json").write_text("{}")
    assert [s.fix for s in project.status().stale if s.what == "the cascade"] == [
        "piar cascade --tiers student:PATH,teacher"
    ]


def test_what_cannot_run_as_a_cascade_is_explained(project, tmp_path, capsys):
    student, path = project.folder / "students" / "a", tmp_path / "c.json"
    slips = [((), "not 0"), (("teacher", "teacher"), "teacher stands twice"), (("human",), "no judge 'human'")]
    for tiers, words in [*slips, (("student:students/none", "teacher"), "holds no student")]:
        for ask in (project.cascade, project.forecast_cascade):  # a forecast refuses what cannot be done
            with pytest.raises(PiarError, match=words):
                ask(tiers)
    assert run(["-C", str(project.folder), "cascade", "--tiers", "teacher", "-o", str(path)]) == 0
    assert "--cascade" not in capsys.readouterr().out
    with pytest.raises(UsageError, match="only a student runs here"):
        project.open_cascade(path, student)
    project.cascade([STUDENT], out=path)
    assert project.open_cascade(path, student)[1] is None
    folder = ["-C", str(project.folder), "score"]
    assert run([*folder, *pool(tmp_path), "--cascade", str(path), "--dry-run"]) == 2
    assert run([*folder, *pool(tmp_path), "--dry-run"]) == 2
    assert run([*folder, *pool(tmp_path), "--shard", "1/0"]) == 2
    assert run([*folder, "--cascade", str(path)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "asks no teacher" in told
    assert "A student asks nobody" in told
    assert "--shard '1/0' is not I/N" in told
    assert "Add --pool FILES" in told
