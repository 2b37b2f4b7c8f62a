"""The store: truth by votes, labels never overwritten, a file that is held, damaged or old."""

import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from datetime import datetime

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import migrations
from store.db import Store
from store.errors import PiarError
from store.ids import content_id, sample_id
from store.task import Task
from store.types import Instruction, Label, Verdict

TASK = Task.model_validate(
    {
        "name": "t",
        "group_by": "query",
        "fields": ["query", "title"],
        "grades": [{"symbol": s, "value": v} for s, v in [("bad", 0), ("fair", 1), ("good", 2), ("best", 3)]],
    }
)
SAMPLE = sample_id("tv", ["tv", "a set"])


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "piar.duckdb", TASK)


@pytest.fixture(scope="module")
def memory():
    with duckdb.connect() as con:
        yield con


def people(*grades, source="human"):
    return [Label(SAMPLE, source, f"person {i}", grade) for i, grade in enumerate(grades)]


def truth(store):
    return store.frame("select grade, basis from truth").rows()


@pytest.mark.parametrize(
    ("grades", "winner"),
    [
        (["good", "good", "bad"], "good"),
        (["bad", "fair", "best"], "fair"),  # all differ: the median
        (["bad", "best"], "bad"),  # equally near the median: the lower
        (["best", "bad"], "bad"),
        (["bad", "bad", "best", "best", "good"], "best"),  # of the tied, nearest the median
    ],
)
def test_majority_breaks_ties_by_the_median_then_the_lower_grade(store, grades, winner):
    store.add_labels(people(*grades), "run")
    assert truth(store) == [(winner, "majority")]


def test_drafts_and_skips_are_no_votes(store):
    first, second, third = people("best", "best", None)
    store.add_labels([replace(first, flags=("draft",)), replace(second, flags=("skipped",)), third], "run")
    assert truth(store) == []
    store.add_labels([Label(SAMPLE, "human", "d", "fair")], "run")
    assert truth(store) == [("fair", "majority")]


def test_gold_wins_over_people_and_several_gold_votes_are_counted(store):
    store.add_labels(people("bad", "bad", "bad"), "run")
    store.add_labels([Label(SAMPLE, "gold", "gold", g, ordinal=i) for i, g in enumerate(["good", "best", "best"])], "r")
    assert truth(store) == [("best", "gold")]


def test_teachers_labels_are_never_truth_and_consensus_is_apart(store):
    store.add_labels([Label(SAMPLE, "teacher", "teacher:m", "best"), Label(SAMPLE, "consensus", "ds", "good")], "run")
    assert truth(store) == []
    assert store.frame("select grade, basis from consensus").rows() == [("good", "consensus")]


def test_a_correction_counts_although_the_clock_went_back(store, monkeypatch):
    store.add_labels(people("good"), "r")
    monkeypatch.setattr("store.db.now", lambda: datetime(2001, 1, 1))
    store.add_labels(people("bad"), "r")
    store.add_labels(people("fair"), "r")
    assert truth(store) == [("fair", "majority")]


def test_a_label_is_added_once_and_a_change_is_a_new_row(store):
    label = Label(SAMPLE, "human", "ann", "bad", at=datetime(2026, 1, 1))
    assert store.add_labels([label, label], "run") == 1
    assert store.add_labels([replace(label, seconds=3.0)], "run") == 0
    assert store.add_labels([replace(label, grade="good", at=datetime(2026, 1, 2))], "run") == 1
    assert store.add_labels([replace(label, at=datetime(2026, 1, 3))], "run") == 1  # back to the first opinion
    assert store.frame("select grade from label").rows() == [("bad",)]
    assert store.frame("select count(*) from labels").item() == 3


def test_verdicts_in_bulk(store):
    verdict = Verdict("", SAMPLE, "baseline:majority", "", 0, "best", (0.0, 0.0, 0.0, 1.0))
    assert store.record_verdicts([verdict], "run") == 1
    rows = store.frame("select judge, grade, probs, vote, instruction from verdict").rows()
    assert rows == [("baseline:majority", "best", [0, 0, 0, 1], 0, "")]


