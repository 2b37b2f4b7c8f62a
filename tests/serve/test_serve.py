"""The server: the grades of offline scoring, the trace streamed after them, and what it refuses."""

import contextlib
import gzip
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import schemathesis
import torch
import uvicorn
from hypothesis import HealthCheck, given, settings

from piar.serve.app import build
from piar.serve.settings import ServeSettings
from store.errors import UsageError
from store.task import Grade, Task
from tests.precision import CLOSE
from trainers.checkpoint import StudentCard, save
from trainers.explained import Explained
from trainers.model import Policy
from trainers.scoring import Student
from trainers.session import Session, Writing, latencies
from trainers.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.precision

# Names that a request model must survive: methods and attributes of pydantic's own.
TASK = Task(
    name="tiny-shop",
    fields=("copy", "model_config", "json"),
    group_by="copy",
    grades=tuple(Grade(symbol=str(i), name=name, value=i) for i, name in enumerate(["bad", "some", "good"])),
)
RUBRIC = "Grade how well the title fits. R01: another kind of thing is bad."
SAMPLES = [{"copy": f"red lamp {i % 4}", "model_config": "", "json": f"«chair» {i} é"} for i in range(30)]


def student(folder, completion="trace", prompt="rulebook"):
    tokenizer = tiny_tokenizer([RUBRIC, *(json.dumps(s) for s in SAMPLES)], TASK.symbols, 400)
    card = StudentCard(task=TASK, prompt=prompt, rubric=RUBRIC, completion=completion)
    lm = tiny_model(len(tokenizer), hidden=64, layers=2)
    with torch.no_grad():  # otherwise it repeats its grade for ever
        lm.get_input_embeddings().weight.mul_(3)
    return Student.load(save(folder / completion / prompt, lm, tokenizer, card))


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return student(tmp_path_factory.mktemp("student"))


@contextlib.contextmanager
def running(app):
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        client.app = app
        yield client
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def serving(judge, **limits):
    return running(build(Session(judge), ServeSettings(port=0, **limits), "students/tiny"))


@pytest.fixture(scope="module")
def client(judge):
    with serving(judge) as client:
        yield client


def events(response):
    parts = response.text.replace("\r\n", "\n").strip().split("\n\n")
    found = [dict(line.split(": ", 1) for line in part.split("\n") if not line.startswith(":")) for part in parts]
    return [(f["event"], json.loads(f["data"])) for f in found if "event" in f]


@pytest.mark.parametrize("prompt", ["rulebook", "short"])
def test_many_samples_get_the_grades_of_offline_scoring_in_their_order(tmp_path, prompt):
    judge = student(tmp_path, prompt=prompt)
    offline = judge.score(SAMPLES)
    with serving(judge, batch=7) as client:
        answer = client.post("/score", json={"samples": SAMPLES}).json()
    assert answer["student"] == "students/tiny"
    for ours, one in zip(answer["results"], offline, strict=True):
        assert ours["grade"] == one.grade
        assert list(ours["probs"].values()) == pytest.approx(one.probs, abs=CLOSE)
        assert ours["expected"] == pytest.approx(one.expected, abs=CLOSE)


def test_requests_side_by_side_get_their_own_answers(judge, client):
    offline = judge.score(SAMPLES)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda s: client.post("/score", json={"samples": [s]}).json(), SAMPLES))
    for answer, one in zip(answers, offline, strict=True):
        assert list(answer["results"][0]["probs"].values()) == pytest.approx(one.probs, abs=CLOSE)


@pytest.mark.exact
def test_an_explanation_gives_the_grade_first_and_then_the_offline_trace(judge, client):
    [offline] = judge.score(SAMPLES[:1], trace=True)
    found = events(client.post("/explain", json=SAMPLES[0]))
    assert [name for name, _ in found] == ["grade", *["text"] * (len(found) - 2), "trace"]
    assert found[0][1]["grade"] == offline.grade
    assert offline.grade + "".join(data for name, data in found if name == "text") == offline.text
    assert found[-1][1]["text"] == offline.text
    assert (found[-1][1]["trace"] is None) == (offline.trace.trace is None)


