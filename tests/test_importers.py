"""Files become samples and labels; what cannot is counted with its reason."""

import pytest

from store.db import Store
from store.importers import ImportMapping, import_files, read_table
from store.propose import guess, propose_task
from tests.data import shared

CHORUS = ImportMapping(gold="grade", raters=("rater_1", "rater_2", "rater_3"), id="item_id")


def test_chorus_is_understood_and_imported_once(tmp_path):
    path = shared("chorus/chorus.csv")
    frame = read_table(path)
    found = guess(frame)
    assert found.mapping.gold == "grade"
    assert found.mapping.raters == ("rater_1", "rater_2", "rater_3")
    assert found.mapping.group == "query"
    task = propose_task(frame)
    assert task.fields == ("query", "name")
    assert task.symbols == ("0", "1", "2", "3")
    store = Store.create(tmp_path / "piar.duckdb", task)
    first = import_files(store, [path], CHORUS, "run")
    assert (first.read, first.added, first.known, first.repeats, first.rejected) == (3188, 2884, 0, 304, [])
    again = import_files(store, [path], CHORUS, "run-2")
    assert (again.added, again.known, again.labels) == (0, 2884, 0)
    two_grades = store.frame(
        "select sample_id from labels where source = 'gold' group by 1 having count(distinct grade) > 1"
    )
    assert len(two_grades) == 8
    assert store.frame("select count(*) from labels").item() == 4 * 3188


def test_dbpedia_imports_in_full(tmp_path):
    path = shared("dbpedia_entity/pairs.parquet")
    task = propose_task(read_table(path), ImportMapping(fields={"query": "query", "title": "text"}))
    store = Store.create(tmp_path / "piar.duckdb", task)
    mapping = ImportMapping(fields={"title": "text"}, gold="grade", id="item_id")
    report = import_files(store, [path], mapping, "run")
    assert (report.read, report.added, report.rejected) == (40168, 40168, [])
    straddling = store.frame("select group_key from samples group by 1 having count(distinct split) > 1")
    assert straddling.is_empty()
    assert report.splits["train"] / 40168 == pytest.approx(0.4, abs=0.05)
