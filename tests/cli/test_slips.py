"""A stranger's first hour: slips on purpose. Each answer is true and says the mend; what a mend names works."""

import csv
import io
import re
import shlex
from pathlib import Path

import pytest

from piar.cli import main
from piar.project.facade import Project
from tests.small_project import small_project


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with a file of grades, where the stranger stands."""
    monkeypatch.chdir(tmp_path)
    rows = [(f"query {q}", f"title {k} of thing {q % 5}", str((q + k) % 3)) for q in range(12) for k in range(3)]
    with (tmp_path / "my ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("query", "title", "grade"), *rows])
    return tmp_path


def said(capsys, *arguments: str) -> tuple[int, str]:
    code = main(list(arguments))
    told = capsys.readouterr()
    return code, told.out + told.err


def commands(text: str) -> list[list[str]]:
    """The words of each `piar …` in backticks."""
    return [shlex.split(found)[1:] for found in re.findall(r"`(piar [^`]*)`", text)]


def test_what_look_was_told_is_told_to_init(desk, capsys):
    code, text = said(capsys, "look", "my ratings.csv", "--gold", "grade", "--group", "query", "--seed", "3")
    assert code == 0
    following = text.split("Next: ")[1].splitlines()[0]
    assert following == "piar init DIR --from 'my ratings.csv' --gold grade --group query"
    assert main([word.replace("DIR", "project") for word in shlex.split(following)[1:]]) == 0
    assert Project.open("project").task.symbols == ("0", "1", "2")


def test_the_way_to_keep_a_published_train_whole_works_as_printed(desk, capsys):
    rows = [
        f"{s} query {q},title {k} of {q},{(q + k) % 3},{s}"
        for s in ("train", "test")
        for q in range(40)
        for k in range(3)
    ]
    (desk / "published.csv").write_text("\n".join(["query,title,grade,split", *rows]))
    _, text = said(capsys, "init", "dealt", "--from", "published.csv")
    told = re.findall(r"--set \S+", " ".join(text.split()))
    assert [word.split("=")[0] for word in told] == ["--set split.dev", "--set split.holdout", "--set split.train"]
    code, text = said(capsys, "init", "whole", "--from", "published.csv", *" ".join(told).split())
    assert code == 0
    counts = dict(Project.open("whole").store.frame("select split, count(*) from samples group by 1").iter_rows())
    assert counts == {"train": 120, "test": 120}


def test_a_file_of_one_grade_needs_the_others_not_another_column(desk, capsys):
    (desk / "one.csv").write_text("query,title,grade\n" + "".join(f"a query {i},a title {i},1\n" for i in range(20)))
    _, text = said(capsys, "look", "one.csv")
    assert "Next: piar init DIR --from one.csv --grades LOWEST,…,HIGHEST" in text


def test_look_init_and_import_speak_the_same_options(desk, capsys):
    shared = ["gold", "raters", "annotator", "date", "group", "fields", "map", "counts", "bucket-grades", "split", "id"]
    shared += ["source", "label-config", "encoding", "sheet", "control", "plain"]
    for verb in ("look", "init", "import"):
        told = re.findall(r"--([a-z-]+)", said(capsys, verb, "--help")[1])
        assert not set(shared) - set(told), verb
    code, text = said(capsys, "look", "my ratings.csv", "--gold", "grade", "--map", "words=title", "--id", "query")
    assert code == 0
    assert "text title · gold grade" in " ".join(text.split())
    assert text.rstrip().endswith("--from 'my ratings.csv' --gold grade --map words=title --id query")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("look", "ratings.csv"), "ratings.csv does not exist"),
        (("look", "my ratings.csv", "--gold", "Grade"), "query, title, grade"),
        (("look", "."), ". is a folder"),
        (("init", "p", "--from", "my ratings.csv", "--gold", "rating"), "No column 'rating'"),
        (("evolve",), "no piar.toml"),
        (("score", "--split", "tset", "-C", "toys"), "'holdout'"),
        (("status", "--set", "evolve.rouds=2", "-C", "toys"), "unknown key"),
        (("serve", "--student", "students/sft/final", "-C", "toys"), "holds no student"),
        (("score", "--judge", "student:nowhere", "-C", "toys"), "holds no student"),
        (("label", "--set", "teacher.model=gpt-4o", "-C", "toys"), "openai:NAME"),
    ],
)
def test_a_slip_is_answered_by_its_true_cause(desk, capsys, arguments, words):
    small_project(desk / "toys")
    code, text = said(capsys, *arguments)
    assert code in (1, 2)
    assert words in " ".join(text.split())
    assert "Traceback" not in text


def test_who_stands_one_folder_too_high_is_told_which_projects_lie_there(desk, capsys):
    small_project(desk / "toys")
    _, text = said(capsys, "status")
    assert "Here lie toys." in text


@pytest.mark.parametrize(
    "arguments", [("accept",), ("train", "sft"), ("show", "sample", "zz"), ("sql", "select * from x")]
)
def test_the_mend_of_a_slip_goes_to_the_project_that_was_named(desk, capsys, arguments):
    small_project(desk / "a toy's shop")
    code, text = said(capsys, *arguments, "-C", "a toy's shop")
    assert code != 0
    for words in commands(text):
        assert words[-2:] == ["-C", "a toy's shop"]
        if words[0] == "sql":
            assert main(words) == 0


def test_what_comes_next_works_as_printed_from_where_the_user_stands(desk, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    small_project(desk / "my shop")
    _, text = said(capsys, "status", "-C", "my shop")
    following = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("next ")]
    assert following
    for words in following:
        by_line = ["--lines"] if words[:2] == ["review", "here"] else []  # there is no terminal
        assert main([*words, *by_line]) == 0, words
    _, text = said(capsys, "curriculum", "export", "-C", "my shop")
    assert "piar train sft -C 'my shop'" in text
    assert (desk / "my shop" / "shards" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["md:x", ":memory:", "my shop", "x[1]", "st*r", "it's", "a#b;c"])
def test_a_folder_may_have_any_name(desk, capsys, name):
    _, text = said(capsys, "init", name, "--from", "my ratings.csv")
    assert f"piar evolve -C {shlex.quote(name)}\n" in re.sub(" +\n", "\n", text)
    assert main(["curriculum", "export", "-C", name]) == 0
    assert main(["export", "labels", f"{name}/labels.csv", "-C", name]) == 0
    assert len((desk / name / "labels.csv").read_text().splitlines()) == 1 + 36
    assert "| grade | rows |" in (desk / name / "shards" / "README.md").read_text()


def test_a_folder_that_duckdb_cannot_open_is_refused_in_words(desk, capsys):
    code, text = said(capsys, "init", "what?", "--from", "my ratings.csv")
    assert code == 2
    assert "a folder with ?" in text


def test_the_same_again_and_a_second_init(desk, capsys):
    assert main(["init", "p", "--from", "my ratings.csv"]) == 0
    code, text = said(capsys, "init", "p", "--from", "my ratings.csv")
    assert code == 2
    assert "--force" in text
    code, text = said(capsys, "import", "my ratings.csv", "-C", "p")
    assert code == 0
    assert "0 new samples" in text
    code, text = said(capsys, "export", "labels", "p/l.csv", "-C", "p")
    assert said(capsys, "export", "labels", "p/l.csv", "-C", "p")[0] == 2
    assert said(capsys, "export", "labels", "p/l.csv", "--force", "-C", "p")[0] == 0


def test_a_student_named_as_in_the_project_is_found_with_c(desk, capsys):
    small_project(desk / "toys")
    (desk / "toys" / "students" / "sft").mkdir(parents=True)
    _, text = said(capsys, "serve", "--student", "students/sft", "-C", "toys")
    assert "toys/students/sft holds no student" in text
    (desk / "toys" / "students" / "sft" / "final").mkdir()
    (desk / "toys" / "students" / "sft" / "final" / "student.json").write_text("{}")
    assert "name toys/students/sft/final" in said(capsys, "serve", "--student", "students/sft", "-C", "toys")[1]


def test_who_has_trained_is_told_how_to_measure_and_to_serve(desk, capsys, monkeypatch):
    from trainers.loop import Trained

    small_project(desk / "toys")
    done = Trained(steps=1, checkpoint=Path("toys/students/sft/final"), metrics={}, stopped=False)
    monkeypatch.setattr("trainers.sft.train", lambda *folders, **settings: done)
    _, text = said(capsys, "train", "sft", "-C", "toys")
    assert "piar score --judge student:toys/students/sft/final -C toys" in text
    assert "piar serve --student toys/students/sft/final" in text


def test_a_batch_of_no_size_is_a_slip_and_its_mends_can_be_pasted(desk, capsys, monkeypatch):
    assert main(["init", "project", "--from", "my ratings.csv"]) == 0
    here = ["review", "-C", "project"]
    code, text = said(capsys, *here, "status")
    assert code == 1
    pasted = commands(text)[0]
    assert pasted[:2] == ["review", "here"]
    monkeypatch.setattr("sys.stdin", io.StringIO("quit\n"))
    assert main([*pasted, "--lines"]) == 0
    people = ["--set", 'review.annotators=["ann@example.com","bob@example.com"]']
    text = said(capsys, *here, "export", "a.csv", "--batch", "w1", "--set", "review.annotators=[ann,bob]")[1]
    assert 'review.annotators: must be a list, e.g. ["a", "b"]' in " ".join(text.split())
    for slip in (["--hours", "0"], ["--hours", "nan"], ["--checks", "60%"]):
        code, text = said(capsys, *here, "export", "a.csv", "--batch", "w1", *slip, *people)
        assert (code, "no size of a batch" in text) == (2, True), slip
    assert said(capsys, *here, "export", "a.csv", "--batch", "w1", "--relabel", "stale", *people)[0] == 1
    code, text = said(capsys, *here, "status", "--enough", "0")
    assert (code, "--enough 1%" in text) == (2, True)
    assert main([*here, "agenda", "--out", "new/folder/agenda.md"]) == 0
    assert main([*here, "hours", "new/other/hours.csv"]) == 0
    for words in (["agenda", "--out", "new"], ["hours", "new"]):
        code, text = said(capsys, *here, *words)
        assert (code, "new is a folder" in text) == (2, True)
