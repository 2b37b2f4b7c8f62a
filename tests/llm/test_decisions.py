"""A decision teacher: whole distributions from each shape of endpoint, over the roads of every other endpoint."""

import http.server
import json
import string
import threading
from contextlib import contextmanager

import pytest
from openai.types import decision_create_params
from pydantic import TypeAdapter

from piar.connect import connect
from piar.evolve.finish import attribute
from piar.llm.base import Brief, Message, Request
from piar.llm.cost import Budget
from piar.llm.openai.chat import BadReply
from piar.llm.openai.decisions import DecisionWire
from piar.llm.privacy import PrivacySettings
from piar.llm.settings import ModelSettings
from piar.offline import RulebookClient
from piar.offline.endpoint import Faults, running
from piar.project.endpoints import models
from piar.project.facade import Project
from store.task import Grade, Task
from store.types import Instruction, Rule, Sample, Trace, Verdict
from tests.vllm_env import http_server

PAIRS = [(2, 0.1), (0, 0.2), (1, 0.7)]
SHAPES = ("decisions", "systemone", "state")
INSTRUCTION = Instruction("Judge the offer.", (Rule("R01", "the title names another thing", "0"),))


def task_of(symbols, *, ordered=True):
    grades = tuple(Grade(symbol=s, name=f"name {s}", value=i) for i, s in enumerate(symbols))
    return Task(name="t", group_by="query", fields=("query", "title"), grades=grades, ordered=ordered)


def request_of(task, **more):
    messages = (Message("system", "Judge the offer."), Message("user", '{"query": "lamp", "title": "red lamp"}'))
    return Request("k", messages, task.symbols, brief=Brief(task, INSTRUCTION), **more)


def test_the_question_is_one_that_the_pinned_package_may_send():
    body = DecisionWire().body(request_of(task_of("012")), "m", {})
    TypeAdapter(decision_create_params.DecisionCreateParams).validate_python(body)
    [question] = body["questions"]
    assert [level["label"] for level in question["levels"]] == ["0", "1", "2"]
    assert question["levels"][2]["description"] == "name 2"
    assert json.loads(body["input"]) == {"query": "lamp", "title": "red lamp"}
    many = DecisionWire().body(request_of(task_of("abcdefghijkl")), "m", {})["questions"][0]
    assert (many["type"], len(many["choices"])) == ("choice", 12)
    assert DecisionWire().body(request_of(task_of("01", ordered=False)), "m", {})["questions"][0]["type"] == "choice"


def test_a_state_is_an_object_and_levels_are_never_numbered_twice():
    body = DecisionWire("systemone").body(request_of(task_of("012")), "m", {"images": []})
    assert body["state"] == {"query": "lamp", "title": "red lamp"}
    assert body["questions"]["grade"]["criteria"] == ["0: name 0", "1: name 1", "2: name 2"]
    assert body["images"] == []
    shifted = DecisionWire("state").body(request_of(task_of("123")), "m", {})["questions"]["grade"]
    assert (shifted["type"], list(shifted["criteria"])) == ("choice", ["1", "2", "3"])


@pytest.mark.parametrize(
    "answers",
    [
        [{"type": "score", "probabilities": [{"label": str(i), "value": i, "probability": p}
                                             for i, p in enumerate((0.2, 0.7, 0.1))]}],
        [{"type": "choice", "probabilities": [{"value": str(i), "probability": p} for i, p in PAIRS]}],
        {"grade": {"type": "choice", "probabilities": {"1": 0.7, "0": 0.2, "2": 0.1}}},
        {"grade": {"type": "score", "probabilities": {"0": 0.199, "1": 0.701, "2": 0.101}}},
    ],
)  # fmt: skip
def test_the_distribution_is_read_however_it_is_told(answers):
    answer = DecisionWire().answer(request_of(task_of("012")), {"answers": answers, "model": "m"})
    assert answer.text == "1"
    assert answer.probs == pytest.approx({"0": 0.2, "1": 0.7, "2": 0.1}, abs=2e-3)
    assert sum(answer.probs.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([{"type": "refusal", "name": "grade"}], "refused"),
        ([], "malformed"),
        ({"other": {}}, "malformed"),
        ({"grade": {"probabilities": {"0": 0.5, "1": 0.5}}}, "malformed"),
        ({"grade": {"probabilities": {"0": 0.5, "1": 0.6, "2": 0.2}}}, "malformed"),
        ({"grade": {"probabilities": {"0": -0.5, "1": 1.3, "2": 0.2}}}, "malformed"),
        ({"grade": {"probabilities": {"0": float("nan"), "1": 0.5, "2": 0.5}}}, "malformed"),
        ({"grade": {"probabilities": {"0": True, "1": 0, "2": 0}}}, "malformed"),
        ({"grade": {"probabilities": {"a": 0.5, "b": 0.3, "c": 0.2}}}, "malformed"),
        ({"grade": {"type": "score", "score": 1.2}}, "malformed"),
    ],
)
def test_what_is_no_distribution_over_the_grades_is_no_answer(answers, kind):
    with pytest.raises(BadReply) as bad:
        DecisionWire().answer(request_of(task_of("012")), {"answers": answers})
    assert bad.value.kind == kind


