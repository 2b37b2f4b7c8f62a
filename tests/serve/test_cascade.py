"""`/score` of a cascade: who decided each sample, and a second judge that is slow, down or spent decides nothing."""

import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from piar.serve.app import build
from piar.serve.reload import reload
from piar.serve.settings import ServeSettings
from store.cascade import Cascade, Tier
from store.decision_rule import DecisionRule
from store.errors import PiarError
from store.stats import Interval
from store.types import Verdict
from tests.cascade_world import STUDENT, lamps
from tests.serve.test_decisions import SHOP, make
from tests.serve.test_serve import running
from trainers.checkpoint import StudentCard, fingerprint, keep_calibration, save
from trainers.session import Session
from trainers.tiny import tiny_model, tiny_tokenizer

SHARE = Interval(value=0.5)
SAMPLES = [{"query": "red lamp", "title": f"«chair» {i}"} for i in range(8)]
KEYS = {"grade", "tier", "reason", "probs", "expected"}


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return make(tmp_path_factory.mktemp("s"), SHOP)


def cascade(judge, threshold, second=0.9):
    folder = Path(judge.policy.lm.config._name_or_path)
    tiers = [
        Tier(judge="student:s", fingerprint=fingerprint(folder), threshold=threshold, share=SHARE, precision=SHARE)
    ]
    tiers.append(Tier(judge="teacher:t", threshold=second, share=SHARE, precision=SHARE))
    made = {"target": 0.95, "split": "dev", "rows": 9, "groups": 9, "people": SHARE, "made": "2026-11-29T00:00:00"}
    return Cascade(tiers=tuple(tiers), **made)


def serving(judge, found, ask, **settings):
    return running(build(Session(judge), ServeSettings(port=0, **settings), "s", cascade=(found, ask)))


def says(samples):
    """Sure of even titles, unsure of others."""
    sure = [int(sample.fields["title"].split()[-1]) % 2 == 0 for sample in samples]
    probs = [(0.02, 0.03, 0.95) if one else (0.2, 0.3, 0.5) for one in sure]
    return [Verdict("k", s.id, "teacher:t", "i", 0, "2", p) for s, p in zip(samples, probs, strict=True)]


def scored(client, samples=SAMPLES):
    reply = client.post("/score", json={"samples": samples})
    assert reply.status_code == 200
    assert all(set(row) == KEYS for row in reply.json()["results"])
    return reply.json()["results"]


def test_each_sample_is_decided_by_the_first_who_is_sure(judge):
    sure = sorted(max(one.probs) for one in judge.score(SAMPLES))
    alone = {i for i, one in enumerate(judge.score(SAMPLES)) if max(one.probs) >= sure[4]}
    with serving(judge, cascade(judge, sure[4]), says) as client:
        rows = scored(client)
        counted = client.get("/metrics").text
    for i, row in enumerate(rows):
        tier = "student" if i in alone else "people" if i % 2 else "teacher"
        assert row["tier"] == tier
        assert (row["grade"] is None) == (row["probs"] is None) == (tier == "people")
        assert row["reason"] == ("teacher: unsure" if tier == "people" else None)
        assert tier != "teacher" or (row["grade"], row["expected"]) == ("2", pytest.approx(0.3 + 19))
    assert f'piar_decided_total{{tier="student"}} {len(alone)}.0' in counted


def test_a_student_that_is_sure_asks_nobody(judge):
    def never(samples):
        raise AssertionError("asked")

    with serving(judge, cascade(judge, 0.0), never) as client:
        assert {row["tier"] for row in scored(client)} == {"student"}
    with serving(judge, cascade(judge, 1.1, second=None), None) as client:
        assert {row["reason"] for row in scored(client)} == {"student: unsure"}


