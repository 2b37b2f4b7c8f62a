"""The journal keeps every answer once, whatever happens to the process or the file."""

import fcntl
import random
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.db import Store
from store.ids import sample_id, short_hash
from store.journal import Journal
from store.task import Task
from store.types import Completion, Failure, Trace, Usage, Verdict
from tests import SOAK

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


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder / "journal")
    yield Store.create(folder / "piar.duckdb", TASK), journal
    journal.close()


def printable(text):
    """Half a surrogate pair is no text that a file can hold."""
    return text.encode("utf-8", "replace").decode()


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


def test_a_damaged_line_is_set_aside_and_counted(store, journal, tmp_path, caplog):
    for i in range(4):
        journal.append("teacher", "run", *answer(i))
    journal.close()
    segment = next((tmp_path / "journal").glob("*.jsonl"))
    lines = segment.read_bytes().splitlines()
    lines[1] = b'{"at": 1, "answer": ["k1"], "verdict": null}'
    lines[2] = lines[2].replace(b'"m","2"', b'"m",{"not": "text"}')
    segment.write_bytes(b"\n".join([*lines, b"\xff\xfe", b'{"at": 17, "answer": [1, 2']))  # the last one is torn
    assert journal.fold(store) == 2
    assert keys(store) == ["k0", "k3"]
    assert journal.corrupt == 4
    assert "unreadable journal lines" in caplog.text
    aside = next((tmp_path / "journal").glob("*.corrupt")).read_bytes()
    assert aside.count(b"\n") == 4
    assert journal.fold(store) == 0


def test_a_line_that_is_still_being_written_is_waited_for(store, journal, tmp_path):
    journal.append("teacher", "run", *answer(0))
    journal.fold(store)
    segment = next((tmp_path / "journal").glob("*.jsonl"))
    whole = segment.read_bytes()
    with segment.open("ab") as file:  # the writer holds its lock, so the half line is no damage
        file.write(whole[:40])
        file.flush()
        assert journal.fold(store) == 0
        file.write(whole[40:])
    assert journal.fold(store) == 1
    assert journal.corrupt == 0


@given(
    text=st.none() | st.text(st.characters(codec=None)),
    failure=st.none() | st.builds(Failure, st.sampled_from(["timeout", "refused"]), st.text()),
    usage=st.builds(Usage, *[st.integers(0, 2**40)] * 3),
    cost=st.floats(0, 1e6),
    evidence=st.lists(st.text(), max_size=3).map(tuple),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_goes_in_comes_out(shared_store, text, failure, usage, cost, evidence):
    store, journal = shared_store
    key = short_hash([text, str(failure), str(usage), cost, evidence])
    completion = Completion(key, "m", text, failure=failure, usage=usage, cost_usd=cost)
    verdict = Verdict(key, sample_id("g", [key]), "j", "i", 1, None, None, Trace("2", evidence), "malformed")
    journal.append("teacher", "run", completion, verdict)
    journal.append("teacher", "run", completion, verdict)
    assert journal.fold(store) == 2
    rows = store.frame("select * from completions where key = ?", [key]).rows(named=True)
    row = rows[-1]
    assert row["text"] == (None if text is None else printable(text))
    assert row["failure"] == (failure and failure.kind)
    assert row["error"] == (failure and printable(failure.message))
    assert (row["tokens_in"], row["tokens_cached"], row["tokens_out"]) == (usage.prompt, usage.cached, usage.completion)
    assert row["cost_usd"] == cost
    verdict_row = store.frame("select evidence, failure from verdict where key = ?", [key]).rows()[0]
    assert verdict_row == ([printable(span) for span in evidence], "malformed")


def test_long_segments_are_cut_and_folded_in_batches(store, journal, monkeypatch, tmp_path):
    monkeypatch.setattr("store.journal.SEGMENT_BYTES", 2_000)
    monkeypatch.setattr("store.journal.FOLD_ROWS", 3)
    for i in range(20):
        journal.append("teacher", "run", *answer(i))
    assert len(list((tmp_path / "journal").glob("*.jsonl"))) > 2
    assert journal.due
    assert journal.fold(store) == 20
    assert not journal.due
    journal.close()
    journal.fold(store)
    assert list((tmp_path / "journal").iterdir()) == []
    assert store.frame("select * from journal_offsets").is_empty()


def test_a_segment_that_another_process_folds_and_removes_meanwhile_is_not_folded_again(store, tmp_path, monkeypatch):
    writer = Journal(tmp_path / "journal")
    for i in range(3):
        writer.append("teacher", "run", *answer(i))
    writer.close()
    [segment] = (tmp_path / "journal").glob("*.jsonl")
    other, write, lock = Journal(tmp_path / "journal"), store.write, segment.open("rb")
    fcntl.flock(lock, fcntl.LOCK_EX)  # another process has begun with it

    def late():
        # The segment is open by now; before the store is ours, the other one has folded and removed it.
        monkeypatch.setattr(store, "write", write)
        lock.close()
        other.fold(store)
        return write()

    monkeypatch.setattr(store, "write", late)
    Journal(tmp_path / "journal").fold(store)
    assert len(keys(store)) == 3


def test_folding_inside_a_transaction_is_refused(store, journal):
    with store.write(), pytest.raises(RuntimeError, match="inside"):
        journal.fold(store)


def run_child(code, *args):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)], stdout=subprocess.PIPE, text=True
    )