@pytest.mark.exact
def test_prompts_that_begin_with_nothing_in_common_are_answered_the_same(judge, monkeypatch):
    monkeypatch.setattr("trainers.session.common_prefix", lambda *prompts: 0)
    session = Session(judge)
    assert session.root == []
    writing = session.begin(SAMPLES[0])
    while not writing.done:
        writing.step()
    assert writing.text == judge.score(SAMPLES[:1], trace=True)[0].text


def test_a_sample_that_is_too_long_for_the_writer_alone_is_refused_in_its_name(judge, tmp_path, monkeypatch):
    grades = student(tmp_path, completion="grade", prompt="short")
    monkeypatch.setattr(type(judge), "most", property(lambda one: 20 if one is judge else 500))
    with running(build(Explained(Session(grades), Session(judge)), ServeSettings(port=0), "grades")) as client:
        refused = client.post("/explain", json=SAMPLES[0])
        assert client.post("/score", json={"samples": SAMPLES[:1]}).status_code == 200
    assert (refused.status_code, "student that writes the reasons reads 20" in refused.text) == (413, True)


@pytest.mark.exact
def test_a_model_that_cannot_share_prefixes_answers_the_same(judge):
    alone = Student(Policy(judge.policy.lm, window=0), judge.tokenizer, judge.card)
    session = Session(alone)
    prompts = session.prompts(SAMPLES[:3])
    plain = [s.probs for s in session.score(prompts)]
    writing = session.begin(SAMPLES[0])
    while not writing.done:
        writing.step()
    judge = Student(Policy(judge.policy.lm), judge.tokenizer, judge.card)
    offline = judge.score(SAMPLES[:3], trace=True)
    assert plain == [pytest.approx(s.probs, abs=CLOSE) for s in offline]
    assert writing.text == offline[0].text


def test_latency_is_told_for_what_a_student_can_do(judge, tmp_path):
    taken = latencies(judge, SAMPLES[:4], traces=2)
    assert list(taken) == ["first_token", "trace"]
    assert all(0 < latency.p50 <= latency.p99 for latency in taken.values())
    assert list(latencies(student(tmp_path, completion="grade"), SAMPLES[:2])) == ["first_token"]


def test_a_student_of_grades_alone_says_that_it_writes_no_traces(tmp_path):
    with serving(student(tmp_path, completion="grade")) as client:
        assert client.post("/score", json={"samples": SAMPLES[:1]}).status_code == 200
        refused = client.post("/explain", json=SAMPLES[0])
    assert refused.status_code == 409
    assert "no trace" in refused.json()["detail"]


@pytest.mark.exact
def test_another_student_writes_the_reasons_of_a_grade_that_is_not_its_own(judge, tmp_path):
    grades = student(tmp_path, completion="grade")
    with torch.no_grad():  # so that it gives other grades than the writer
        grades.policy.lm.get_input_embeddings().weight.neg_()
    session = Explained(Session(grades), Session(judge))
    with running(build(session, ServeSettings(port=0), "grades", writer="judge")) as client:
        told = client.get("/task").json()
        found = [events(client.post("/explain", json=sample)) for sample in SAMPLES[:6]]
        refused = client.post("/explain", json={**SAMPLES[0], "copy": "7 " * 2900})
    assert (told["student"], told["reasons"]) == ("grades", "judge")
    own = judge.score(SAMPLES[:6])
    for one, mine, sample in zip(found, own, SAMPLES, strict=False):
        [offline] = grades.score([sample])
        assert one[0][1]["grade"] == offline.grade
        assert list(one[0][1]["probs"].values()) == pytest.approx(offline.probs, abs=CLOSE)
        assert one[-1][1]["text"].startswith(offline.grade)
        if offline.grade == mine.grade:
            assert one[-1][1]["text"] == judge.score([sample], trace=True)[0].text
    assert any(one[0][1]["grade"] != mine.grade for one, mine in zip(found, own, strict=True))
    assert refused.status_code == 413


