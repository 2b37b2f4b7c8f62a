"""Labelling through a server that misbehaves, processes that are killed, and a key that must not leak."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from benchmarks.judging import judge
from piar.connect import connect
from piar.judging.settings import LabelSettings
from piar.llm.settings import ModelSettings
from store.db import Store
from store.errors import PiarError
from store.ids import sample_id
from store.journal import Journal
from store.task import Grade, Task, sample_text
from store.types import Instruction, Rule, Sample
from tests import ROOT, SOAK
from tests.faulty_server import GRADES, FaultyServer, right_grade

TASK = Task(name="t", group_by="q", fields=("q",), grades=tuple(Grade(symbol=g, value=float(g)) for g in GRADES))
INSTRUCTION = Instruction("Judge.", (Rule("R01", "Anything goes."),))
KEY = "sk-planted-7f3a9c51e2"
CONCURRENCY = 32


def samples(count):
    texts = [f"sample {i}" for i in range(count)]
    return [Sample(sample_id(t, (t,)), t, {"q": t}) for t in texts]


def label(folder, url, count, run_id, chunk=500, **model):
    """One run of labelling into the project in `folder`."""
    defaults = {"timeout": 0.4, "attempts": 4, "concurrency": CONCURRENCY, "api_key_env": "TEST_KEY"}
    model = ModelSettings(model="openai:m", base_url=url, **(defaults | model))
    store, journal = Store.create(folder / "piar.duckdb", TASK), Journal(folder / "journal")
    notices = []
    client = connect(model, notices.append)
    try:
        return judge(store, client, INSTRUCTION, samples(count), journal=journal, model=model, run_id=run_id,
                     settings=LabelSettings(chunk=chunk))  # fmt: skip
    finally:
        journal.close()
        (folder / f"notices-{run_id}.log").write_text("\n".join(notices))


@pytest.fixture
def _quick(monkeypatch):
    """Pauses a tenth as long, for a server that answers in two thousandths of a second."""
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr("piar.llm.openai.pacing.PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("piar.llm.openai.asking.BACKOFF_SECONDS", 0.05)


def check_all_accounted_for(folder, count):
    store = Store.open(folder / "piar.duckdb", TASK)
    rows = {r["sample_id"]: r for r in store.frame("select * from verdict").iter_rows(named=True)}
    assert len(rows) == count
    for sample in samples(count):
        row = rows[sample.id]
        assert row["grade"] == right_grade(sample_text(sample.fields)) or row["failure"], row
    failed = store.frame("select failure, error from completions where failure is not null")
    assert all(failed["error"])
    return {r["failure"] for r in rows.values() if r["grade"] is None}


@pytest.mark.usefixtures("_quick")
def test_every_sample_ends_as_a_verdict_or_an_explained_failure(tmp_path):
    server = FaultyServer(seed=1, faults=0.15, malformed=0.1, latency=0.001)
    with server.running():
        report = label(tmp_path, server.url, 600, "a")
        assert report.asked == 600
        assert report.labelled + sum(report.failed.values()) == 600
        assert check_all_accounted_for(tmp_path, 600) <= {"malformed", "timeout", "connection", "server"}
        failed = sum(report.failed.values())
        assert 0 < failed < 60

        again = label(tmp_path, server.url, 600, "b")
        assert (again.asked, again.cached) == (failed, 600 - failed)


@pytest.mark.usefixtures("_quick")
def test_a_planted_key_is_nowhere_after_a_run_with_failures(tmp_path):
    server = FaultyServer(key="another", latency=0)
    with server.running(), pytest.raises(Exception, match="Incorrect API key") as caught:
        label(tmp_path, server.url, 100, "a")
    server = FaultyServer(seed=2, faults=0.5, malformed=0.3, latency=0, reject=("seed",))
    with server.running():
        label(tmp_path, server.url, 100, "b", attempts=2)
    assert KEY not in str(caught.value)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {"piar.duckdb", "notices-a.log", "notices-b.log"} <= {p.name for p in files}
    for file in files:
        assert KEY.encode() not in file.read_bytes(), file
        assert b"planted" not in file.read_bytes(), file


def kill_until_done(folder, server, count, kills, seed):
    """Label in child processes that are killed after random whiles; returns the requests billed beyond need."""
    draw = random.Random(seed)
    environment = {**os.environ, "TEST_KEY": KEY, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(folder), server.url, str(count)]
    for kill in range(kills):
        before = sum(server.billed.values())
        child = subprocess.Popen(command, env=environment)
        goal = before + draw.randrange(1, max(2, (count - before) // (kills - kill)))
        while sum(server.billed.values()) < goal and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
    subprocess.run(command, env=environment, check=True)
    return sum(server.billed.values()) - len(server.billed)


CHILD = """
import sys
from pathlib import Path
from piar.llm.openai import asking, pacing
from tests.judging.test_faults import label
pacing.PAUSE_SECONDS = asking.BACKOFF_SECONDS = 0.05
label(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), "run", attempts=20, timeout=60)
"""


MANY = (20_000, 30) if SOAK else (6_000, 12)


@pytest.mark.parametrize(("count", "kills"), [(300, 2), pytest.param(*MANY, marks=pytest.mark.integration)])
@pytest.mark.timeout(3000)
def test_killed_processes_pay_twice_only_for_what_was_in_flight(tmp_path, count, kills):
    faults = ("429", "429_retry_after", "500", "reset", "error_with_200")  # each is tried again until it is answered
    server = FaultyServer(seed=4, faults=0.05, kinds=faults, latency=0.002)
    with server.running():
        twice = kill_until_done(tmp_path, server, count, kills, seed=4)
    assert check_all_accounted_for(tmp_path, count) == set()
    assert len(server.billed) == count
    assert twice <= kills * CONCURRENCY


@pytest.mark.integration
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("_quick")
def test_many_samples_and_an_endpoint_that_dies_for_a_while(tmp_path):
    how = {"timeout": 1, "attempts": 12, "chunk": 10_000}
    count, dies, lives = (20_000, 10, 70) if SOAK else (5_000, 3, 23)
    server = FaultyServer(seed=5, faults=0.1, malformed=0.1, latency=0.002)
    with server.running():
        threading.Timer(dies, server.die).start()
        threading.Timer(lives, server.revive).start()
        report = label(tmp_path, server.url, count, "a", **how)
        assert report.asked == count
        assert check_all_accounted_for(tmp_path, count) == {"malformed"}
        failed = sum(report.failed.values())
        # Nearly all that is left is never readable: twelve answers in a row may end the run, and it says so.
        stopped = ""
        try:
            label(tmp_path, server.url, count, "b", **how)
        except PiarError as error:
            stopped = error.message
        assert not stopped or "none of 12 answers could be read" in stopped
        assert len(server.billed) >= count - failed