def test_views_measure_judges_against_truth(store):
    ids = [sample_id("tv", ["tv", str(i)]) for i in range(4)]
    with store.write() as con:
        for i in ids:
            con.execute(
                "insert into samples (sample_id, group_key, split, source, run_id, created_at) "
                "values (?, 'tv', 'test', 's', 'r', now())",
                [i],
            )
    store.add_labels([Label(i, "gold", "gold", "good") for i in ids], "run")
    said = ["good", "bad", None, "good"]
    store.record_verdicts([Verdict("k", i, "j", "a", 0, g) for i, g in zip(ids, said, strict=True)], "run")
    store.record_verdicts([Verdict("k", ids[1], "j", "b", 0, "good")], "run")
    board = store.frame("select n, accuracy from leaderboard where instruction = 'a'").rows()
    assert board == [(4, 0.5)]  # an answer that failed is wrong
    assert store.frame("select verdict, n from confusion where instruction = 'a' order by 1").rows() == [
        ("(failed)", 1), ("bad", 1), ("good", 2)]  # fmt: skip
    assert store.frame("select count(*) from errors").item() == 2
    assert store.frame("select count(*) from disagreements").item() == 1
    assert store.frame("select grade_before, grade_after from flips where before = 'a'").rows() == [("bad", "good")]


@given(st.lists(st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]), max_size=8), min_size=1))
@settings(max_examples=50, deadline=None)
def test_duckdb_computes_the_same_ids(memory, parts):
    marks = ", ".join("?" for _ in parts)
    row = memory.execute(f"select sha256(concat_ws(chr(31), {marks}))[:32]::uuid::varchar", parts).fetchall()
    assert row[0][0] == content_id(*parts)


def test_a_failed_write_changes_nothing(store):
    def interrupted():
        with store.write() as con:
            con.execute("insert into meta values ('a', 'b')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.frame("select * from meta where key = 'a'").is_empty()


def test_threads_take_turns(store):
    def work(i):
        store.add_labels([Label(content_id(str(i)), "human", "a", "bad")], "run")
        store.frame("select count(*) from label")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.frame("select count(*) from labels").item() == 8


def test_threads_with_store_objects_of_their_own_take_turns_too(store):
    def work(i):
        own = Store(store.path, TASK)
        for n in range(5):
            try:
                own.add_labels([Label(content_id(f"{i} {n}"), "human", "a", "bad")], "run")
                own.frame("select count(*) from label")
            except Exception as error:
                failed.append(error)

    failed = []
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert store.frame("select count(*) from labels").item() == 20


def test_two_store_objects_that_keep_the_same_instruction_at_once_keep_it_once(store):
    one, start = Instruction("Judge it."), threading.Barrier(4)

    def keep():
        own = Store(store.path, TASK)
        start.wait()
        own.put_instruction(one, "run")

    for n in range(5):
        one = Instruction(f"Judge it, {n}.")
        threads = [threading.Thread(target=keep) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.instruction(one.id) == one


def test_what_another_thread_holds_is_not_held_here(store):
    seen = []
    with store.read():
        asking = threading.Thread(target=lambda: seen.append(store.held))
        asking.start()
        asking.join()
        assert (store.held, seen) == (True, [False])
    assert not store.held


def test_a_second_process_hears_who_holds_the_store(store):
    code = textwrap.dedent("""
        import sys, duckdb
        con = duckdb.connect(sys.argv[1])
        print("held", flush=True)
        sys.stdin.read()
    """)
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        impatient = Store(store.path, TASK, wait=0.2)
        with pytest.raises(PiarError, match=f"held by process {other.pid}"), impatient.read():
            pass
        threading.Timer(0.3, other.stdin.close).start()
        assert store.frame("select count(*) from samples").item() == 0  # waits its turn
    finally:
        other.stdin.close()
        other.stdout.close()
        other.wait(10)


def test_another_store_object_of_this_process_waits_too(store):
    other = Store(store.path, TASK, wait=0.1)
    with store.write(), pytest.raises(PiarError, match="another part of this process"), other.read():
        pass


@pytest.mark.parametrize("content", [b"not a database at all", os.urandom(20_000)])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "piar.duckdb"
    path.write_bytes(content)
    with pytest.raises(PiarError, match="damaged, or no DuckDB file"):
        Store.open(path, TASK)


def test_a_truncated_store_is_an_error_a_user_can_mend(store):
    store.add_labels(people("bad"), "run")
    data = store.path.read_bytes()
    store.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PiarError):
        Store.open(store.path, TASK).frame("select * from label")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PiarError, match="cannot be opened"):
        Store.create(tmp_path / "no" / "piar.duckdb", TASK)
    with pytest.raises(PiarError, match="no store"):
        Store.open(tmp_path / "piar.duckdb", TASK)


