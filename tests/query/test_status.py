from piar.project.facade import Project
from store.types import Label
from tests.small_project import small_project


def commands(project: Project) -> list[str]:
    return [step.command for step in project.status().next]


def test_it_tells_the_next_steps_and_their_price(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    found = project.status()
    assert found.holds["samples"] == {"pool": 1, "test": 2, "train": 2}
    assert [(s.command, s.calls, s.cost_usd) for s in found.next] == [
        ("piar review here", 0, 0.0),
        ("piar label", 3, 0.0),
        ("piar score --split test", 2, 0.0),
    ]
    assert found.next[0].why == "fewer than two labelled groups in train, dev, holdout; about 18 more would do"
    assert found.stale == ()


def test_a_teacher_that_costs_money_has_a_price_only_after_it_was_asked(tmp_path) -> None:
    small_project(tmp_path / "toys")
    project = Project.open(tmp_path / "toys", ["teacher.model=openai:m", "teacher.base_url=https://example.org/v1"])
    assert {s.cost_usd for s in project.status().next if s.command != "piar review here"} == {None}


def test_verdicts_of_a_teacher_with_settings_of_its_own_are_found(tmp_path) -> None:
    small_project(tmp_path / "toys")
    project = Project.open(tmp_path / "toys", ["teacher.extra={noise=0.3}"])
    assert "piar label" in commands(project)
    project.label("true")
    assert "piar label" not in commands(project)


def test_an_edited_instruction_makes_labels_and_score_stale(shop) -> None:
    shop.label()
    shop.score()
    assert commands(shop) == ["piar evolve --dry-run"]
    assert shop.status().stale == ()
    path = shop.folder / "instruction.md"
    path.write_text(path.read_text() + '- **R90** → 0: The title contains "kite".\n')
    assert [s.what for s in shop.status().stale] == ["labels", "the score"]
    assert commands(shop) == ["piar evolve --dry-run", "piar label", "piar score --split test"]


def test_a_calibration_of_another_instruction_is_named_until_there_is_one_of_this(toys) -> None:
    def calibrated(instruction: str, calibration: object) -> list[str]:
        run_id = toys.store.start_run("calibrate", {})
        detail = {"judge": "teacher:rulebook", "instruction": instruction, "calibration": calibration}
        toys.store.finish_run(run_id, "done", detail=detail)
        return [s.why for s in toys.status().stale if s.what == "the teacher's calibration"]

    assert calibrated("older", None) == []  # nothing was kept, nothing is lost
    (why,) = calibrated("older", {"strategy": "temperature"})
    assert "under instruction older" in why
    assert calibrated(toys.instruction().id, None) == []


def test_a_calibration_is_named_when_the_labels_that_it_was_fitted_on_have_changed(shop) -> None:
    def stale() -> list[str]:
        return [s.fix for s in shop.status().stale if s.what == "the teacher's calibration"]

    shop.calibrate(strategy="temperature")
    assert stale() == []
    rows = shop.sql("select sample_id from truth join samples using (sample_id) where split = 'dev' and grade <> '0'")
    wrong = ("gold_is_wrong",)
    settled = Label(str(rows["sample_id"][0]), "human", "ann", "0", flags=wrong, blind=False, batch="meeting")
    shop.store.add_labels([settled], shop.store.start_run("review", {}))
    assert stale() == ["piar calibrate"]
    shop.calibrate(strategy="temperature")
    assert stale() == []


def test_an_empty_store_wants_rows_and_a_proposal_wants_a_decision(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    with project.store.write() as con:
        con.execute("delete from samples; delete from labels")
    (tmp_path / "toys" / "instruction.proposed.md").write_text("x")
    assert commands(project) == ["piar import FILE", "piar show proposal"]
