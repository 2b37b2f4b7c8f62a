import csv

import pytest

import piar
from piar.project.folder import first_instruction
from store.errors import PiarError, UsageError
from store.importers import ImportMapping
from store.task import Grade, Task, dump_task
from tests.small_project import TASK, small_project

HEADER = ["search query", "product title", "annotator_a", "annotator_b", "grade"]


def ratings(folder, rows=60):
    """A file like a reader's own: columns with blanks in their names, two raters, a final grade."""
    path = folder / "ratings.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for i in range(rows):
            grade = str(i % 3)
            writer.writerow([f"toy {i % 20}", f"toy {i % 20} number {i}", grade, str((i + 1) % 3), grade])
    return path


def test_a_strangers_file_becomes_a_project(tmp_path) -> None:
    project = piar.Project.init(tmp_path / "p", from_=ratings(tmp_path))
    assert project.task.fields == ("search_query", "product_title")
    assert project.task.group_by == "search_query"
    assert project.imported.report.added == 60
    assert project.imported.mapping.raters == ("annotator_a", "annotator_b")
    assert project.imported.mapping.gold == "grade"
    again = piar.Project.open(tmp_path / "p").import_([ratings(tmp_path)])
    assert (again.report.added, again.report.known, again.proposed) == (0, 60, ())
    sources = project.sql("select source, count(*) as n from labels group by all order by all")
    assert sources.rows() == [("gold", 60), ("human", 120)]


def test_a_project_stays_open_when_the_process_goes_elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_project(tmp_path / "toys")
    project = piar.Project.open("toys")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert project.label("true")[0].labelled == 5
    assert project.report().path == tmp_path / "toys" / "report.html"


def test_a_task_written_by_hand_is_enough(tmp_path) -> None:
    project = piar.Project.init(tmp_path / "p")
    (tmp_path / "p" / "task.toml").write_text(dump_task(TASK))
    path = tmp_path / "toys.csv"
    path.write_text("query,title,grade\nball,red ball,1\nball,blue doll,0\n")
    assert project.import_([path]).report.added == 2
    assert project.task == TASK
    assert "It fits." in (tmp_path / "p" / "instruction.md").read_text()


def test_new_logs_without_grades_are_not_taken_for_labelled(tmp_path) -> None:
    project = piar.Project.init(tmp_path / "p", from_=ratings(tmp_path))
    logs = tmp_path / "logs.csv"
    logs.write_text("search query,product title,device\nball,red ball,phone\nball,blue ball,desktop\n")
    found = project.import_([logs])
    assert found.report.added == 2
    assert (found.mapping.gold, found.mapping.raters, found.report.rejected) == (None, (), [])


@pytest.mark.parametrize("wrong", [{"gold": "grad"}, {"raters": ("judge_*",)}, {"group": "shop"}])
def test_a_slip_in_a_columns_name_leaves_no_half_made_project(tmp_path, wrong) -> None:
    file = ratings(tmp_path)
    with pytest.raises(UsageError, match="No column") as caught:
        piar.Project.init(tmp_path / "p", from_=file, mapping=ImportMapping(**wrong))
    assert "'annotator_a'" in caught.value.message
    project = piar.Project.init(tmp_path / "p", from_=file, mapping=ImportMapping(raters=("annotator_*",)))
    assert project.imported.mapping.raters == ("annotator_a", "annotator_b")
    assert project.imported.proposed == ("0", "1", "2")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        piar.Project.init(tmp_path)
    (tmp_path / "piar.toml").write_text("# mine\n")
    piar.Project.init(tmp_path, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "piar.toml.bak").read_text() == "# mine\n"


def test_force_keeps_a_store_and_refuses_another_tasks(tmp_path) -> None:
    project = piar.Project.init(tmp_path / "p", from_=ratings(tmp_path))
    again = piar.Project.init(tmp_path / "p", from_=ratings(tmp_path), force=True)
    assert again.imported.report.known == 60
    other = tmp_path / "other.csv"
    other.write_text("question,answer,label\n" + "".join(f"what is {i},it is {i},{i % 2}\n" for i in range(30)))
    (tmp_path / "p" / "task.toml").unlink()
    with pytest.raises(PiarError, match="other fields or grades"):
        piar.Project.init(tmp_path / "p", from_=other, force=True)
    assert project.sql("select count(*) as n from samples")["n"].item() == 60


def test_the_template_says_the_defaults(tmp_path) -> None:
    from piar.project.config import Config

    assert piar.Project.init(tmp_path / "p").config == Config()


def test_precedence_is_defaults_then_file_then_overrides(tmp_path) -> None:
    piar.Project.init(tmp_path / "p")
    (tmp_path / "p" / "piar.toml").write_text("[label]\nvotes = 3\nchunk = 10\n")
    config = piar.Project.open(tmp_path / "p", ["label.votes=5", "teacher.model=openai:some-model"]).config
    assert (config.label.votes, config.label.chunk) == (5, 10)
    assert config.teacher.model == "openai:some-model"


