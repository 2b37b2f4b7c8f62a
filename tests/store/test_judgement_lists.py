"""Judgement lists of search tools, read as what they say and joined with the texts that they lack."""

import json
from pathlib import Path

import polars as pl
import pytest

from piar import Project
from piar.cli import main
from store.errors import UsageError
from store.readers import Reading, read

BOOK = {
    "name": "shoes", "show_rank": False, "scale": [0, 1, 2, 3],
    "scale_with_labels": {"0": "Poor", "1": "Fair", "2": "Good", "3": "Perfect"},
    "judging_guidelines": "Judge how well the product fits.\n\n- A product of another kind is 0.\n",
    "query_doc_pairs": [
        {"query_text": f"query {i // 5}", "doc_id": f"d{i}", "position": i % 5,
         "document_fields": {"title": f"product number {i}", "query": "clash", "price": 10 + i},
         "judgements": [
             {"rating": float(i % 4), "unrateable": False, "judge_later": False, "user_email": "ada@example.com",
              "explanation": f"because {i}"},
             {"rating": None, "unrateable": True, "judge_later": False, "user_email": "bob@example.com",
              "explanation": "BOOM"} if i % 3 == 0 else
             {"rating": (i + 1) % 4, "unrateable": False, "judge_later": False, "user_email": "bob@example.com"}]}
        for i in range(40)],
}  # fmt: skip


def documents(folder: Path) -> Path:
    path = folder / "docs.parquet"
    pl.DataFrame(
        {"sku": [f"d{i}" for i in range(40)], "title": [f"product number {i}" for i in range(40)]}
    ).write_parquet(path)
    return path


def test_a_book_of_quepid_comes_in_whole(tmp_path):
    (tmp_path / "book.json").write_text(json.dumps(BOOK))
    project = Project.init(tmp_path / "p", from_=tmp_path / "book.json")
    store = project.store
    assert {"query", "title"} <= set(project.task.fields)
    assert store.frame("select count(*) from samples").item() == 40
    assert set(store.frame("select distinct external_id from samples")["external_id"]) == {f"d{i}" for i in range(40)}
    labels = store.frame("select * from label")
    assert set(labels["annotator"]) == {"ada@example.com", "bob@example.com"}
    assert set(labels["source"]) == {"human"}
    said = labels.filter(pl.col("annotator") == "ada@example.com")
    assert all(comment.startswith("because") for comment in said["comment"])
    doubts = labels.filter(pl.col("flags").list.contains("ambiguous"))
    assert len(doubts) == 14
    assert doubts["grade"].null_count() == 14
    assert [(g.symbol, g.name) for g in project.task.grades][::3] == [("0", "Poor"), ("3", "Perfect")]
    assert "another kind" in (project.folder / "instruction.md").read_text()


def test_the_scale_of_a_book_holds_grades_that_nobody_gave(tmp_path):
    pairs = [
        {**pair, "judgements": [{"rating": i % 2, "user_email": "ada"}]}
        for i, pair in enumerate(BOOK["query_doc_pairs"])
    ]
    (tmp_path / "book.json").write_text(json.dumps({**BOOK, "query_doc_pairs": pairs, "scale_with_labels": None}))
    project = Project.init(tmp_path / "p", from_=tmp_path / "book.json")
    assert project.task.symbols == ("0", "1", "2", "3")


def test_a_book_without_pairs_is_told_so(tmp_path, capsys):
    (tmp_path / "book.json").write_text(json.dumps({**BOOK, "query_doc_pairs": []}))
    assert main(["look", str(tmp_path / "book.json")]) == 1
    assert "has no rows" in capsys.readouterr().err


