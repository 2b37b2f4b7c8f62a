"""A student reloaded, or shadowed, under load: no request is lost, and every answer is that of one whole student."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from piar.serve.app import build
from piar.serve.reload import reload, same_task, whole
from piar.serve.settings import ServeSettings
from store.errors import PiarError
from tests.serve.test_decisions import KINDS, NAMES, SHOP, make
from tests.serve.test_serve import events, running
from trainers.scoring import Student
from trainers.session import Session

SAMPLES = [{"query": "red lamp", "title": f"«chair» {i}"} for i in range(6)]


def folder_of(judge):
    return Path(judge.policy.lm.config._name_or_path)


def other(folder, **card):
    """Another student of the same task."""
    return make(folder, SHOP, seed=3, **card)


def probs(judge):
    return [list(one.probs) for one in judge.score(SAMPLES)]


def near(found, wanted):
    return all(a == pytest.approx(b, abs=1e-5) for a, b in zip(found, wanted, strict=True))


def test_reloading_under_load_loses_no_request_and_mixes_no_answer(tmp_path):
    old, new = make(tmp_path / "a", SHOP, instruction="i1"), other(tmp_path / "b", instruction="i2")
    known, stop, answers = [probs(old), probs(new)], threading.Event(), []
    assert not near(*known)
    app = build(Session(old), ServeSettings(port=0, batch=4), "s")

    def ask(url):
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                reply = client.post("/score", json={"samples": SAMPLES})
                answers.append((reply.status_code, [list(r["probs"].values()) for r in reply.json()["results"]]))

    with running(app) as client, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, str(client.base_url)) for _ in range(4)]
        for judge in (new, old, new):
            seen = len(answers)
            reload(app, folder_of(judge), "cpu")
            while len(answers) < seen + 20:
                time.sleep(0.01)
        stop.set()
        [one.result() for one in asking]
        last = client.post("/score", json={"samples": SAMPLES}).json()["results"]
        level = [{"label": name} for name in NAMES]
        question = {"type": "score", "instructions": "i2", "levels": level}
        part = {"role": "user", "content": [{"type": "input_json", "data": SAMPLES[0]}]}
        assert client.post("/v1/decisions", json={"input": [part], "questions": [question]}).status_code == 200
    assert near([list(r["probs"].values()) for r in last], known[1])
    assert {status for status, _ in answers} == {200}
    assert all(any(near(found, wanted) for wanted in known) for _, found in answers)


def test_what_cannot_be_read_or_judges_another_task_leaves_the_old_one_in_place(tmp_path):
    old, broken = make(tmp_path / "a", SHOP), other(tmp_path / "b")
    weights = next(p for p in (tmp_path / "b" / "shop").iterdir() if p.suffix == ".safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    app = build(Session(old), ServeSettings(port=0), "s")
    with running(app) as client:
        for folder in (folder_of(broken), folder_of(make(tmp_path / "c", KINDS)), tmp_path / "none"):
            with pytest.raises(PiarError):
                reload(app, folder, "cpu")
        results = client.post("/score", json={"samples": SAMPLES}).json()["results"]
    assert near([list(r["probs"].values()) for r in results], probs(old))


def test_a_writer_of_reasons_is_read_again_with_the_student_or_both_stay(tmp_path):
    first, second = make(tmp_path / "a", SHOP, completion="grade"), other(tmp_path / "b", completion="grade")
    writer = folder_of(make(tmp_path / "w", SHOP))
    app = build(whole(folder_of(first), "cpu", writer), ServeSettings(port=0), "s", writer="w")

    def told(client):
        return [events(client.post("/explain", json=sample))[0][1]["probs"].values() for sample in SAMPLES]

    with running(app) as client:
        for broken in (folder_of(second), folder_of(make(tmp_path / "c", KINDS)), tmp_path / "none"):
            with pytest.raises(PiarError):  # taught no traces, another task, not there
                reload(app, folder_of(second), "cpu", broken)
        assert near(map(list, told(client)), probs(first))
        reload(app, folder_of(second), "cpu", writer)
        assert near(map(list, told(client)), probs(second))
        assert client.get("/task").json()["reasons"] == "w"


def test_a_shadow_judges_too_and_keeps_each_difference_once(tmp_path):
    live, second, log = make(tmp_path / "a", SHOP), other(tmp_path / "b"), tmp_path / "shadow.jsonl"
    app = build(Session(live), ServeSettings(port=0, batch=4), "s", (Session(second), log))
    differ = {
        json.dumps(s): (a.grade, b.grade)
        for s, a, b in zip(SAMPLES, live.score(SAMPLES), second.score(SAMPLES), strict=True)
        if a.grade != b.grade
    }
    assert differ
    with running(app) as client:
        for _ in range(3):
            results = client.post("/score", json={"samples": SAMPLES}).json()["results"]
            assert near([list(r["probs"].values()) for r in results], probs(live))
        judged = app.state.meters.registry
        while (
            sum(judged.get_sample_value("piar_shadow_total", {"outcome": o}) or 0 for o in ("agrees", "differs")) < 18
        ):
            time.sleep(0.01)
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(kept) == len(differ)
    for one in kept:
        sample = json.dumps({name: one[name] for name in SHOP.fields})
        said = one["said_by_students"]
        assert (said["live"]["grade"], said["shadow"]["grade"]) == differ[sample]
    assert log.stat().st_mode & 0o077 == 0


def test_a_fault_of_the_shadow_is_counted_and_answers_go_on(tmp_path, monkeypatch):
    live, second = make(tmp_path / "a", SHOP), Session(other(tmp_path / "b"))
    monkeypatch.setattr(second, "score", lambda prompts: 1 / 0)
    app = build(Session(live), ServeSettings(port=0), "s", (second, tmp_path / "shadow.jsonl"))
    with running(app) as client:
        client.post("/score", json={"samples": SAMPLES})
        while not app.state.meters.registry.get_sample_value("piar_shadow_total", {"outcome": "left out"}):
            time.sleep(0.01)
        assert client.post("/score", json={"samples": SAMPLES}).status_code == 200
    assert not (tmp_path / "shadow.jsonl").exists()


def test_a_copy_of_a_student_is_of_the_same_task(tmp_path):
    judge = make(tmp_path / "a", SHOP)
    copy = shutil.copytree(folder_of(judge), tmp_path / "copy")
    same_task(SHOP, Student.load(copy).task, copy)
    with pytest.raises(PiarError, match="another task"):
        same_task(KINDS, SHOP, copy)
