"""What a stranger's columns mean: fields, groups, people, votes and grades, and what gives the grade away."""

import csv
import json
import os
import random
import subprocess
import sys

import polars as pl
import pytest

from piar.cli import main
from piar.project.facade import Project
from store.errors import PiarError, UsageError
from store.importers import ImportMapping
from store.propose import Doubt, guess, propose_task, settle
from store.readers import read_table
from store.shares import spread
from store.tables import numbered

WORDS = ["red", "blue", "green", "small", "large", "old", "wool", "steel", "oak", "lamp", "chair", "shoe", "bag", "rug",
         "desk", "plate"]  # fmt: skip


@pytest.fixture
def table(tmp_path):
    """Writes a CSV file of rows under a header."""

    def write(header, rows, name="file.csv"):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as out:
            sheet = csv.writer(out)
            sheet.writerow(header.split(","))
            sheet.writerows(rows)
        return path

    return write


def title(rng):
    return " ".join(rng.sample(WORDS, 6))


def pairs(n=60, groups=12, seed=0):
    """(query, title) rows whose titles say nothing of a grade."""
    rng = random.Random(seed)
    return [(f"{WORDS[i % groups % 16]} thing {i % groups}", title(rng)) for i in range(n)]


def judged(header, extra, **more):
    """Rows of `pairs` with further cells, given the row's number."""
    return header, [(*pair, *extra(i)) for i, pair in enumerate(pairs(**more))]


# -- fields and groups ----------------------------------------------------------------------


@pytest.mark.parametrize("groups", [2, 8, 10])
def test_a_query_is_read_however_few_there_are(table, groups):
    frame = read_table(table(*judged("query,title,grade", lambda i: (i % 3,), groups=groups)))
    found = guess(frame)
    assert (found.columns, found.mapping.group) == (("query", "title"), "query")


def test_ids_of_documents_beside_their_texts_are_passed_over(table, tmp_path):
    rows = [(f"query {i % 10}", f"doc{6311 + i}", words, i % 3) for i, (_, words) in enumerate(pairs())]
    project = Project.init(tmp_path / "p", from_=table("query,docid,title,rating", rows))
    assert project.task.fields == ("query", "title")


