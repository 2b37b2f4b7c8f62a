"""Exports of other tools are read, or refused by name with what turns them into what is read."""

import json
import subprocess

import polars as pl
import pytest

from piar.cli import main
from store.errors import PiarError, UsageError
from store.label_studio import read_export
from store.readers import Reading, read

PRODIGY = [
    {"text": "please refund", "_input_hash": 1, "_task_hash": 2, "accept": ["billing"], "answer": "accept",
     "options": [{"id": "billing", "text": "billing"}], "_annotator_id": "ada"},
    {"text": "it crashes", "_input_hash": 3, "_task_hash": 4, "accept": ["bug"], "answer": "accept",
     "_annotator_id": "bob"},
    {"text": "what", "_input_hash": 5, "_task_hash": 6, "accept": [], "answer": "reject", "_annotator_id": "ada"},
]  # fmt: skip
BINARY = [
    {"text": "please refund", "label": "POSITIVE", "answer": "accept", "_session_id": "db-ada"},
    {"text": "it's late", "label": "POSITIVE", "answer": "reject", "_session_id": "db-ada"},
]
DOCCANO = [
    {"id": 1, "text": "please refund", "label": ["billing"], "Comments": []},
    {"id": 2, "text": "it crashes", "label": ["bug"]},
    {"id": 3, "text": "both", "label": ["bug", "billing"]},
    {"id": 4, "text": "none", "label": []},
]
ARGILLA = [
    {"id": "1", "fields": {"query": "shoes", "title": "red shoes"}, "status": "completed",
     "responses": {"relevance": [{"value": "3", "user_id": "ada"}, {"value": "2", "user_id": "bob"}]}},
    {"id": "2", "fields": {"query": "shoes", "title": "hat"}, "responses": {}},
]  # fmt: skip
OLD_ARGILLA = [
    {"fields": {"text": "red shoes"},
     "responses": [{"user_id": "ada", "status": "submitted", "values": {"relevance": {"value": 3}}},
                   {"user_id": "bob", "status": "discarded", "values": {"relevance": {"value": 0}}}]},
]  # fmt: skip
PROMPTFOO = {
    "evalId": "eval-1",
    "config": {},
    "results": {"version": 3, "results": [
        {"vars": {"query": "shoes"}, "success": True, "response": {"output": "red shoes"}, "testIdx": 0},
        {"vars": {"query": "hats"}, "success": False, "response": {"output": "sorry"}, "testIdx": 1},
    ]},
}  # fmt: skip


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def votes_of(table):
    """(row, annotator, grade) of each vote that says a grade."""
    return table.votes.drop_nulls("grade").select("row", "annotator", "grade").rows()


@pytest.mark.parametrize("name", ["p.jsonl", "p.json"])
def test_answers_of_prodigy_are_votes(tmp_path, name):
    (tmp_path / name).write_text(json.dumps(PRODIGY) if name.endswith("n") else lines(PRODIGY))
    table = read(tmp_path / name)
    assert table.frame["text"].to_list() == ["please refund", "it crashes", "what"]
    assert votes_of(table) == [(0, "ada", "billing"), (1, "bob", "bug")]
    assert table.votes["flags"].to_list() == [[], [], ["skipped"]]


def test_one_label_of_prodigy_is_accepted_or_rejected(tmp_path):
    (tmp_path / "b.jsonl").write_text(lines(BINARY))
    assert votes_of(read(tmp_path / "b.jsonl")) == [(0, "db-ada", "accept"), (1, "db-ada", "reject")]


def test_who_answered_a_task_of_prodigy_twice_has_one_vote(tmp_path):
    task = {**PRODIGY[0], "_annotator_id": "ann", "_task_hash": 7}
    again = [{**task, "accept": [name]} for name in ("bug", "feature")]
    (tmp_path / "p.jsonl").write_text(lines([*again, {**again[0], "_annotator_id": "bob"}]))
    table = read(tmp_path / "p.jsonl")
    assert table.votes.select("annotator", "grade").rows() == [("ann", "feature"), ("bob", "bug")]
    assert "without 1 answer that the same person gave anew later" in table.notes