def test_a_full_disk_loses_nothing_that_was_kept(store, tmp_path):
    code = """
        import resource, sys
        from pathlib import Path
        from tests.store.test_journal import answer
        from store.errors import PiarError
        from store.journal import Journal
        journal = Journal(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
        kept = 0
        try:
            while True:
                journal.append("teacher", "run", *answer(kept))
                kept += 1
        except PiarError as error:
            assert "cannot be written or read" in error.message
        journal.close()
        print(kept)
    """
    child = run_child(code, tmp_path / "journal")
    kept = int(child.communicate(timeout=60)[0])
    journal = Journal(tmp_path / "journal")
    assert journal.fold(store) == kept > 3
    assert journal.corrupt == 0


WRITER = """
    import sys
    from pathlib import Path
    from tests.store.test_journal import TASK, answer
    from store.db import Store
    from store.journal import Journal
    folder, name = Path(sys.argv[1]), sys.argv[2]
    store = Store.open(folder / "piar.duckdb", TASK)
    journal = Journal(folder / "journal")
    for i in range(1_000_000):
        journal.append("teacher", "run", *answer(f"{name}-{i}"))
        print(f"k{name}-{i}", flush=True)
        if i % 40 == 39:
            journal.fold(store)
"""


def kill_writers(folder, rng, round_):
    """Two processes append and fold; both are killed at random instants. Returns the answers that had arrived."""
    children = [run_child(WRITER, folder, f"{round_}{name}") for name in "ab"]
    arrived = []
    for child in children:
        arrived.append(child.stdout.readline().strip())
    time.sleep(rng.random() * 0.5)
    for child in children:
        child.kill()
        rest = child.stdout.read().split("\n")
        child.stdout.close()
        child.wait(30)
        arrived += rest[:-1]  # a last line without its end was not reported in full
    return arrived


def check_killed(store, tmp_path, instants):
    rng = random.Random(5)
    arrived = [key for i in range(instants) for key in kill_writers(tmp_path, rng, i)]
    journal = Journal(tmp_path / "journal")
    journal.fold(store)
    found = keys(store)
    assert len(found) == len(set(found))
    assert set(arrived) <= set(found)
    assert len(found) - len(set(arrived)) <= 4 * instants  # those that were about to be reported
    assert len(keys(store)) == store.frame("select count(*) from verdicts").item()


def test_processes_killed_at_random_instants_lose_and_double_nothing(store, tmp_path):
    check_killed(store, tmp_path, 2)


@pytest.mark.integration
def test_processes_killed_at_many_instants_lose_and_double_nothing(store, tmp_path):
    check_killed(store, tmp_path, 50 if SOAK else 16)
