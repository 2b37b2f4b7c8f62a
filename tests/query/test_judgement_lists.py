"""Judgement lists out and in again: what came in goes out equal."""

import json
import re
from pathlib import Path

import ir_measures
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piar import Project
from piar.cli import main
from store.errors import PiarError, UsageError
from store.importers import ImportMapping
from store.readers import Reading
from tests.documents import check
from tests.store.test_judgement_lists import BOOK, LISTS, QRELS, documents


def came_in(folder: Path, name: str, content: str, **reading) -> Project:
    (folder / name).write_text(content)
    return Project.init(folder / "p", from_=folder / name, reading=Reading(**reading))


def test_a_book_goes_out_as_it_came(tmp_path):
    project = came_in(tmp_path, "book.json", json.dumps(BOOK))
    found = project.export_list("quepid", tmp_path / "out.json")
    assert (found.rows, found.nameless) == (40, 0)
    book = json.loads((tmp_path / "out.json").read_text())
    assert book["scale"] == BOOK["scale"]

    def plain(pairs):
        judged = {}
        for pair in pairs:
            said = sorted(
                (j["user_email"], j["rating"], bool(j["unrateable"]), bool(j["judge_later"]), j.get("explanation"))
                for j in pair["judgements"]
            )
            judged[pair["query_text"], pair["doc_id"]] = (pair["document_fields"]["title"], said)
        return judged

    assert plain(book["query_doc_pairs"]) == plain(BOOK["query_doc_pairs"])


RATINGS = "query,docid,rating\n" + "".join(f"query {i // 5},d{i},{i % 4}\n" for i in range(40))


@pytest.mark.parametrize(
    ("form", "name", "content"),
    [
        ("quepid-case", "case.csv", RATINGS),
        ("opensearch", "opensearch.json", LISTS["opensearch.json"]),
        ("ltr", "ltr.txt", LISTS["ltr.txt"]),
    ],
)
def test_ratings_go_out_as_they_came(tmp_path, form, name, content):
    project = came_in(tmp_path, name, content, documents=documents(tmp_path))
    out = tmp_path / f"out-{name}"
    assert project.export_list(form, out).rows == 40
    if name.endswith(".json"):
        ours, theirs = json.loads(out.read_text())["judgmentRatings"], json.loads(content)["judgmentRatings"]
        assert _by_query(ours) == _by_query(theirs)
    else:
        assert _plain(out.read_text()) == _plain(content)


def _by_query(ratings: list) -> dict:
    return {q["query"]: sorted((r["docId"], r["rating"]) for r in q["ratings"]) for q in ratings}


def _plain(text: str) -> list[str]:
    """The lines in order, whatever numbers the queries have."""
    return sorted(re.sub(r"qid:\d+", "qid", line) for line in text.splitlines() if line)


def test_qrels_go_out_as_they_came_and_ir_measures_reads_them(tmp_path):
    queries = tmp_path / "queries.tsv"
    queries.write_text("query_id\ttext\n" + "".join(f"q{q}\tquery {q}\n" for q in range(8)))
    project = came_in(tmp_path, "qrels.txt", QRELS, documents=documents(tmp_path), queries=queries)
    out = tmp_path / "out.qrels"
    found = project.export_list("qrels", out)
    assert found.queries is None
    assert sorted(out.read_text().splitlines()) == sorted(QRELS.splitlines())
    read = {(q.query_id, q.doc_id): q.relevance for q in ir_measures.read_trec_qrels(str(out))}
    assert read == {(f"q{i // 5}", f"d{i}"): i % 4 for i in range(40)}


def test_queries_with_blanks_get_numbers_and_a_table(tmp_path):
    project = came_in(tmp_path, "case.csv", RATINGS, documents=documents(tmp_path))
    found = project.export_list("qrels", tmp_path / "out.qrels")
    texts = dict(pl.read_csv(found.queries, separator="\t", schema_overrides={"query_id": pl.String}).rows())
    read = {
        (texts[q.query_id], q.doc_id): q.relevance for q in ir_measures.read_trec_qrels(str(tmp_path / "out.qrels"))
    }
    assert read == {(f"query {i // 5}", f"d{i}"): i % 4 for i in range(40)}