def settings(url, shape="decisions", **more):
    return ModelSettings(model="decisions:rulebook", base_url=f"{url}/v1", shape=shape, price={"input": 0.1}, **more)


@pytest.fixture
def project(tmp_path):
    return Project.init(tmp_path / "shop", example="shop", pairs=150)


def taught(project, model, **more):
    """The project with another teacher."""
    values = {"model": model.model, "base_url": model.base_url, "shape": model.shape, **more}
    told = "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    (project.folder / "piar.toml").write_text(f"[teacher]\n{told}\nprice = {{ input = 0.1 }}\n")
    return Project.open(project.folder)


@pytest.mark.parametrize(("shape", "transport"), [*zip(SHAPES, ("openai", "lean", "openai"), strict=True)])
def test_a_stormy_decision_endpoint_labels_like_a_chat_endpoint(project, shape, transport, monkeypatch):
    monkeypatch.setattr("piar.llm.openai.asking.BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr("piar.llm.openai.pacing.PAUSE_SECONDS", 0.01)
    faults = Faults(errors=0.05, rate_limited=0.05)
    with running(RulebookClient(), faults=faults) as simulator:
        ours = taught(project, settings(simulator.url, shape), transport=transport, timeout=5.0)
        report, receipt = ours.label()
        assert report.failed.total() == 0
        assert report.tokens_out == 0
        assert receipt.cost_usd == pytest.approx(0.1 * report.tokens_in / 1e6)
        told = {row[0]: row[1:] for row in ours.sql("select sample_id, grade, probs from verdicts").rows()}
    direct = Project.init(project.folder.parent / "direct", example="shop", pairs=150)
    direct.label()
    own = {row[0]: row[1:] for row in direct.sql("select sample_id, grade, probs from verdicts").rows()}
    assert told.keys() == own.keys()
    for key, (grade, probs) in told.items():
        assert grade == own[key][0]
        assert probs == pytest.approx(own[key][1], abs=1e-6)


def test_a_cap_in_dollars_needs_the_price_of_what_is_read_alone(project):
    with running(RulebookClient()) as simulator:
        ours = taught(project, settings(simulator.url))
        assert ours.forecast_label().tokens_out == 0
        report, receipt = ours.label(budget=Budget(max_usd=1.0))
        assert report.labelled
        assert receipt.priced


def test_a_text_is_never_asked_of_a_decision_model():
    with running(RulebookClient()) as simulator:
        [done] = connect(settings(simulator.url), [].append).generate([Request("k", (Message("user", "Write."),))])
        assert simulator.calls == 0
    assert (done.failure.kind, done.attempts) == ("request", 0)
    assert "writes no text" in done.failure.message


@contextmanager
def answering(status, headers=(), body=b"{}"):
    """A server that answers everything alike, and keeps what it was sent."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append((self.path, self.headers.get("authorization")))
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (501, (), "request"), (404, (), "request"), (401, (), "auth"),
        (307, [("location", "http://127.0.0.1:9/v1/decisions")], "request"),
    ],
)  # fmt: skip
def test_what_an_endpoint_cannot_do_fails_at_once_and_nothing_is_sent_on(monkeypatch, status, headers, kind):
    monkeypatch.setenv("TEST_KEY", "sk-planted-0123456789")
    with answering(status, headers) as (url, seen):
        client = connect(settings(url, api_key_env="TEST_KEY"), [].append)
        [done] = client.generate([request_of(task_of("012"))])
    assert done.failure.kind == kind
    assert len(seen) == 1
    assert "sk-planted" not in done.failure.message


def test_a_refusal_is_an_explained_failure_that_was_paid_for():
    body = {
        "answers": [{"type": "refusal", "name": "grade"}],
        "model": "m",
        "usage": {"input_tokens": 50, "output_tokens": 0},
    }
    with answering(200, body=json.dumps(body).encode()) as (url, _):
        [done] = connect(settings(url), [].append).generate([request_of(task_of("012"))])
    assert (done.failure.kind, done.usage.prompt, done.usage.completion) == ("refused", 50, 0)
    assert "declined" in done.failure.message


def test_votes_draw_from_the_distribution_and_the_first_is_its_mode():
    probs = {"0": 0.3, "1": 0.4, "2": 0.3}
    reply = {"answers": {"grade": {"probabilities": probs}}}
    task = task_of("012")
    drawn = {DecisionWire().answer(request_of(task, temperature=1.0, seed=i), reply).text for i in range(40)}
    assert drawn == {"0", "1", "2"}
    assert DecisionWire().answer(request_of(task), reply).text == "1"


def test_shapes_are_told_apart_by_asking():
    task = task_of("012")

    def said(model):
        checks = {c.name: c for c in models({"teacher": model}, task, PrivacySettings(), ask=True)}
        return checks["teacher answers"]

    with running(RulebookClient()) as simulator:
        assert all(said(settings(simulator.url, shape)).ok for shape in SHAPES)
        assert "OpenAI" in said(settings(simulator.url)).detail
    vllm = {"object": "structured_decision", "answers": {"grade": {"probabilities": {"0": 0.2, "1": 0.7, "2": 0.1}}}}
    with answering(200, body=json.dumps(vllm).encode()) as (url, _):
        assert "vLLM" in said(settings(url, "systemone")).detail
    with answering(200, body=b'{"choices": []}') as (url, _):
        assert not said(settings(url)).ok
    writer = models({"reviser": settings("http://127.0.0.1:9")}, task, PrivacySettings(), ask=True)
    assert any(c.name == "reviser answers" and "writes no text" in c.detail for c in writer)


def test_another_shape_than_the_one_that_is_set_is_named():
    class OnlySystemOne(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            good = self.path == "/v1/systemone"
            body = json.dumps({"answers": {"grade": {"probabilities": {"0": 0.2, "1": 0.7, "2": 0.1}}}}).encode()
            self.send_response(200 if good else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OnlySystemOne) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        model = settings(f"http://127.0.0.1:{server.server_port}")
        checks = {c.name: c for c in models({"teacher": model}, task_of("012"), PrivacySettings(), ask=True)}
        server.shutdown()
    assert 'shape = "systemone"' in checks["teacher answers"].detail
    assert not checks["teacher answers"].ok


@pytest.mark.integration
def test_vllm_answers_as_a_decision_teacher(tmp_path):
    from trainers.checkpoint import StudentCard, save
    from trainers.tiny import tiny_model, tiny_tokenizer

    task = task_of("012")
    labels = [*string.ascii_uppercase, *string.digits, "yes", "no"]  # vLLM's own, each of which must be one token
    tokenizer = tiny_tokenizer(["lamp red title query name, judge the offer"], labels, 500)
    folder = save(tmp_path / "tiny", tiny_model(len(tokenizer), hidden=64, layers=2), tokenizer, StudentCard(task=task))
    with http_server(folder, tmp_path / "log") as url:
        model = ModelSettings(model="decisions:tiny", base_url=url, shape="systemone", timeout=60.0)
        [done] = connect(model, [].append).generate([request_of(task)])
        checks = {c.name: c for c in models({"teacher": model}, task, PrivacySettings(), ask=True)}
    assert done.failure is None, done.failure
    assert sum(done.probs.values()) == pytest.approx(1, abs=1e-9)
    assert "vLLM" in checks["teacher answers"].detail


def test_rules_are_not_called_dead_because_a_judge_writes_no_reasons():
    class Board:
        def verdicts(self, instruction, samples):
            trace = Trace(grade="1", verdict="1")
            return [Verdict("k", s.id, "teacher:x", instruction.id, 0, "1", trace=trace) for s in samples]

    samples = [Sample("a", "lamp", {"query": "lamp", "title": "red lamp"})]
    assert attribute(Board(), INSTRUCTION, samples) == []