def test_two_people_on_one_text_of_prodigy_are_one_row(tmp_path):
    again = [*PRODIGY, {**PRODIGY[0], "accept": ["bug"], "_annotator_id": "bob"}]
    (tmp_path / "p.jsonl").write_text(lines(again))
    table = read(tmp_path / "p.jsonl")
    assert len(table.frame) == 3
    assert sorted(votes_of(table)) == [(0, "ada", "billing"), (0, "bob", "bug"), (1, "bob", "bug")]


@pytest.mark.parametrize("name", ["d.jsonl", "d.json"])
def test_doccanos_single_labels_are_gold(tmp_path, name):
    (tmp_path / name).write_text(json.dumps(DOCCANO) if name.endswith("n") else lines(DOCCANO))
    table = read(tmp_path / name)
    assert table.frame.select("text", "label").rows() == [
        ("please refund", "billing"), ("it crashes", "bug"), ("none", "")]  # fmt: skip
    assert table.roles == {"gold": "label"}
    assert [rejection.reason for rejection in table.rejected] == ["2 labels: one grade a row"]


@pytest.mark.parametrize("records", [ARGILLA, OLD_ARGILLA])
def test_responses_of_argilla_are_votes(tmp_path, records):
    (tmp_path / "a b.json").write_text(json.dumps(records))
    table = read(tmp_path / "a b.json")
    assert votes_of(table)[0] == (0, "ada", "3")
    assert len(table.frame) == len(records)


@pytest.mark.parametrize(
    "record",
    [
        {"fields": {"text": "a"}, "responses": {"q": [{"value": "3", "user_id": "ada", "status": "draft"}]}},
        {"fields": {"text": "a"}, "responses": [{"user_id": "a", "status": "draft", "values": {"q": {"value": 3}}}]},
        {"text": "a", "q.responses": ["3"], "q.responses.users": ["ada"], "q.responses.status": ["draft"]},
    ],
)
def test_drafts_of_argilla_are_no_votes(tmp_path, record):
    (tmp_path / "a.jsonl").write_text(lines([record]))
    table = read(tmp_path / "a.jsonl")
    assert table.votes.select("grade", "flags").rows() == [("3", ["draft"])]


def test_argillas_datasets_in_parquet_are_read_by_question(tmp_path):
    rows = [
        {"query": "shoes", "title": "red shoes", "relevance.responses": ["3", "2"], "tone.responses": ["ok"],
         "relevance.responses.users": ["ada", "bob"], "tone.responses.users": ["ada"],
         "relevance.responses.status": ["submitted", "discarded"]},
    ]  # fmt: skip
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="answers to 'relevance'") as error:
        read(tmp_path / "a.parquet")
    assert "--control relevance" in error.value.fix
    table = read(tmp_path / "a.parquet", Reading(control="relevance"))
    assert table.frame.select("query", "title").rows() == [("shoes", "red shoes")]
    assert votes_of(table) == [(0, "ada", "3")]


@pytest.mark.parametrize("content", [json.dumps(PROMPTFOO), lines(PROMPTFOO["results"]["results"])])
def test_results_of_promptfoo_are_rows_that_passed_or_failed(tmp_path, content):
    content = content.replace('"testIdx"', '"promptIdx": 0, "testIdx"')
    (tmp_path / "out.json").write_text(content)
    table = read(tmp_path / "out.json")
    assert table.frame.rows() == [("shoes", "red shoes", "pass"), ("hats", "sorry", "fail")]
    assert table.roles == {"gold": "grade"}


def test_the_printed_command_makes_rows_of_a_file_for_fasttext(tmp_path):
    (tmp_path / "fast.txt").write_text('__label__pos good thing\n__label__neg bad "thing, really\n')
    with pytest.raises(PiarError, match="a file for fastText, which is not read yet") as error:
        read(tmp_path / "fast.txt")
    command = error.value.fix.partition(": ")[2].partition(" — then give ")[0]
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert read(tmp_path / "rows.tsv").frame.rows() == [("pos", "good thing"), ("neg", 'bad "thing, really')]


QUEPID = "Team Name,Case Name,Case ID,Query Text,Doc ID,Doc Position,Rating,title\n" + "".join(
    f"search,movies,5,query {i // 6},{i},{i % 6},{i % 3},movie number {i}\n" for i in range(60)
)


