"""Files that come again: corrections win and are counted, conflicts are seen, what is printed is in the store."""

import json
import unicodedata

import pytest

from piar.cli import main
from piar.project.facade import Project
from store.importers import ImportMapping

HEADER = "query,title,grade\n"


@pytest.fixture
def file(tmp_path):
    def write(content, name="v1.csv"):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return write


def graded(grades, n=40, header=HEADER, extra=""):
    return header + "".join(f"query {i // 2},title {i} thing,{grades[i % len(grades)]}{extra}\n" for i in range(n))


@pytest.fixture
def project(tmp_path, file):
    return Project.init(tmp_path / "p", from_=file(graded("012")))


def truth(project):
    return dict(project.sql("select title, grade from truth join samples using (sample_id)").rows())


def counted(project, found, before):
    """What a report says is what the store holds."""
    report = found.report
    samples, labels = project.sql("select (select count(*) from samples), (select count(*) from labels)").row(0)
    assert (report.added, report.labels) == (samples - before[0], labels - before[1])
    assert report.splits == dict(project.sql("select split, count(*) from samples group by 1").rows())
    left_out = len(report.rejected)
    assert report.added + report.known + report.repeats == report.read - left_out
    return samples, labels


def test_a_newer_file_corrects_an_older_one_and_the_cells_are_counted(project, file):
    found = project.import_([file(graded("210"), "v2.csv")])
    assert (found.report.added, found.report.labels, found.report.changed) == (0, 27, 27)
    assert found.report.changes == {("0", "2"): 14, ("2", "0"): 13}
    assert found.report.conflicts == []
    assert truth(project)["title 0 thing"] == "2"
    assert project.sql("select count(*) from winner where votes > 1").item() == 0


def test_corrections_win_by_their_sequence_and_not_by_the_clock(project, file):
    with project.store.write() as con:  # the first file came from a machine whose clock runs ahead
        con.execute("update labels set created_at = timestamp '2099-01-01'")
    for name, grade in (("v2.csv", "1"), ("v3.csv", "0"), ("v4.csv", "1")):
        assert project.import_([file(HEADER + f"query 0,title 0 thing,{grade}\n", name)]).report.changed == 1
        assert truth(project)["title 0 thing"] == grade


def test_a_rater_corrects_herself_and_a_new_rater_joins(tmp_path, file):
    header = "query,title,rater_a,rater_b\n"
    project = Project.init(tmp_path / "p", from_=file(graded("012", header=header, extra=",1")))
    more = graded("112", header="query,title,rater_a,rater_b,rater_c\n", extra=",1,2")
    found = project.import_([file(more, "v2.csv")])
    assert found.report.changes == {("0", "1"): 14}
    assert (found.report.labels, found.report.changed) == (54, 14)
    assert project.sql("select count(distinct annotator) from label").item() == 3


def test_gold_grades_that_differ_in_one_file_are_conflicts_until_a_file_has_one(tmp_path, file):
    rows = graded("012") + "query 0,title 0 thing,2\nquery 0,title 1 thing,1\n"
    project = Project.init(tmp_path / "p", from_=file(rows))
    assert project.imported.report.conflicts == [(2, 42)]
    found = project.import_([file(HEADER + "query 0,title 0 thing,2\n", "mended.csv")])
    assert found.report.conflicts == []
    assert truth(project)["title 0 thing"] == "2"
    assert project.sql("select count(distinct grade) from vote where sample_id in "
                       "(select sample_id from samples where title = 'title 0 thing')").item() == 1  # fmt: skip


def test_what_people_settled_in_a_review_is_not_corrected_by_a_file(project, file):
    from store.types import Label

    sample = next(s for s in project.store.samples() if s.fields["title"] == "title 0 thing")
    with project.store.write() as con:
        con.execute("insert into review_batches values ('b1', '{}', 'run', current_timestamp)")
    project.store.add_labels([Label(sample.id, "human", "ann", "1", blind=False, batch="b1")], "run")
    project.import_([file("query,title,ann\nquery 0,title 0 thing,0\n", "ann.csv")], ImportMapping(raters=("ann",)))
    assert truth(project)["title 0 thing"] == "1"