def test_a_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("create table t (a int)")
    with pytest.raises(PiarError, match="not a piar store"):
        Store.open(path, TASK)


def test_other_fields_or_grades_are_refused(store):
    with pytest.raises(PiarError, match="other fields or grades"):
        Store.open(store.path, TASK.model_copy(update={"fields": ("query", "body")}))


def test_an_old_store_is_migrated_once_and_a_failing_step_changes_nothing(store, monkeypatch):
    store.add_labels(people("bad"), "run")
    known, step = migrations.MIGRATIONS, "alter table labels add column x int"
    monkeypatch.setattr(migrations, "MIGRATIONS", (*known, lambda con: con.execute(step) / 0))
    with pytest.raises(TypeError):
        Store.open(store.path, TASK)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*known, lambda con: con.execute(step)))
    for _ in range(2):
        migrated = Store.open(store.path, TASK)
        assert migrated.frame("select x, grade from label").rows() == [(None, "bad")]
    assert migrated.frame("select value from meta where key = 'schema'").item() == str(len(known) + 2)
    monkeypatch.setattr(migrations, "MIGRATIONS", ())
    with pytest.raises(PiarError, match="newer piar"):
        Store.open(store.path, TASK)


BY_CLOCK = """
create or replace view verdict as select * from verdicts qualify row_number() over (
    partition by sample_id, judge, instruction, vote order by (grade is not null) desc, created_at desc, key) = 1
"""


@pytest.mark.parametrize("old", [False, True])
def test_the_later_answer_to_a_vote_counts_although_the_clock_went_back(store, monkeypatch, old):
    """Two answers of one vote under two keys, as after another temperature; also in a store of before."""
    for key, grade, year in (("before", "bad", 2031), ("after", "good", 2026), ("failed", None, 2027)):
        monkeypatch.setattr("store.db.now", lambda year=year: datetime(year, 1, 1))
        store.record_verdicts([Verdict(key, SAMPLE, "teacher:t", "i", 0, grade)], "run")
    if old:
        with store.write() as con:
            con.execute(BY_CLOCK)
            con.execute("update meta set value = '1' where key = 'schema'")
    assert store.frame("select grade from verdict").item() == ("bad" if old else "good")
    assert Store.open(store.path, TASK).frame("select grade from verdict").item() == "good"


def test_a_full_disk_is_an_error_a_user_can_mend(store):
    code = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from store.db import Store
        from store.errors import PiarError
        from store.task import Task
        from store.types import Label
        from store.ids import content_id
        store = Store.open(Path(sys.argv[1]), Task.model_validate_json(sys.argv[2]))
        limit = store.path.stat().st_size + 20_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        labels = [Label(content_id(str(i)), "human", "a", None, comment=content_id(str(-i))) for i in range(20_000)]
        try:
            store.add_labels(labels, "run")
        except PiarError as error:
            print("mendable:", error.message)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.path), TASK.model_dump_json()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("mendable: piar.duckdb could not be written"), done.stderr
    assert store.frame("select count(*) from labels").item() == 0


def test_a_full_disk_under_an_export_is_told_in_words(store):
    with pytest.raises(PiarError, match="No space left") as caught, store.read() as con:
        con.execute("copy (select * from range(100000)) to '/dev/full' (format csv, use_tmp_file false)")
    assert "Free some space" in caught.value.fix