def test_a_quepid_export_is_read_with_the_options_that_the_refusal_names(tmp_path, capsys):
    (tmp_path / "q.csv").write_text(QUEPID)
    assert main(["look", str(tmp_path / "q.csv")]) == 1
    said = capsys.readouterr().err
    assert "a Quepid export" in said
    assert "add --plain --gold Rating --group 'Query Text'" in " ".join(said.split())
    options = ["--plain", "--gold", "Rating", "--group", "Query Text"]
    assert main(["init", str(tmp_path / "p"), "--from", str(tmp_path / "q.csv"), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["import"]["added"] == 60


@pytest.mark.parametrize(
    ("content", "called"),
    [
        ("301 Q0 doc1 1 2.5 bm25\n301 Q0 doc2 2 1e-3 bm25\n", "TREC run"),
        ("2 qid:1 1:0.5 2:0.1 # doc\n0 qid:1 1:0.2 2:0\n", "SVMlight"),
        (lines([{"text": "a b", "label": [[0, 1, "PER"]]}]), "spans of texts"),
        ('query,"[openai:gpt] Grade"\nshoes,"[PASS] 3"\n', "promptfoo"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:ab12\nsize 120\n", "Git LFS"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, called):
    path = tmp_path / "file.csv"
    path.write_text(content)
    with pytest.raises(PiarError, match=called) as error:
        read(path)
    assert error.value.fix


@pytest.mark.parametrize(
    ("head", "called"),
    [
        (b"%PDF-1.7\n", "PDF"), (b"SQLite format 3\x00", "SQLite"), (b"{\\rtf1", "RTF"), (b"7z\xbc\xaf\x27", "7z"),
        (b"<!DOCTYPE html><html>", "web page"), (b"<?xml version='1.0'?>", "XML"), (b"\x80\x04\x95", "pickle"),
        (b"-- dump\nSET x = 1;\nCOPY t (a) FROM stdin;\n", "dump"), (b"INSERT INTO t VALUES ('a', 1);\n", "dump"),
        (bytes(257) + b"ustar\x0000", "tar"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "workbook"),
    ],
)  # fmt: skip
def test_files_that_are_no_tables_are_called_what_they_are(tmp_path, head, called):
    (tmp_path / "file").write_bytes(head + bytes(300))
    with pytest.raises(PiarError, match=called):
        read(tmp_path / "file")


def test_tables_that_look_alike_are_tables(tmp_path):
    for name, content in {
        "words.tsv": "id\tword\tlang\tgrade\n1\tlamp\ten\t2\n",
        "list.jsonl": lines([{"text": "a", "tags": ["x"], "label": "good"}]),
        "answer.jsonl": lines([{"question": "q", "answer": "accept", "label": 1}]),
        "rating.csv": "query,title,rating\na,b,1\n",
        "results.json": json.dumps({"results": [{"query": "a", "grade": 1}]}),
    }.items():
        (tmp_path / name).write_text(content)
        assert len(read(tmp_path / name).frame) == 1
    (tmp_path / "d.jsonl").write_text(lines(DOCCANO))
    assert len(read(tmp_path / "d.jsonl", Reading(plain=True)).frame) == 4


def test_lists_of_labels_in_parquet_are_seen_too(tmp_path):
    pl.DataFrame({"text": ["a", "b"], "labels": [["x", "y"], ["x"]]}).write_parquet(tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet")
    assert table.frame.select("text", "label").rows() == [("b", "x")]
    assert len(table.rejected) == 1


# -- Label Studio: two controls ---------------------------------------------------------------


def chosen(control, choice):
    return {"from_name": control, "type": "choices", "value": {"choices": [choice]}}


TASKS = [
    {"id": i, "data": {"query": f"query {i // 4}", "title": f"thing number {i}"},
     "annotations": [{"completed_by": 1, "result": [
         chosen("english", "Yes"), *([chosen("relevant", ["No", "Yes"][i % 2])] if i % 10 else [])]}]}
    for i in range(40)
]  # fmt: skip
CONFIG = """<View><Text name="t" value="$query $title"/>
<Choices name="relevant" toName="t"><Choice value="Yes"/><Choice value="No"/></Choices>
<Choices name="english" toName="t"><Choice value="Yes"/><Choice value="No"/></Choices></View>"""


@pytest.fixture
def two(tmp_path):
    (tmp_path / "two.json").write_text(json.dumps(TASKS))
    (tmp_path / "two.xml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize("config", [[], ["--label-config", "two.xml"]])
def test_of_two_controls_one_is_named_and_the_other_is_never_taken(two, config, capsys, monkeypatch):
    monkeypatch.chdir(two)
    assert main(["init", "p", "--from", "two.json", *config]) == 2
    said = capsys.readouterr().err
    assert "'relevant'" in said
    assert "--control" in said
    assert not (two / "p" / "piar.toml").exists()
    assert main(["init", "p", "--from", "two.json", *config, "--control", "relevant"]) == 0
    capsys.readouterr()
    right = "l.grade = case when right(title, 1) in ('1','3','5','7','9') then 'Yes' else 'No' end"
    query = f"select count(*), count(*) filter (where {right}) from labels l join samples using (sample_id)"
    assert main(["sql", query, "-C", "p", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [[36, 36]]


def test_a_control_that_nobody_used_is_wrong_usage(two):
    with pytest.raises(UsageError, match="Nobody used a control 'relevence'"):
        read(two / "two.json", Reading(control="relevence"))


FLAT = [
    {"text": f"review number {i}", "id": i, "sentiment": ["Positive", "Negative"][i % 2], "annotator": 1 + i % 2,
     "annotation_id": 100 + i, "created_at": "2024-03-01T10:00:00Z", "updated_at": "2024-03-01T10:00:00Z",
     "lead_time": 4.5} for i in range(30)
]  # fmt: skip


@pytest.mark.parametrize("name", ["min.json", "min.csv"])
def test_label_studios_flat_exports_keep_who_when_and_how_long(tmp_path, name, capsys):
    path = tmp_path / name
    path.write_text(json.dumps(FLAT) if name.endswith("json") else pl.DataFrame(FLAT).write_csv())
    assert main(["init", str(tmp_path / "p"), "--from", str(path)]) == 0
    capsys.readouterr()
    query = "select source, annotator, grade, count(*), any_value(seconds), year(any_value(created_at)) from label"
    assert main(["sql", f"{query} group by all order by all", "-C", str(tmp_path / "p"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row[:2] + row[3:] for row in rows] == [["human", "1", 15, 4.5, 2024], ["human", "2", 15, 4.5, 2024]]
    assert len({row[2] for row in rows}) == 2


def test_of_a_text_that_comes_again_and_a_scale_the_scale_is_proposed(tmp_path):
    rows = [
        {"annotation_id": i, "annotator": 1, "id": i, "item": f"lamp {i % 6}", "rel": ["bad", "good"][i % 2]}
        for i in range(24)
    ]
    (tmp_path / "min.csv").write_text(pl.DataFrame(rows).write_csv())
    with pytest.raises(UsageError, match="several columns") as error:
        read(tmp_path / "min.csv")
    assert error.value.fix == "Name it: --control rel"


ITEMS = [{**{k: v for k, v in row.items() if k != "sentiment"}, "query": f"lamp {row['id'] // 5}"} for row in FLAT]


@pytest.mark.parametrize(
    ("said", "grades"),
    [
        (lambda i: [{"rating": 1 + i % 3}], ["1", "2", "3"]),
        (lambda i: [{"number": i % 3}], ["0", "1", "2"]),
        (lambda i: [{"taxonomy": [["apt", ["near", "far"][i % 2]]]}], ["apt_/_far", "apt_/_near"]),
        (lambda i: ["no", "yes"][i % 2], ["no", "yes"]),
    ],
)
@pytest.mark.parametrize("options", [[], ["--control", "grade"]])
@pytest.mark.parametrize("name", ["min.json", "min.csv"])
def test_a_query_beside_the_grade_of_a_flat_export_is_read(tmp_path, name, options, said, grades, capsys):
    rows = [{**row, "grade": said(row["id"])} for row in ITEMS]
    cells = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
    (tmp_path / name).write_text(json.dumps(rows) if name.endswith("json") else pl.DataFrame(cells).write_csv())
    assert main(["init", str(tmp_path / "p"), "--from", str(tmp_path / name), *options]) == 0
    capsys.readouterr()
    queries = "select count(distinct query), list_sort(list(distinct grade)) from label join samples using (sample_id)"
    assert main(["sql", queries, "-C", str(tmp_path / "p"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [[6, grades]]


@pytest.mark.parametrize("name", ["min.csv", "all.json"])
def test_whoever_answered_a_task_twice_has_one_vote_the_later_one(tmp_path, name):
    again = [{**row, "annotation_id": 900 + row["id"], "sentiment": "Mixed", "updated_at": "2024-04-01T10:00:00Z"}
             for row in FLAT[:4]]  # fmt: skip
    tasks = [{"data": {"text": f"review {i}"}, "annotations": [
        {"completed_by": 1, "updated_at": row["updated_at"],
         "result": [{"from_name": "s", "type": "choices", "value": {"choices": [row["sentiment"]]}}]}
        for row in (*again, *FLAT) if row["id"] == i]} for i in range(30)]  # fmt: skip
    (tmp_path / "min.csv").write_text(pl.DataFrame([*again, *FLAT]).write_csv())
    (tmp_path / "all.json").write_text(json.dumps(tasks))
    table = read(tmp_path / name)
    assert table.votes["grade"].value_counts().sort("grade").rows() == [
        ("Mixed", 4),
        ("Negative", 13),
        ("Positive", 13),
    ]
    assert table.notes == ("without 4 answers that the same person gave anew later",)


@pytest.mark.parametrize(("kind", "held"), [("number", 2), ("taxonomy", [["2"]])])
def test_numbers_and_taxonomies_are_grades_where_no_choice_is(kind, held):
    answer = {"from_name": "how", "type": kind, "value": {kind: held}}
    table = read_export([{"data": {"text": "a"}, "annotations": [{"completed_by": 1, "result": [answer]}]}], "x.json")
    assert table.votes["grade"].to_list() == ["2"]


def test_of_two_answers_in_a_flat_export_one_is_named(tmp_path):
    rows = [{**row, "english": json.dumps({"choices": ["Yes", "No"][i % 2 :]})} for i, row in enumerate(FLAT)]
    (tmp_path / "min.csv").write_text(pl.DataFrame(rows).write_csv())
    with pytest.raises(UsageError, match="several columns that could hold the grade: 'sentiment', 'english'"):
        read(tmp_path / "min.csv")
    table = read(tmp_path / "min.csv", Reading(control="sentiment"))
    assert "english" not in table.frame.columns
    assert table.notes == ("without what seems to be answers of other controls: 'english'",)
    assert table.votes["grade"].to_list() == [row["sentiment"] for row in FLAT]
    assert set(read(tmp_path / "min.csv", Reading(control="english")).votes["grade"]) == {"Yes | No", "No"}


@pytest.mark.parametrize("state", ["AssignmentStatus", "ASSIGNMENT:status"])
def test_crowds_work_that_was_rejected_is_no_answer(tmp_path, state):
    cells = ["lamp,red lamp,1,Approved", "lamp,a shoe,1,Rejected", "shoe,a shoe,0,Submitted"]
    (tmp_path / "work.csv").write_text("\n".join([f"query,title,grade,{state}", *cells]) + "\n")
    table = read(tmp_path / "work.csv")
    assert table.frame["title"].to_list() == ["red lamp", "a shoe"]
    assert table.lines.to_list() == [2, 4]
    assert [(one.line, one.reason) for one in table.rejected] == [(3, "work that was rejected")]


def test_labels_that_a_machine_gave_are_no_gold(tmp_path):
    rows = [{"source": f"shoe {i}", "rel": i % 2, "rel-metadata": {"human-annotated": "no" if i > 3 else "yes"}}
            for i in range(6)]  # fmt: skip
    (tmp_path / "out.manifest.jsonl").write_text(lines(rows))
    table = read(tmp_path / "out.manifest.jsonl")
    assert table.frame["rel"].to_list() == ["0", "1", "0", "1", "", ""]
    assert "without 2 labels of rel that a machine gave" in table.notes