def test_a_setting_that_is_no_more_is_told_and_left_out(tmp_path) -> None:
    from piar.project.config import REMOVED

    piar.Project.init(tmp_path / "p")
    (tmp_path / "p" / "piar.toml").write_text("[label]\npermute = true\nvotes = 3\n")
    with pytest.warns(UserWarning, match=r"`label\.permute` in piar\.toml does nothing any more: .*order"):
        assert piar.Project.open(tmp_path / "p").config.label.votes == 3
    (tmp_path / "p" / "piar.toml").write_text("")
    for setting in REMOVED:  # a setting, or one value of it
        with pytest.warns(UserWarning, match=f"`{setting}`"):
            piar.Project.open(tmp_path / "p", [setting if "=" in setting else f"{setting}=1"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[label]\nvoters = 3\n", "label.voters: unknown key"),
        ("[teachers]\n", "teachers: unknown key"),
        ('[teacher]\nmodel = "gpt"\n', "teacher.model"),
        ("[teacher\n", "not valid TOML"),
        ('[teacher]\napi_key_env = "sk-abc/def"\n', "teacher.api_key_env"),
    ],
)
def test_a_wrong_configuration_names_the_place_and_never_the_value(tmp_path, text, says) -> None:
    piar.Project.init(tmp_path / "p")
    (tmp_path / "p" / "piar.toml").write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        piar.Project.open(tmp_path / "p")
    assert "sk-abc" not in str(caught.value)


def test_a_hand_edit_is_a_new_version_with_the_person_as_author(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("piar.project.workspace.whoami", lambda folder: "Ada")
    project = small_project(tmp_path / "toys")
    seed = project.adopt_instruction()
    assert (seed.author, seed.parent, len(seed.rules)) == ("seed", None, 1)
    assert project.instruction() == seed
    file = tmp_path / "toys" / "instruction.md"
    file.write_text(file.read_text() + "- **R02** → 0: the title names another toy\n")
    read = project.instruction()
    edited = project.adopt_instruction()
    assert read == edited == project.instruction()
    assert (edited.author, edited.parent, len(edited.rules)) == ("Ada", seed.id, 2)
    runs = project.sql("select verb, status from runs join run_events using (run_id) order by runs.started")
    assert runs.rows() == [("edit", "done"), ("edit", "done")]


def test_the_first_instruction_speaks_of_the_task() -> None:
    grades = (Grade(symbol="0", value=0), Grade(symbol="1", value=1))
    search = Task(name="s", group_by="query", fields=("query", "title", "brand"), grades=grades)
    assert first_instruction(search).preamble.startswith("Judge how well the title and brand fit the query.")
    tickets = Task(name="t", group_by="customer", fields=("subject", "body"), grades=grades)
    assert first_instruction(tickets).preamble.startswith("Judge the subject and body.")


def test_slips_in_python_are_told_in_words(toys, tmp_path) -> None:
    for slip, says in [({"rounds": -1}, "rounds"), ({"max_usd": "ten"}, "max_usd"), ({"round": 1}, "unknown key")]:
        with pytest.raises(UsageError, match=says):
            toys.evolve(**slip)
    file = tmp_path / "more.csv"
    file.write_text("query,title,grade\ntoy,toy no 99,1\n")
    assert toys.import_(str(file)).report.added == 1  # one name is no list of letters


def test_a_run_that_fails_is_recorded_as_failed(tmp_path) -> None:
    project = small_project(tmp_path / "toys")
    with pytest.raises(ValueError), project.run("label", {}):
        raise ValueError
    with pytest.raises(KeyboardInterrupt), project.run("label", {}):
        raise KeyboardInterrupt
    assert project.sql("select status from run_events order by created_at")["status"].to_list() == [
        "failed",
        "interrupted",
    ]


def test_a_guideline_becomes_the_instruction(tmp_path) -> None:
    policy = tmp_path / "policy.md"
    lines = [
        "Grade 0: no word of the query appears in the title.",
        "Grade 2: every word of the query appears in the title.",
    ]
    policy.write_text("# How we judge\n\n" + "".join(f"- {line}\n" for line in lines))
    project = piar.Project.init(tmp_path / "p", example="shop", pairs=100, guideline=policy)
    assert [rule.grade for rule in project.instruction().rules] == ["0", "2"]
    assert len(project.guideline.recognised) == 2
    with pytest.raises(UsageError, match="needs a task"):
        piar.Project.init(tmp_path / "q", guideline=policy)
    with pytest.raises(UsageError, match="does not exist"):
        project.adopt_guideline(tmp_path / "nowhere.md")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (lambda shop, _: shop.synth(n=-3), "n: "),
        (lambda shop, _: shop.mine(top=0), "top: "),
        (lambda shop, _: shop.label(votes=0), "votes: "),
        (lambda shop, _: shop.label(votes=2, sure=7.0), "sure: "),
        (lambda shop, _: shop.evolve(rounds=-1), "rounds: "),
        (lambda _, empty: piar.Project.init(empty, example="shop", pairs=0), "pairs: "),
    ],
)
def test_arguments_that_piar_toml_would_refuse_are_refused_in_python(shop, tmp_path, asked, named):
    with pytest.raises(UsageError, match=f"^{named}"):
        asked(shop, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
