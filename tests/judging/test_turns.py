"""Two commands at once: one asks, the other waits its turn and pays for nothing that the first was answered."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from benchmarks.judging import session
from piar.connect import connect
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import AuditSettings
from piar.judging.labeller import Labeller
from piar.judging.requests import Assignment
from piar.judging.settings import LabelSettings
from piar.llm.settings import ModelSettings
from store.db import Store
from store.errors import PiarError
from store.journal import Journal
from store.turns import Turn, alone
from store.types import Rule
from synth import SynthSettings, synthesize
from tests.faulty_server import FaultyServer
from tests.judging.test_label import INSTRUCTION, TASK, Scripted, samples
from tests.worlds import SEED, WordReviser, loop_models, world

HOLD = """
import sys, time
from pathlib import Path
from store.turns import Turn
Turn(Path(sys.argv[1]), "piar label").take()
print("held", flush=True)
time.sleep(60)
"""


def waits(monkeypatch, seconds=0.0):
    monkeypatch.setattr("store.turns.PATIENCE_SECONDS", seconds)
    monkeypatch.setattr("store.turns.LOOK_SECONDS", 0.001)


@pytest.fixture
def holder(tmp_path):
    """Another process that has the turn."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "x.lock")], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_who_waits_is_told_for_whom_and_a_killed_holder_lets_go(tmp_path, holder, monkeypatch):
    waits(monkeypatch)
    told = []

    def tell(words):
        told.append(words)
        holder.kill()

    assert Turn(tmp_path / "x.lock", "piar label", tell=tell).take() is False  # nobody asked since we began
    assert len(told) == 1
    assert f"`piar label` (process {holder.pid}, since " in told[0]


def test_a_wait_can_be_ended(tmp_path, holder, monkeypatch):
    waits(monkeypatch, 60)
    with pytest.raises(KeyboardInterrupt):
        Turn(tmp_path / "x.lock", "piar label").take(lambda: True)


def test_who_lets_go_stands_behind_who_waits(tmp_path, monkeypatch):
    waits(monkeypatch, 60)
    mine, other, order = Turn(tmp_path / "x.lock", "a"), Turn(tmp_path / "x.lock", "b"), []
    mine.take()

    def wait():
        assert other.take()
        order.append("other")
        other.release()

    thread = threading.Thread(target=wait)
    thread.start()
    while not (tmp_path / "x.next").exists() or _free(tmp_path / "x.next"):
        time.sleep(0.001)
    mine.release()
    assert mine.take()  # another had it meanwhile
    order.append("mine")
    thread.join()
    mine.release()
    assert order == ["other", "mine"]
    assert not mine.take()


def _free(path):
    import fcntl

    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PiarError, match="cannot be written"), alone(tmp_path / "file" / "x.lock", "piar evolve"):
        pass


class Slow(Scripted):
    """Lets others run between two answers."""

    def one(self, request, on_completion):
        time.sleep(0.0005)
        return super().one(request, on_completion)


def test_two_at_once_pay_once(tmp_path, monkeypatch):
    waits(monkeypatch, 60)
    client, store, rows = Slow(), Store.create(tmp_path / "s.duckdb", TASK), samples(20)

    def label():
        journal = Journal(tmp_path / "journal")
        with Labeller(session(store, client, journal, settings=LabelSettings(chunk=7))) as labeller:
            reports.append(labeller.judge([Assignment(INSTRUCTION, rows)]))
        journal.close()

    reports = []
    together(label)
    assert len(client.asked) == len(set(client.asked)) == len(rows)
    assert sorted(report.asked + report.cached for report in reports) == [len(rows)] * 2
    assert sum(report.asked for report in reports) == len(rows)
    assert all(report.labelled == len(rows) for report in reports)


def test_what_is_known_needs_no_turn(tmp_path):
    store, client, rows = Store.create(tmp_path / "s.duckdb", TASK), Scripted(), samples(5)
    journal = Journal(tmp_path / "journal")
    with Labeller(session(store, client, journal)) as labeller:
        labeller.judge([Assignment(INSTRUCTION, rows)])
        [lock] = journal.folder.glob("asking-*.lock")
    with alone(lock, "piar label"), Labeller(session(store, client, journal)) as labeller:
        assert labeller.judge([Assignment(INSTRUCTION, rows)]).cached == len(rows)


def test_two_searches_at_once_pay_an_endpoint_once(tmp_path, monkeypatch):
    waits(monkeypatch, 60)
    store, _ = world(tmp_path, groups=20, per_group=3)
    settings = EvolveSettings(rounds=1, audit=AuditSettings(items=0, canary=0))

    def search(url):
        teacher = ModelSettings(model="openai:m", base_url=url)
        journal, models = Journal(tmp_path / "journal"), loop_models(connect(teacher), WordReviser(), teacher)
        reports.append(evolve(store, models, SEED, settings, journal=journal)[0])
        journal.close()

    reports = []
    with FaultyServer(latency=0.0005).running() as server:
        together(search, server.url)
        asked = [json.dumps(body["messages"]) for body in server.bodies]
    assert len(asked) == len(set(asked)) > 0
    assert reports[0] == reports[1]


class Drafts(WordReviser):
    """Writes the same few drafts whenever it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def say(self, request):
        self.asked.append(request.key)
        return json.dumps({"samples": [{"query": "q0", "title": f"fresh {n} w{n}"} for n in range(3)]})


def test_two_syntheses_at_once_pay_for_drafts_and_verdicts_once(tmp_path, monkeypatch):
    waits(monkeypatch, 60)
    store, _ = world(tmp_path, groups=20, per_group=3)
    instruction = replace(SEED, rules=(Rule("R01", "the title has w0", "0"),))
    cell, writer = "select 'R01' as rule, '0' as grade, 3 as wanted", Drafts()

    def write(url):
        teacher = ModelSettings(model="openai:m", base_url=url)
        journal = Journal(tmp_path / "journal")
        judging, writing = (
            session(store, client, journal, run_id=threading.current_thread().name, model=teacher)
            for client in (connect(teacher), writer)
        )
        settings = SynthSettings(votes=1, methods=("structured",))
        synthesize(judging, instruction, settings, writer=writing, targets=cell)
        journal.close()

    with FaultyServer(latency=0.0005).running() as server:
        together(write, server.url)
        asked = [json.dumps(body["messages"]) for body in server.bodies]
    assert len(asked) == len(set(asked)) == 3
    assert len(writer.asked) == len(set(writer.asked)) > 0


def together(work, *arguments):
    """Two who do the same at the same time."""
    threads = [threading.Thread(target=work, args=arguments) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