def test_look_reads_a_book_with_its_judges(tmp_path, capsys):
    (tmp_path / "book.json").write_text(json.dumps(BOOK))
    assert main(["look", str(tmp_path / "book.json"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["columns"]["raters"] == ["annotator_1", "annotator_2"]
    assert found["columns"]["group"] == "query"
    assert any("Quepid book" in note for note in found["notes"])


LISTS = {
    "case.csv": "query,docid,rating\n" + "".join(f"query {i // 5},d{i},{i % 4}\n" for i in range(40)) + "alone,,\n",
    "case.json": json.dumps({"queries": [
        {"query_text": f"query {q}", "ratings": {f"d{i}": i % 4 for i in range(q * 5, q * 5 + 5)}} for q in range(8)]}),
    "opensearch.json": json.dumps({"name": "n", "description": "d", "type": "IMPORT_JUDGMENT", "judgmentRatings": [
        {"query": f"query {q}", "ratings": [
            {"docId": f"d{i}", "rating": f"{i % 4}.0"} for i in range(q * 5, q * 5 + 5)]} for q in range(8)]}),
    "ltr.txt": "".join(f"{i % 4} qid:{i // 5} # d{i} query {i // 5}\n\n" for i in range(40)),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_ids_say_so_at_once_and_come_in_with_the_documents(tmp_path, name):
    (tmp_path / name).write_text(LISTS[name])
    with pytest.raises(UsageError, match="documents by ids") as error:
        read(tmp_path / name)
    assert "--documents documents.parquet" in error.value.fix
    reading = Reading(documents=documents(tmp_path), on="sku")
    project = Project.init(tmp_path / "p", from_=tmp_path / name, reading=reading)
    found = project.store.frame(
        "select group_key, external_id, title, grade from samples join truth using (sample_id) order by external_id"
    )
    expected = sorted((f"query {i // 5}", f"d{i}", f"product number {i}", str(i % 4)) for i in range(40))
    assert sorted(found.rows(), key=lambda row: row[1]) == sorted(expected, key=lambda row: row[1])


QRELS = "".join(f"q{i // 5} 0 d{i} {i % 4}\n" for i in range(40))
BEIR = "query-id\tcorpus-id\tscore\n" + "".join(f"q{i // 5}\td{i}\t{i % 4}\n" for i in range(40))


@pytest.mark.parametrize("content", [QRELS, QRELS.replace(" ", "\t"), BEIR])
def test_qrels_come_in_with_documents_and_queries(tmp_path, content):
    (tmp_path / "qrels.txt").write_text(content)
    (tmp_path / "queries.jsonl").write_text("".join(f'{{"_id": "q{q}", "text": "query {q}"}}\n' for q in range(8)))
    with pytest.raises(UsageError, match="by ids") as error:
        read(tmp_path / "qrels.txt")
    assert "--queries" in error.value.fix
    reading = Reading(documents=documents(tmp_path), queries=tmp_path / "queries.jsonl")
    project = Project.init(tmp_path / "p", from_=tmp_path / "qrels.txt", reading=reading)
    rows = project.store.frame("select group_key, query, external_id from samples order by 1").rows()
    assert rows[0][:2] == ("q0", "query 0")
    assert project.task.group_by == "query_id"


def test_a_document_without_a_text_is_counted(tmp_path):
    (tmp_path / "case.csv").write_text(LISTS["case.csv"] + "query 1,gone,2\n")
    table = read(tmp_path / "case.csv", Reading(documents=documents(tmp_path)))
    assert [rejection.reason for rejection in table.rejected] == ["its document 'gone' is not in docs.parquet"]
    with pytest.raises(UsageError, match="No document of case"):
        read(tmp_path / "case.csv", Reading(documents=documents(tmp_path), on="title"))
    with pytest.raises(UsageError, match="no column 'nothing'"):
        read(tmp_path / "case.csv", Reading(documents=documents(tmp_path), on="nothing"))


def test_the_book_as_csv_has_one_rater_a_column_and_no_formula(tmp_path):
    text = "query,docid,Ada Lovelace,Bob (AI)\n" + "".join(
        f"{' =sum' if i < 5 else f'query {i // 5}'},d{i},{i % 4}.0,{'' if i % 3 else i % 4}\n" for i in range(40)
    )
    (tmp_path / "book.csv").write_text(text)
    project = Project.init(tmp_path / "p", from_=tmp_path / "book.csv", reading=Reading(documents=documents(tmp_path)))
    labels = project.store.frame("select distinct annotator from label order by 1")
    assert labels["annotator"].to_list() == ["Ada Lovelace", "Bob (AI)"]
    assert "=sum" in project.store.frame("select distinct group_key from samples")["group_key"].to_list()


def test_a_grade_beside_ids_is_gold_and_a_ranking_is_no_book(tmp_path):
    rows = [f"query {i // 5},d{i},{i % 4}" for i in range(40)]
    (tmp_path / "own.csv").write_text("\n".join(["query,docid,grade", *rows]))
    table = read(tmp_path / "own.csv", Reading(documents=documents(tmp_path)))
    assert table.roles == {"group": "query", "id": "docid", "gold": "grade"}
    (tmp_path / "run.csv").write_text("\n".join(["query,docid,rank", *rows]))
    assert read(tmp_path / "run.csv").roles == {}


def test_candidates_of_umbrela_come_in_and_a_model_s_judgement_is_no_gold(tmp_path):
    records = [
        {"query": {"text": f"query {q}", "qid": str(q)}, "candidates": [
            {"doc": {"segment": f"passage {q} {i}"}, "docid": f"d{q}{i}", "judgment": i % 4} for i in range(5)]}
        for q in range(8)]  # fmt: skip
    (tmp_path / "u.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    table = read(tmp_path / "u.jsonl")
    assert table.frame.columns == ["query_id", "docid", "query", "passage", "rater_umbrela"]
    project = Project.init(tmp_path / "p", from_=tmp_path / "u.jsonl")
    assert project.store.frame("select distinct source from label")["source"].to_list() == ["human"]


def test_a_plain_list_of_ids_is_joined_by_the_column_that_both_have(tmp_path):
    (tmp_path / "grades.csv").write_text(
        "query,sku,grade\n" + "".join(f"query {i // 5},d{i},{i % 4}\n" for i in range(40))
    )
    table = read(tmp_path / "grades.csv", Reading(documents=documents(tmp_path), on="sku"))
    assert table.frame.columns == ["query", "sku", "grade", "title"]
    assert read(tmp_path / "grades.csv", Reading(documents=documents(tmp_path))).frame.equals(table.frame)
    (tmp_path / "other.csv").write_text("query,what,grade\n" + "".join(f"q{i},d{i},{i % 4}\n" for i in range(40)))
    with pytest.raises(UsageError, match="Nothing says which column"):
        read(tmp_path / "other.csv", Reading(documents=documents(tmp_path)))


def test_products_of_one_id_are_told_apart_by_their_locale(tmp_path):
    rows = [(f"query {i // 4}", f"B{i}", ("us", "es")[i % 2], "EISC"[i % 4]) for i in range(40)]
    pl.DataFrame(rows, ["query", "product_id", "product_locale", "label"], orient="row").write_parquet(
        tmp_path / "examples.parquet"
    )
    texts = [(f"B{i}", where, f"title of {i} in {where}") for i in range(40) for where in ("es", "us")]
    pl.DataFrame(texts, ["product_id", "product_locale", "title"], orient="row").write_csv(tmp_path / "products.csv")
    table = read(tmp_path / "examples.parquet", Reading(documents=tmp_path / "products.csv"))
    assert table.frame["title"].to_list() == [f"title of {i} in {('us', 'es')[i % 2]}" for i in range(40)]
    assert table.notes == ("texts of products.csv joined by product_id and product_locale",)


def test_tables_without_a_header_give_all_their_texts(tmp_path):
    (tmp_path / "qrels").write_text("".join(f"{100 + i // 5} U0 {100 + i // 5}_{i} {i % 4}\n" for i in range(40)))
    (tmp_path / "docs.tsv").write_text("".join(f"{100 + i // 5}_{i}\tpassage {i}\n" for i in range(40)))
    (tmp_path / "queries.tsv").write_text("".join(f"{100 + q}\twhat is {q}\n" for q in range(8)))
    reading = Reading(documents=tmp_path / "docs.tsv", queries=tmp_path / "queries.tsv")
    frame = read(tmp_path / "qrels", reading).frame
    assert frame.columns == ["query_id", "docid", "grade", "text", "query"]
    assert frame.row(0) == ("100", "100_0", "0", "passage 0", "what is 0")
    assert len(frame) == 40


def test_a_folder_in_beirs_layout_comes_in_with_its_splits(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    for k, split in enumerate(("train", "test")):
        rows = "".join(f"q{k}{i // 5}\td{k}{i}\t{i % 3}\n" for i in range(40))
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    docs = [json.dumps({"_id": f"d{k}{i}", "title": "", "text": f"text {k} {i}"}) for k in (0, 1) for i in range(40)]
    queries = [json.dumps({"_id": f"q{k}{q}", "text": f"query {k} {q}"}) for k in (0, 1) for q in range(8)]
    (folder / "corpus.jsonl").write_text("\n".join(docs))
    (folder / "queries.jsonl").write_text("\n".join(queries))
    project = Project.init(tmp_path / "p", from_=folder)
    found = project.store.frame("select split, count(*)::int as n, count(distinct text)::int from samples group by 1")
    assert sorted(found.rows()) == [("test", 40, 40), ("train", 40, 40)]