KINDS = {
    "again": graded("012"),
    "changed grades": graded("120"),
    "one bad grade": graded("012") + "query 0,new thing,7\n",
    "mostly unknown": HEADER + "query 0,x thing,3\nquery 0,y thing,4\nquery 0,z thing,0\n",
    "changed text": graded("012").replace("title 3 ", "title three "),
    "changed group": graded("012").replace("query 4,", "query 400,"),
    "fewer rows": graded("012", n=7),
    "more rows": graded("012", n=90),
    "no grades": "query,title\nquery 0,fresh thing\nquery 900,other thing\n",
    "blank grades": graded(["0", "", "1"], n=60),
    "repeated rows": graded("012") + graded("012").removeprefix(HEADER),
    "empty cells": HEADER + ",no query,1\nquery 1,,1\n,,1\n",
    "renamed grade": graded("021", header="query,title,label\n"),
    "blanks around": graded("012").replace("title 5 thing", "  title 5 thing "),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_printed_is_what_the_store_holds(project, file, kind):
    before = counted(project, project.imported, (0, 0))
    counted(project, project.import_([file(KINDS[kind], "later.csv")]), before)


def test_a_bad_grade_costs_its_row_and_the_line_is_told(project, file, capsys):
    folder = str(project.folder)
    assert main(["import", str(file(KINDS["one bad grade"], "typo.csv")), "-C", folder]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 × unknown grade '7' in column 'grade' (line 42)" in shown
    assert "40 known" in shown


def test_one_text_in_two_unicode_forms_is_one_sample_shown_as_it_came(tmp_path, file):
    words = ["café crème", "кофе й", "コーヒー ガ"]
    texts = [unicodedata.normalize("NFD", f"{word} {i}") for i, word in enumerate(words * 8)]
    first = HEADER + "".join(f"{text},{text} thing,{i % 3}\n" for i, text in enumerate(texts))
    project = Project.init(tmp_path / "p", from_=file(first))
    found = project.import_([file(unicodedata.normalize("NFC", first), "nfc.csv")])
    assert (found.report.added, found.report.known, found.report.labels) == (0, 24, 0)
    assert set(project.sql("select query from samples")["query"]) == set(texts)
    assert {unicodedata.normalize("NFD", key) for key in project.sql("select group_key from samples")["group_key"]} == {
        *texts
    }
    sample = project.store.samples()[0]
    from store.ids import sample_id

    assert sample_id(sample.group, sample.fields.values()) == sample.id


def test_a_renamed_column_is_asked_for_with_the_option_that_names_it(project, file, capsys):
    renamed = str(file(graded("012", header="query,product,grade\n"), "renamed.csv"))
    assert main(["import", renamed, "-C", str(project.folder)]) == 2
    assert "--map title=" in " ".join(capsys.readouterr().err.split())
    assert main(["import", renamed, "--map", "title=product", "-C", str(project.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["known"] == 40


def test_init_prints_fields_group_gold_raters_and_the_order_of_grades(tmp_path, file, capsys):
    words = ["good", "bad", "perfect"]
    rows = graded(words, header="query,title,grade,rater_1,note\n", extra=",bad,whatever")
    assert main(["init", str(tmp_path / "p"), "--from", str(file(rows))]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("fields query, title", "group query", "gold grade", "raters rater_1", "bad < good < perfect"):
        assert part in shown
    kinds = graded(["spam", "ham", "eggs"], header="query,title,kind\n")
    assert main(["init", str(tmp_path / "q"), "--from", str(file(kinds, "kinds.csv"))]) == 0
    assert "eggs, ham, spam (no order known" in " ".join(capsys.readouterr().out.split())
    assert "ordered = false" in (tmp_path / "q" / "task.toml").read_text()
