"""The journal keeps every answer once, whatever happens to the process or the file."""

import pytest

from store.db import Store
from store.ids import sample_id
from store.journal import Journal
from store.task import Task
from store.types import Completion, Trace, Verdict

TASK = Task.model_validate(
    {
        "name": "t",
        "group_by": "query",
        "fields": ["query", "title"],
        "grades": [{"symbol": str(i), "value": i} for i in range(4)],
        "steps": [{"name": "kind"}],
    }
)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "piar.duckdb", TASK)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


def answer(i, text="2"):
    trace = Trace("2", ("a b",), {"kind": "x"}, ("R1",), "2")
    verdict = Verdict(f"k{i}", sample_id("g", [str(i), ""]), "teacher:m", "abc", 0, "2", (0.1, 0.2, 0.6, 0.1), trace)
    return Completion(f"k{i}", "m", text, cost_usd=0.5), verdict


def keys(store):
    return store.frame("select key from completions order by key")["key"].to_list()


def test_fold_loads_what_was_appended_and_removes_closed_segments(store, journal, tmp_path):
    for i in range(5):
        journal.append("teacher", "run", *answer(i))
    assert journal.fold(store) == 5
    assert journal.fold(store) == 0
    journal.append("reviser", "run", Completion("k9", "m", "free text"), None)
    journal.close()
    assert journal.fold(store) == 1
    assert keys(store) == ["k0", "k1", "k2", "k3", "k4", "k9"]
    assert list((tmp_path / "journal").iterdir()) == []
    row = store.frame("select * from verdicts where key = 'k3'").row(0, named=True)
    assert row["evidence"] == ["a b"]
    assert row["steps"] == ["x"]
    assert row["sample_id"] == sample_id("g", ["3", ""])
    assert row["probs"] == pytest.approx([0.1, 0.2, 0.6, 0.1])