def test_a_book_as_csv_goes_out_with_a_blank_before_what_a_spreadsheet_runs(tmp_path):
    content = "query,docid,ada,bob\n" + "".join(
        f"{' =sum' if i < 5 else f'query {i // 5}'},d{i},{i % 4},{'' if i % 3 else i % 4}\n" for i in range(40)
    )
    project = came_in(tmp_path, "book.csv", content, documents=documents(tmp_path))
    assert project.export_list("quepid-csv", tmp_path / "out.csv").rows == 40
    assert sorted((tmp_path / "out.csv").read_text().splitlines()) == sorted(content.splitlines())


def test_umbrelas_lines_and_the_letters_of_esci(tmp_path):
    project = came_in(tmp_path, "case.csv", RATINGS, documents=documents(tmp_path))
    project.export_list("umbrela", tmp_path / "u.jsonl")
    records = [json.loads(line) for line in (tmp_path / "u.jsonl").read_text().splitlines()]
    assert records[0]["candidates"][1] == {"doc": {"segment": "product number 1"}, "docid": "d1", "judgment": 1}
    project.export_list("esci", tmp_path / "e.csv")
    frame = pl.read_csv(tmp_path / "e.csv")
    assert dict(frame.select("product_id", "esci_label").rows()) == {f"d{i}": "ICSE"[i % 4] for i in range(40)}


GRADES = ("0", "1", "2", "3")
QUERIES = st.sampled_from(["red shoes", "=cmd", 'a "b", c', "жёлтый"])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(QUERIES, st.integers(0, 3)), min_size=12, max_size=30))
def test_any_ratings_of_a_case_survive_the_way_there_and_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("case")
    rows = [*rows, ("red shoes", 0), ("red shoes", 3)]
    fields = {"query": "query", "title": "title"}
    columns = ImportMapping(gold="grade", group="query", id="docid", fields=fields, grades=GRADES)
    project = Project.init(folder / "p", from_=_table(folder, rows), mapping=columns)
    project.export_list("quepid-case", folder / "case.csv")
    docs = {"docid": [f"d{i}" for i in range(len(rows))], "title": [f"title of {i}" for i in range(len(rows))]}
    pl.DataFrame(docs).write_csv(folder / "docs.csv")
    reading = Reading(documents=folder / "docs.csv", on="docid")
    again = Project.init(folder / "q", from_=folder / "case.csv", reading=reading, mapping=ImportMapping(grades=GRADES))
    asked = "select group_key, external_id, grade from samples join truth using (sample_id) order by all"
    assert again.store.frame(asked).rows() == project.store.frame(asked).rows()


def _table(folder: Path, rows: list[tuple[str, int]]) -> Path:
    """Rows with a text and an id each."""
    data = [(query, f"title of {i}", f"d{i}", str(grade)) for i, (query, grade) in enumerate(rows)]
    pl.DataFrame(data, orient="row", schema=["query", "title", "docid", "grade"]).write_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def test_samples_without_ids_are_told_of_and_get_them_by_importing_again(tmp_path, capsys):
    rows = _table(tmp_path, [(f"query {i // 4}", i % 3) for i in range(24)])
    columns = {"gold": "grade", "group": "query", "fields": {"query": "query", "title": "title"}}
    pl.read_parquet(rows).drop("docid").write_parquet(tmp_path / "bare.parquet")
    project = Project.init(tmp_path / "p", from_=tmp_path / "bare.parquet", mapping=ImportMapping(**columns))
    with pytest.raises(PiarError, match="No labelled sample has an id") as error:
        project.export_list("qrels", tmp_path / "out.qrels")
    assert "--id COLUMN" in error.value.fix
    project.import_([rows], ImportMapping(**columns, id="docid"))
    asked = ["export", "labels", str(tmp_path / "out.qrels"), "--format", "qrels", "-C", str(project.folder)]
    assert main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check("export", document)
    assert document["rows"] == 24
    assert main(asked) == 2
    assert "exists" in capsys.readouterr().err
    with pytest.raises(UsageError, match="stand for four grades"):
        project.export_list("esci", tmp_path / "e.csv")