def test_a_second_judge_that_fails_decides_nothing_and_tells_no_secret(judge):
    def spent(samples):
        return [Verdict("", s.id, "teacher:t", "i", 0, None, failure="budget") for s in samples]

    def down(samples):
        raise PiarError("All requests to http://internal:1 failed: key sk-123")

    def broken(samples):
        raise ZeroDivisionError

    asked = []

    def counted(ask):
        return lambda samples: asked.append(ask) or ask(samples)

    for ask, reason in [(spent, "budget"), (down, "cannot be asked"), (broken, "cannot be asked")]:
        with serving(judge, cascade(judge, 1.1), counted(ask)) as client:
            rows = scored(client)
            assert {(row["grade"], row["tier"], row["reason"]) for row in rows} == {
                (None, "people", f"teacher: {reason}")
            }
            assert scored(client) == rows  # and the server goes on
    assert asked == [spent, spent, down, broken]  # one that is down is left in peace for a while


def test_a_slow_second_judge_delays_no_request_for_long_and_answers_again_later(judge):
    go, batches = threading.Event(), []

    def slow(samples):
        batches.append(len(samples))
        if len(batches) == 1:
            go.wait(20)
        return says(samples)

    with serving(judge, cascade(judge, 1.1), slow, second_seconds=0.2) as client:
        assert {row["reason"] for row in scored(client)} == {"teacher: no answer within 0.2 s"}
        time.sleep(0.05)
        assert {row["reason"] for row in scored(client)} == {"teacher: no answer within 0.2 s"}  # at once
        assert batches == [8]  # what nobody waits for is not asked
        go.set()
        for _ in range(200):
            [row] = scored(client, SAMPLES[:1])
            if row["tier"] == "teacher":
                break
            time.sleep(0.02)
        assert row["tier"] == "teacher"


def test_other_routes_keep_the_students_answer(judge):
    part = [{"role": "user", "content": [{"type": "input_json", "data": SAMPLES[1]}]}]
    question = {"type": "score", "instructions": "", "levels": [{"label": grade.name} for grade in SHOP.grades]}
    with serving(judge, cascade(judge, 1.1), says) as client:
        reply = client.post("/v1/decisions", json={"input": part, "questions": [question]})
        assert reply.status_code == 200
        assert client.post("/rerank", json={"query": "lamp", "documents": ["a", "b"]}).status_code == 200


def test_another_student_is_not_taken_in_under_a_cascade_that_was_not_fitted_for_it(tmp_path):
    judge = make(tmp_path, SHOP)
    folder = Path(judge.policy.lm.config._name_or_path)
    app = build(Session(judge), ServeSettings(port=0), "s", cascade=(cascade(judge, 0.0), says))
    with running(app) as client:
        reload(app, folder, "cpu")
        keep_calibration(folder, None, DecisionRule(name="expected"))
        with pytest.raises(PiarError, match="have changed since"):
            reload(app, folder, "cpu")
        assert {row["tier"] for row in scored(client)} == {"student"}


@pytest.mark.integration
def test_by_command_a_student_that_is_never_sure_leaves_all_to_the_teacher(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        project = lamps(tmp_path / "world", patch)
    folder = project.folder / "students" / "a"
    shutil.rmtree(folder)
    words = tiny_tokenizer(["plain lamp odd chair"], project.task.symbols, 300)
    lm = tiny_model(len(words), hidden=64, layers=1)
    save(folder, lm, words, StudentCard(task=project.task, completion="grade"))
    piar = [sys.executable, "-m", "piar"]
    here = ["-C", str(project.folder)]
    subprocess.run([*piar, "cascade", *here, "--tiers", f"{STUDENT},teacher"], check=True, stdout=subprocess.DEVNULL)
    line = [*piar, "serve", *here, "--student", "students/a", "--cascade", "cascade.json", "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        told = ""
        while not (url := re.search(r"http://\S+", told)):
            told = server.stderr.readline()
        samples = [{"query": "q", "title": "plain lamp 1"}, {"query": "q", "title": "odd chair 2"}]
        for _ in range(2):
            rows = httpx.post(f"{url[0]}/score", json={"samples": samples}, timeout=60).json()["results"]
            assert [(row["grade"], row["tier"]) for row in rows] == [("1", "teacher"), ("0", "teacher")]
        server.terminate()
        assert "Decided by: teacher 4." in server.communicate(timeout=60)[0]
    assert (project.folder / "cascade" / "journal").is_dir()