def test_a_query_of_part_numbers_is_read(table):
    rows = [(10037 + 37 * (i // 5), title, i % 3) for i, (_, title) in enumerate(pairs())]
    assert guess(read_table(table("query,title,rating", rows))).columns == ("query", "title")


@pytest.mark.parametrize("name", ["qid", "query_id", "Query ID", "queryId", "session_id", "product_id"])
def test_an_id_that_repeats_is_the_group_of_texts_that_do_not(table, name):
    rows = [(i // 3, f"{words} {i}", i % 3) for i, (_, words) in enumerate(pairs())]
    found = guess(read_table(table(f"{name},answer,grade", rows)))
    assert (found.mapping.group, found.columns, found.mapping.gold) == (name, ("answer",), "grade")


def test_one_column_called_judgement_is_gold_and_no_rater(table):
    rows = [(i // 3, i % 4 + 1, words) for i, (_, words) in enumerate(pairs())]
    found = guess(read_table(table("qid,judgement,answer", rows)))
    assert (found.mapping.gold, found.mapping.raters) == ("judgement", ())


def test_headers_with_blanks_become_fields(table):
    frame = read_table(table(*judged("Query Text,Product Title,Rating", lambda i: (i % 3,))))
    task = propose_task(frame)
    assert (task.fields, task.group_by) == (("Query_Text", "Product_Title"), "Query_Text")


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        ("запрос,заголовок,оценка", ("zapros", "zagolovok")),
        ("クエリ,商品,評価", ("kueri", "u5546u54c1")),
        ("Größe,Überschrift,grade", ("Grosse", "Uberschrift")),
        ("a b,a_b,grade", ("a_b_2", "a_b")),
    ],
)
def test_headers_of_every_alphabet_become_fields_and_are_found_again(table, tmp_path, header, fields):
    path = table(*judged(header, lambda i: (i % 3,), groups=20))
    project = Project.init(tmp_path / "p", from_=path)
    assert project.task.fields == fields
    assert project.import_([path]).report.known == 60


def test_addresses_ids_and_numbers_are_not_read(table):
    rows = judged("query,title,url,doc,price,grade", lambda i: (f"https://x.org/{i}", f"d{i:05}", i / 7, i % 3))
    found = guess(read_table(table(*rows)))
    assert found.columns == ("query", "title")
    assert set(found.left_out) == {"url", "doc", "price"}


@pytest.mark.parametrize("name", ["Input.query", "data.question", "Suchanfrage", "質問"])
def test_a_query_of_few_values_is_read_under_the_names_of_other_tools_and_languages(table, name):
    found = guess(read_table(table(*judged(f"{name},title,grade", lambda i: (i % 3,), groups=8))))
    assert (found.columns, found.mapping.group) == ((name, "title"), name)


# -- what gives the grade away --------------------------------------------------------------


@pytest.mark.parametrize("name", ["comment", "grader_notes", "Explanation", "rationale", "reason"])
def test_what_was_written_while_grading_is_not_read(table, name):
    why = ["not at all what they want", "close but the colour differs", "exactly this"]
    rows = judged(f"query,title,grade,{name}", lambda i: (i % 3, f"{why[i % 3]} ({i})" if i % 2 else ""))
    found = guess(read_table(table(*rows)))
    assert found.columns == ("query", "title")
    assert name in found.unused[name]
    forced = guess(read_table(table(*rows)), ImportMapping(fields={"title": "title", "why": name}))
    assert forced.columns == ("title", name)


def test_a_column_that_alone_tells_the_grade_is_not_read(table):
    verdicts = ["reject it", "perhaps take it", "take it at once"]
    rows = judged("query,title,outcome,grade", lambda i: (f"{verdicts[i % 3]} {WORDS[i % 16]} {i}", i % 3), n=120)
    found = guess(read_table(table(*rows)))
    assert found.columns == ("query", "title")
    assert "gives away" in found.unused["outcome"]


def test_an_explanation_is_read_when_it_is_what_is_judged(table):
    rows = [(f"question {i // 4}", f"{words} {i}", i % 3) for i, (_, words) in enumerate(pairs())]
    assert guess(read_table(table("question,explanation,grade", rows))).columns == ("question", "explanation")


# -- people and votes -----------------------------------------------------------------------


def test_raters_with_blanks_are_raters_and_no_gold(table, tmp_path):
    names = ["entailment", "neutral", "contradiction"]

    def said(i):
        return [names[(i + r) % 3] if (i + r) % 4 else "" for r in range(4)]

    path = table(*judged("context,statement,ann0,ann1,ann2,ann3", said, n=40, groups=40))
    project = Project.init(tmp_path / "p", from_=path)
    assert project.imported.mapping.raters == ("ann0", "ann1", "ann2", "ann3")
    assert project.imported.mapping.gold is None
    assert project.task.symbols == ("contradiction", "entailment", "neutral")  # the names, in no order
    assert not project.task.ordered
    given = sum(bool(cell) for i in range(40) for cell in said(i))
    assert project.imported.report.labels == project.sql("select count(*) from labels where source = 'human'").item()
    assert project.imported.report.labels == given


def test_columns_called_by_addresses_are_people(table):
    header, rows = judged(
        "query,title,ann@shop.example,b.c@shop.example", lambda i: (i % 3, (i + i // 7) % 3 if i % 5 else "")
    )
    found = guess(read_table(table(header, rows))).mapping
    assert (found.raters, found.gold) == (("ann@shop.example", "b.c@shop.example"), None)


def test_one_row_a_label_keeps_who_said_what(table, tmp_path):
    words = ["no", "maybe", "yes"]
    rows = [(*pair, f"person {p}", words[(i + p) % 3]) for i, pair in enumerate(pairs(30)) for p in (1, 2, 3)]
    project = Project.init(tmp_path / "p", from_=table("query,title,annotator,label", rows))
    assert project.imported.mapping.annotator == "annotator"
    assert project.imported.report.added == 30
    said = project.sql("select annotator, count(*) as n from labels where source = 'human' group by 1 order by 1")
    assert said.rows() == [("person 1", 30), ("person 2", 30), ("person 3", 30)]


def test_counts_of_votes_become_votes(table, tmp_path):
    votes = [(3, 3 - i % 3, i % 3, 0) for i in range(40)]
    rows = [(*counts, f"{words} {i}") for i, ((_, words), counts) in enumerate(zip(pairs(40), votes, strict=True))]
    project = Project.init(tmp_path / "p", from_=table("count,hate_speech,offensive,neither,tweet", rows))
    assert project.imported.mapping.counts == ("hate_speech", "offensive", "neither")
    counted = dict(project.sql("select grade, count(*) from labels group by 1").rows())
    assert counted == {"hate_speech": sum(v[1] for v in votes), "offensive": sum(v[2] for v in votes)}
    assert project.sql("select count(*) from truth").item() == 40


def test_one_marked_column_a_row_is_what_the_person_beside_said(table, tmp_path):
    rows = [
        (f"a text of number {i // 3}", f"r{i % 7}", *(int((i // 9 + i % 2) % 3 == k) for k in range(3)))
        for i in range(180)
    ]
    project = Project.init(tmp_path / "p", from_=table("text,rater_id,joy,anger,neutral", rows))
    assert project.imported.mapping.annotator == "rater_id"
    found = project.store.frame(
        "select source, count(*)::int as n, count(distinct annotator)::int from label group by 1"
    )
    assert found.rows() == [("human", 180, 7)]
    assert set(project.task.symbols) == {"joy", "anger", "neutral"}


def test_numbers_that_add_up_are_no_votes_in_a_project_of_other_grades(table, tmp_path):
    project = Project.init(tmp_path / "p", from_=table(*judged("query,title,grade", lambda i: (i % 3,))))
    later = table(*judged("query,title,new,used", lambda i: (i % 2, 1 - i % 2), seed=1), name="later.csv")
    found = project.import_([later])
    assert (found.report.rejected, found.mapping.counts) == ([], ())


def test_probabilities_become_the_likeliest_grade_and_ties_none(table, tmp_path):
    chances = [(0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.4, 0.4, 0.2)]
    path = table(*judged("query,title,p_bad,p_fair,p_good", lambda i: chances[i % 3]))
    project = Project.init(tmp_path / "p", from_=path)
    assert project.task.symbols == ("bad", "fair", "good")
    found = dict(project.sql("select grade, count(*) from truth group by 1").rows())
    assert found == {"bad": 20, "fair": 20}


# -- grades ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "symbols"),
    [
        (["3.0", "2", " 1 "], ("1", "2", "3")),
        (["３", "２", "1"], ("1", "2", "3")),
        (["+1", "0", "−1"], ("-1", "0", "1")),
        (["3 - perfect", "2 - good", "1 - bad"], ("1", "2", "3")),
        (["perfect", "good", "bad"], ("bad", "good", "perfect")),
        (["TRUE", "FALSE"], ("FALSE", "TRUE")),
        (["👍", "👎"], ("👎", "👍")),
        (["★★★", "★☆☆"], ("★☆☆", "★★★")),
        (["0", "0,5", "1"], ("0", "0.5", "1")),
        (["½", "1½", "2"], ("0.5", "1.5", "2")),
        (["0%", "50 %", "100%"], ("0", "50", "100")),
    ],
)
def test_grades_are_read_as_they_are_written(table, tmp_path, cells, symbols):
    path = table(*judged("query,title,grade", lambda i: (cells[i % len(cells)],)))
    project = Project.init(tmp_path / "p", from_=path)
    assert (project.task.symbols, project.task.ordered) == (symbols, True)
    assert project.imported.report.rejected == []
    assert project.sql("select count(distinct grade) from truth").item() == len(cells)


@pytest.mark.parametrize("cells", [("bad", "good", "great", "bad; good"), ("bad", "good", "great", "good | great")])
def test_several_grades_in_one_cell_are_none_and_cost_their_row_alone(table, tmp_path, cells):
    path = table(*judged("query,title,grade", lambda i: (cells[i % len(cells)],)))
    project = Project.init(tmp_path / "p", from_=path)
    assert (project.task.symbols, project.task.ordered) == (("bad", "good", "great"), True)
    reasons = [one.reason for one in project.imported.report.rejected]
    assert len(reasons) == 15
    assert all(why.startswith(f"unknown grade '{cells[-1]}'") for why in reasons)


@pytest.mark.parametrize(
    ("cells", "grades", "said"),
    [
        (["none", "weak", "exact"], {"none": 20, "weak": 20, "exact": 20}, {}),
        (["None", "hate", "hate"], {"None": 20, "hate": 40}, None),
        (["None", "1", "2"], {"1": 20, "2": 20}, {"None": 20}),
        (["N/A", "yes", "no"], {"yes": 20, "no": 20}, {"N/A": 20}),
        (["#N/A", "1", "2"], {"1": 20, "2": 20}, {"#N/A": 20}),
        (["\\N", "1", "2"], {"1": 20, "2": 20}, {"\\N": 20}),
        (["<NA>", "1.0", "2.0"], {"1": 20, "2": 20}, {"<NA>": 20}),
    ],
)
def test_a_word_for_nothing_is_a_grade_or_said(table, tmp_path, capsys, cells, grades, said):
    path = table(*judged("query,title,label", lambda i: (cells[i % 3],), groups=20))
    project = Project.init(tmp_path / "p", from_=path)
    held = dict(project.sql("select grade, count(*) from labels group by 1").rows())
    assert held == grades
    assert said is None or project.import_([path]).report.ungraded == said
    named = ImportMapping(grades=("N/A", "no", "yes"))
    if "N/A" in cells:
        again = Project.init(tmp_path / "q", from_=path, mapping=named)
        assert again.sql("select count(*) from labels").item() == 60


def test_spellings_of_one_word_are_one_grade(table, tmp_path):
    cells = [" Good", "good ", "GOOD", "Bad", "bad"]
    path = table(*judged("query,title,grade", lambda i: (cells[i % 5],)))
    project = Project.init(tmp_path / "p", from_=path)
    assert project.task.symbols == ("bad", "good")
    assert project.sql("select count(*) from labels").item() == 60


def test_what_a_model_said_is_no_gold_where_people_graded_too(table):
    rows = judged("query,title,gpt4_label,human_label,model_rating", lambda i: (i % 2, i % 3, i % 2))
    assert guess(read_table(table(*rows))).mapping.gold == "human_label"


def test_objects_are_no_grades(tmp_path):
    path = tmp_path / "nested.jsonl"
    rows = [{"input": {"query": q, "title": t}, "output": {"grade": i % 3}} for i, (q, t) in enumerate(pairs())]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match="'output' holds lists or objects"):
        propose_task(read_table(path))


def test_what_is_no_number_among_numbers_costs_its_row(table, tmp_path):
    odd = {7: "inf", 11: "1e309", 13: "good"}
    path = table(*judged("query,title,grade", lambda i: (odd.get(i, i % 3),)))
    project = Project.init(tmp_path / "p", from_=path)
    assert project.task.symbols == ("0", "1", "2")
    assert [(r.line, r.reason.split("'")[1]) for r in project.imported.report.rejected] == [
        (9, "inf"), (13, "1e309"), (15, "good")]  # fmt: skip


@pytest.mark.parametrize(
    ("grade", "true_reason", "mend"),
    [
        (lambda i: "1", "only one grade", "--grades"),
        (lambda i: round(1 + i % 7 / 3, 2), "means of grades", "--bucket-grades"),
        (lambda i: round(1 + i % 40 / 20, 2), "means of grades", "--bucket-grades"),
        (lambda i: i % 50, "50 different numbers", "--cuts 12,24,37"),
        (lambda i: i * 1.7 % 100, "200 different numbers", "--cuts 25,50,74"),
        (lambda i: f"2026-01-{1 + i % 28:02}", "dates", "--gold"),
        (lambda i: f"2026-01-{1 + i % 3:02}", "dates", "--gold"),
        (lambda i: ("2-Jan", "4-Mar", "Jun-05")[i % 3], "dates", "--gold"),
        (lambda i: ("good", "bad", "good, but " * 5)[i % 3], "a text of 49 characters", "--grades"),
    ],
)
def test_grades_that_cannot_be_are_refused_with_the_true_reason_and_nothing_is_left(
    table, tmp_path, grade, true_reason, mend
):
    path = table(*judged("query,title,grade", lambda i: (grade(i),), n=200))
    with pytest.raises(UsageError, match=true_reason) as caught:
        Project.init(tmp_path / "p", from_=path)
    assert mend in caught.value.fix
    assert not (tmp_path / "p").exists()


def test_numbers_alone_are_no_texts(table):
    rows = [(i // 4, i * 0.37, i % 2) for i in range(80)]
    with pytest.raises(UsageError, match=r"No column of text.*amount: numbers"):
        propose_task(read_table(table("customer,amount,label", rows)))


def test_means_are_bucketed_when_asked(table, tmp_path):
    path = table(*judged("query,title,relevance", lambda i: (round(1 + i % 7 / 3, 2),)))
    project = Project.init(tmp_path / "p", from_=path, mapping=ImportMapping(bucket_grades=True))
    assert project.task.symbols == ("1", "2", "3")
    assert project.sql("select count(*) from truth").item() == 60


def test_a_named_gold_of_many_values_is_refused_though_raters_of_another_scale_stand_beside(table):
    rows = judged("question,answer,rater1,rater2,domain_score", lambda i: (i % 3, i % 3, i % 20), n=120)
    with pytest.raises(UsageError, match="20 different numbers"):
        propose_task(read_table(table(*rows)), ImportMapping(gold="domain_score"))
    assert propose_task(read_table(table(*rows))).symbols == ("0", "1", "2")


def test_a_named_column_that_was_passed_over_is_told_with_the_options_that_take_it(table):
    found = guess(read_table(table(*judged("text,more,target,rating", lambda i: (f"{i % 14 / 13:.2f}", "ny"[i % 2])))))
    assert found.mapping.gold == "rating"
    assert found.unused["gold"].endswith("--gold target --bucket-grades takes it")


def test_with_an_annotator_named_no_other_of_that_persons_scales_is_gold(table):
    rows = [(f"a text of number {i // 3}", f"r{i % 7}", i % 5, i % 3, i // 3 % 2) for i in range(180)]
    said = ImportMapping(raters=("hateful",), annotator="who")
    assert guess(read_table(table("text,who,sentiment,hateful,n", rows)), said).mapping.gold is None
    assert guess(read_table(table("text,who,sentiment,hateful,gold", rows)), said).mapping.gold == "gold"


def test_points_are_cut_into_classes_by_the_cuts_that_the_refusal_names(table, tmp_path, capsys):
    path = table(*judged("question,answer,points", lambda i: (i * 7 % 101,), n=120, groups=24))
    assert main(["init", str(tmp_path / "p"), "--from", str(path), "--gold", "points"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--cuts 25,50,75" in said
    assert main(["look", str(path), "--gold", "points", "--cuts", "25,50,75"]) == 0
    project = Project.init(tmp_path / "p", from_=path, mapping=ImportMapping(gold="points", cuts=(25, 50, 75)))
    assert [(g.symbol, g.name) for g in project.task.grades] == [
        ("0", "below 25"), ("1", "from 25 to below 50"), ("2", "from 50 to below 75"), ("3", "from 75")]  # fmt: skip
    found = project.store.frame("select grade, count(*)::int as n from truth group by 1 order by 1").rows()
    points = [i * 7 % 101 for i in range(120)]
    assert [n for _, n in found] == [sum(low <= p < low + 25 + (low == 75) for p in points) for low in (0, 25, 50, 75)]
    for odd in ("50,25", "a,b"):
        assert main(["look", str(path), "--gold", "points", "--cuts", odd]) == 2


def test_a_person_orders_words_and_is_asked_in_doubt(table):
    frame = read_table(table(*judged("query,title,kind", lambda i: (["plum", "fig", "pear"][i % 3],))))
    assert not propose_task(frame).ordered
    said = propose_task(frame, ImportMapping(grades=("pear", "fig", "plum")))
    assert (said.ordered, said.symbols) == (True, ("pear", "fig", "plum"))
    asked: list[Doubt] = []

    def answer(doubt):
        asked.append(doubt)
        return ("fig", "pear", "plum") if doubt.role == "grades" else None

    assert propose_task(frame, settle(frame, ImportMapping(), answer)).symbols == ("fig", "pear", "plum")
    assert [doubt.role for doubt in asked] == ["grades"]


def test_a_grade_taken_by_its_place_alone_is_a_doubt(table):
    frame = read_table(table(*judged("query,title,size,outcome", lambda i: (i % 2, i % 3))))
    found = guess(frame)
    assert found.mapping.gold == "outcome"
    assert found.doubts == (Doubt("gold", "outcome", ("outcome", "size")),)
    assert settle(frame, ImportMapping(), lambda doubt: ("size",)).gold == "size"


# -- a failed or changed beginning ----------------------------------------------------------


def test_what_is_said_about_people_is_no_grade(table):
    people = [("f", "0.31"), ("m", "0.31")]
    rows = [(text, *people[i % 2], i % 3) for i, (_, text) in enumerate(pairs())]
    found = guess(read_table(table("text,annotator_gender,annotator_severity,hateful", rows)))
    assert (found.mapping.gold, found.mapping.raters) == ("hateful", ())
    rows = [(*pair, i % 4, ("ann@x.org", "ben@x.org")[i % 2]) for i, pair in enumerate(pairs())]
    assert guess(read_table(table("query,title,Rating (0-3),Reviewer", rows))).mapping.gold == "Rating (0-3)"


def test_columns_of_which_another_is_the_mean_are_people(table):
    rows = [(*pair, i % 3, (i * 7) % 4, (i % 3 + (i * 7) % 4) / 2) for i, pair in enumerate(pairs())]
    for names in ("score_me,score_other,score_avg", "rater_1,rater_2,relevance"):
        found = guess(read_table(table(f"question,answer,{names}", rows)))
        *raters, mean = names.split(",")
        assert (found.mapping.raters, found.mapping.gold) == (tuple(raters), None)
        assert mean in found.unused["gold"]


def test_a_text_said_twice_is_read_once(table):
    rows = [(f"{q} is", f"( {q} ) is", f"(S (NP {q}) is)", t, i % 3) for i, (q, t) in enumerate(pairs(groups=20))]
    header = "sentence1,sentence1_binary_parse,sentence1_parse,sentence2,label"
    found = guess(read_table(table(header, rows)))
    assert (found.columns, found.mapping.group) == (("sentence1", "sentence2"), "sentence1")


def test_queries_whose_documents_are_ids_alone_are_refused_with_the_join_that_mends_it(table, tmp_path):
    rows = [(query, f"B{i:03}", "EISC"[i // 12 % 4]) for i, (query, _) in enumerate(pairs())]
    path = table("query,product_id,esci_label", rows, "examples.csv")
    with pytest.raises(UsageError, match=r"several grades.*'product_id'") as caught:
        Project.init(tmp_path / "p", from_=path)
    assert "--documents FILE --on product_id" in caught.value.fix


def test_grades_of_what_is_not_read_are_refused_and_votes_of_unnamed_people_are_not(table):
    rng = random.Random(1)
    rows = [(f"query {i // 10}", f"4{i:05}x", rng.randrange(3)) for i in range(300)]
    with pytest.raises(UsageError, match="as if at random") as caught:
        propose_task(read_table(table("query,part,grade", rows)))
    assert "--fields query,part" in caught.value.fix
    votes = [(f"a text of number {i // 5}", f"{i}", (i // 5 + (rng.random() < 0.3)) % 3) for i in range(300)]
    assert propose_task(read_table(table("text,n,grade", votes))).fields == ("text",)


def test_the_owners_ids_are_kept_where_one_stands_for_one_content(table, tmp_path):
    rows = [(i, *pair, f"B{i % 30}", f"seller {i % 7}", i % 3) for i, pair in enumerate(pairs())]
    header = "id,query,title,product_id,seller_id,grade"
    assert guess(read_table(table(header, rows))).mapping.id == "id"  # one product has several titles
    rows = [(i, q, f"{t} {i % 30}", f"B{i}", f"seller {i % 7}", i % 3) for i, (q, t) in enumerate(pairs())]
    project = Project.init(tmp_path / "p", from_=table(header, rows))
    ids = project.store.frame("select external_id from samples")["external_id"].to_list()
    assert sorted(ids) == sorted(f"B{i}" for i in range(60))


def test_numbers_that_may_be_classes_are_taken_in_order_and_said(table, tmp_path):
    path = table(*judged("query,title,label", lambda i: (i % 4,)))
    found = Project.init(tmp_path / "p", from_=path).imported
    assert "ordered = false" in found.reasons["grades"]
    path = table(*judged("query,title,relevance", lambda i: (i % 4,)))
    assert "grades" not in Project.init(tmp_path / "q", from_=path).imported.reasons


def test_a_split_that_cuts_one_group_of_many_is_taken_and_what_lies_outside_is_left_out(table, tmp_path):
    rows = [(f"query {i // 3}", f"title {i}", i % 3, "test" if i > 299 or i == 1 else "train") for i in range(360)]
    found = Project.init(tmp_path / "p", from_=table("query,title,grade,split", rows)).imported
    assert (found.mapping.split, found.report.splits["test"]) == ("split", 60)
    assert [rejection.line for rejection in found.report.rejected] == [3]


def test_a_query_that_a_files_splits_hold_twice_is_told(table, tmp_path, capsys):
    queries = [
        (f"{red} lamp {i}", split) for i in range(30) for red, split in (("red", "train"), ("re\u200bd", "test"))
    ]
    rows = [(query, f"title {i}", i % 3, split) for i, (query, split) in enumerate(queries)]
    assert main(["init", str(tmp_path / "p"), "--from", str(table("query,title,grade,split", rows))]) == 0
    assert "30 pairs of groups that differ in spelling alone" in " ".join(capsys.readouterr().out.split())


def test_a_failed_init_leaves_nothing_and_an_empty_folder_empty(table, tmp_path):
    path = table(*judged("query,title,grade", lambda i: ("1",)))
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new"):
        with pytest.raises(PiarError):
            Project.init(folder, from_=path)
    assert list((tmp_path / "there").iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_fields_and_grades_may_change_until_the_first_verdict(table, tmp_path):
    path = table(*judged("query,title,brand,grade", lambda i: (["acme", "foo"][i % 2], i % 3)))
    project = Project.init(tmp_path / "p", from_=path)
    assert project.task.fields == ("query", "title")
    task = (tmp_path / "p" / "task.toml").read_text()
    changed = task.replace('"title",\n', '"title",\n    "brand",\n').replace(
        "grades = [", 'grades = [{symbol="9",value=9},'
    )
    (tmp_path / "p" / "task.toml").write_text(changed)
    project = Project.open(tmp_path / "p")
    with pytest.raises(PiarError, match="other fields or grades") as caught:
        project.status()
    assert "piar import" in caught.value.fix
    found = project.import_([path])
    assert found.renewed == "piar.duckdb.bak"
    assert project.sql("select count(*), count(brand) from samples").row(0) == (60, 60)
    assert project.task.symbols == ("0", "1", "2", "9")
    project.label()
    (tmp_path / "p" / "task.toml").write_text(task)
    with pytest.raises(PiarError, match="other fields or grades"):
        Project.open(tmp_path / "p").import_([path])
    assert project.sql("select count(*) > 0 from verdicts").item()


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_init_asks_at_a_terminal(table, tmp_path):
    import pty

    path = table(*judged("query,title,size,outcome", lambda i: (i % 2, ["plum", "fig"][i % 2])))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "piar", "init", str(tmp_path / "p"), "--from", str(path)]
    os.write(ours, b"1\nplum,fig\n")
    subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, check=True, timeout=60)
    assert Project.open(tmp_path / "p").task.symbols == ("plum", "fig")


def crowd(answer):
    """Three workers on each of 30 rows; `answer` gives the columns of what one said."""
    return pl.DataFrame(
        [
            {"Input.query": f"query {i // 3} for", "Input.title": f"title {chr(97 + i % 26)} {i}", **answer(i % 3, i)}
            | {"AssignmentStatus": ["Approved", "Rejected"][i % 7 == 0], "WorkerId": f"W{worker}"}
            for i in range(30)
            for worker in range(3)
        ]
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda g, i: {f"Answer.rel.{n}": str(n == g).lower() for n in range(3)}, "counts"),
        (lambda g, i: {"Answer.rel": str(g), "Answer.sure": "", "GOLDEN:rel": str(g) if i % 9 else ""}, "raters"),
    ],
)
def test_what_a_crowd_answered_is_the_grade_and_not_whether_it_was_paid(answer, said):
    frame = crowd(answer)
    found = guess(frame)
    assert (found.mapping.annotator, found.mapping.gold) == ("WorkerId", None)
    assert getattr(found.mapping, said) == tuple(name for name in frame.columns if name.startswith("Answer.rel"))


def test_marks_for_each_grade_are_one_grade():
    frame = crowd(lambda g, i: {f"Answer.rel.{n}": str(n == g).title() for n in range(3)})
    table, name = spread(numbered(frame), [f"Answer.rel.{n}" for n in range(3)])
    assert table.frame[name].to_list() == [str(i % 3) for i in range(30) for _ in range(3)]