@pytest.mark.parametrize(
    ("first", "verdict", "agrees", "counted"),
    [
        ("{own}", "verdict: {own}", True, "yes"),
        ("{own}", "verdict: {other}", False, "no"),
        ("{other}", "verdict: {other}", False, "no"),
        ("{own}", "verdict: two", None, "unread"),
        ("{own}", None, None, "unread"),
    ],
)
def test_a_reason_that_comes_to_another_grade_says_so(judge, monkeypatch, first, verdict, agrees, counted):
    lines = "\n".join(filter(None, [first, "evidence:", "rules: R01", verdict]))

    def step(writing):
        own = writing.scored.grade
        answer = lines.format(own=own, other=next(symbol for symbol in TASK.symbols if symbol != own))
        before, writing.text, writing.done = writing.text, answer, True
        return answer[len(before) :]

    monkeypatch.setattr(Writing, "step", step)
    with serving(judge) as client:
        last = events(client.post("/explain", json=SAMPLES[0]))[-1][1]
        text = client.get("/metrics").text
    assert last["agrees"] is agrees
    assert f'piar_traces_total{{agrees="{counted}"}} 1.0' in text


def test_reasons_come_from_a_student_that_was_taught_them(judge, tmp_path):
    with pytest.raises(UsageError, match="taught no traces"):
        Explained(Session(judge), Session(student(tmp_path, completion="grade")))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 422, "JSON"),
        (b'{"samples": []}', 422, "at least 1"),
        (b'{"samples": [{"copy": "a", "model_config": "b"}]}', 422, "json"),
        (b'{"samples": [{"copy": "a", "model_config": "b", "json": "c", "gold": "2"}]}', 422, "gold"),
        (b'{"samples": [{"copy": "a", "model_config": "b", "json": 7}]}', 422, "string"),
        (b'{"samples": [{"copy": "\\ud800", "model_config": "b", "json": ""}]}', 422, "string"),
        (b"[" * 100_000, 400, "pars"),
        (b"\xff\xfe", 422, "JSON"),
    ],
)
def test_a_wrong_body_is_refused_with_its_place(client, body, status, words):
    refused = client.post("/score", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == status
    assert words in refused.text


def test_the_pages_of_the_server_take_nothing_from_elsewhere(client):
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert "http" not in page.text.replace("application/json", "").replace("HTTP", "")
    assert "POST /score" in page.text
    assert "samples" in page.text
    assert "<script" not in page.text
    assert client.get("/redoc").status_code == 404


def test_a_body_of_another_type_is_told_so(client):
    refused = client.post("/score", content=b'{"samples": []}', headers={"content-type": "text/plain"})
    assert refused.status_code == 422
    assert "application/json" in refused.text


def test_a_packed_body_is_told_so(client):
    packed = gzip.compress(json.dumps({"samples": SAMPLES[:1]}).encode())
    for path in ("/score", "/v1/decisions", "/rerank"):
        sent = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = client.post(path, content=packed, headers=sent)
        assert (answer.status_code, "not as gzip" in answer.text) == (415, True)


def test_a_load_balancer_may_ask_for_the_head_alone(client):
    answer = client.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


def test_what_is_sent_is_never_echoed(client):
    assert "s3cret" not in client.post("/score", json={"samples": [{"copy": {"s3cret": "s3cret"}}]}).text


def test_large_bodies_and_samples_are_refused(judge):
    with serving(judge, body_mb=0.01, request_samples=5, field_characters=6000) as client:
        assert client.post("/score", content=b"x" * 20_000).status_code == 413
        chunked = client.post("/score", content=(b"x" * 1000 for _ in range(20)))
        assert chunked.status_code == 413
        assert client.post("/score", json={"samples": [dict.fromkeys(TASK.fields, "a")] * 6}).status_code == 422
        long = client.post("/score", json={"samples": [SAMPLES[0], {**SAMPLES[0], "copy": "7 " * 2900}]})
        assert long.status_code == 413
        assert "sample 1" in long.text
        assert client.post("/explain", json={**SAMPLES[0], "copy": "7 " * 2900}).status_code == 413
        assert client.post("/score", json={"samples": SAMPLES[:5]}).status_code == 200


def test_a_slow_body_is_given_up(judge):
    with (
        serving(judge, body_seconds=0.3) as client,
        socket.create_connection(("127.0.0.1", client.base_url.port)) as slow,
    ):
        slow.sendall(b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        slow.settimeout(10)
        assert b"408" in slow.recv(1000)
        assert client.post("/score", json={"samples": SAMPLES[:1]}).status_code == 200


def test_more_than_may_wait_is_answered_429_with_retry_after(judge, monkeypatch):
    gate = threading.Event()
    with serving(judge, waiting=10, explaining=1) as client:
        session = client.app.state.engine._session
        score = session.score
        monkeypatch.setattr(session, "score", lambda prompts: gate.wait(20) and score(prompts))
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(client.post, "/score", json={"samples": SAMPLES[:8]})
            while not client.get("/healthz").json()["waiting"]:
                time.sleep(0.01)
            refused = client.post("/score", json={"samples": SAMPLES[:8]})
            gate.set()
            assert first.result().status_code == 200
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/healthz").json()["waiting"] == 0
        assert client.post("/score", json={"samples": SAMPLES[:8]}).status_code == 200


def test_a_fault_of_the_model_fails_one_request_and_the_next_is_answered(judge, monkeypatch):
    with serving(judge) as client:
        session = client.app.state.engine._session
        score = session.score
        monkeypatch.setattr(session, "score", lambda prompts: 1 / 0)
        failed = client.post("/score", json={"samples": SAMPLES[:1]})
        assert failed.status_code == 500
        assert "log" in failed.json()["detail"]
        monkeypatch.setattr(session, "score", score)
        assert client.post("/score", json={"samples": SAMPLES[:1]}).status_code == 200
        assert client.get("/healthz").json()["waiting"] == 0


def test_a_client_that_leaves_mid_stream_frees_its_place(judge):
    with serving(judge, explaining=1) as client:
        for _ in range(3):
            with client.stream("POST", "/explain", json=SAMPLES[0]) as response:
                assert response.status_code == 200
                next(response.iter_lines())
            deadline = time.monotonic() + 10
            while client.app.state.engine._explaining and time.monotonic() < deadline:
                time.sleep(0.01)
        assert client.post("/explain", json=SAMPLES[0]).status_code == 200


def test_what_a_client_that_left_has_asked_is_not_judged(judge, monkeypatch):
    gate, judged = threading.Event(), []
    with serving(judge, batch=2) as client:
        session = client.app.state.engine._session
        score = session.score

        def slow(prompts):
            judged.append(len(prompts))
            return gate.wait(20) and score(prompts)

        monkeypatch.setattr(session, "score", slow)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/score", json={"samples": SAMPLES[:8]}, timeout=0.3)
        time.sleep(0.2)  # the server hears of it
        gate.set()
        assert client.post("/score", json={"samples": SAMPLES[:3]}).status_code == 200
        assert client.get("/healthz").json()["waiting"] == 0
        assert sum(judged) == 2 + 3


def test_counters_count(judge):
    with serving(judge) as client:
        client.post("/score", json={"samples": SAMPLES[:3]})
        client.post("/explain", json=SAMPLES[0])
        client.post("/score", json={})
        text = client.get("/metrics").text
        grades = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("piar_grades_total"))
        assert grades == 4
        assert 'piar_requests_total{route="/score",status="200"} 1.0' in text
        assert 'piar_requests_total{route="/score",status="422"} 1.0' in text
        assert "piar_trace_seconds_count 1.0" in text
        assert sum(f'piar_traces_total{{agrees="{said}"}} 1.0' in text for said in ("yes", "no", "unread")) == 1


@pytest.mark.parametrize("path", ["POST /score", "POST /explain", "GET /task", "GET /healthz", "GET /metrics"])
def test_it_answers_as_its_own_description_says(client, path):
    """Fuzzed from its OpenAPI document."""
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    method, route = path.split()

    @given(schema[route][method].as_strategy())
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def fuzz(case):
        assert case.call_and_validate().status_code < 500

    fuzz()
