"""`POST /v1/decisions` as the `openai` package speaks it: the grades of `/score`, and clear words for all else."""

import json

import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from store.calibration import Calibration
from store.task import Grade, Task
from tests.precision import CLOSE
from tests.serve.test_serve import serving
from trainers.checkpoint import StudentCard, save
from trainers.scoring import Student
from trainers.tiny import tiny_model, tiny_tokenizer

NAMES = ("bad", "some", "good")
SHOP = Task(
    name="shop",
    fields=("query", "title"),
    group_by="query",
    ask="How well does the title fit the query?",
    grades=tuple(Grade(symbol=str(i), name=name, value=10 * i) for i, name in enumerate(NAMES)),
)
KINDS = Task(
    name="kinds",
    fields=("text",),
    group_by="text",
    ordered=False,
    grades=tuple(Grade(symbol=chr(65 + i), value=i) for i in range(12)),
)
SAMPLE = {"query": "red lamp", "title": "«chair» é"}
PART = [{"role": "user", "content": [{"type": "input_json", "data": SAMPLE}]}]
SCORE = {"type": "score", "instructions": "", "levels": [{"label": name} for name in NAMES]}


def make(folder, task, seed=0, **card):
    sample = json.dumps(dict.fromkeys(task.fields, "red lamp «chair» é"))
    tokenizer = tiny_tokenizer([sample], task.symbols, 400)
    lm = tiny_model(len(tokenizer), hidden=64, layers=2, seed=seed)
    return Student.load(save(folder / task.name, lm, tokenizer, StudentCard(task=task, **card)))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    judge = make(tmp_path_factory.mktemp("s"), SHOP, prompt="rulebook", rubric="Another kind is bad.", instruction="i1")
    with serving(judge, names=("gpt-6-luna",)) as client:
        yield client


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    with serving(make(tmp_path_factory.mktemp("s"), KINDS)) as client:
        yield client


def asked(client, **body):
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as api:
        return api.decisions.create(**body)


def scored(client, sample):
    return client.post("/score", json={"samples": [sample]}).json()["results"][0]


def test_every_question_about_the_grades_is_answered_from_the_grades_of_score(shop):
    questions = [
        SCORE,
        {"type": "score", "name": "fit", "instructions": SHOP.ask, "levels": [{"label": s} for s in SHOP.symbols]},
        {"type": "choice", "instructions": "i1", "choices": [{"value": name} for name in NAMES]},
        {"type": "predicate", "name": "grade>=good", "instructions": ""},
        {"type": "predicate", "instructions": "grade >= 1"},
        {"type": "score", "instructions": [{"type": "input_text", "text": "Another kind is bad."}], **SCORE},
    ]
    decision = asked(shop, model="gpt-6-luna", input=PART, questions=questions)
    probs = list(scored(shop, SAMPLE)["probs"].values())
    close = pytest.approx(probs, abs=1e-9)
    score, same, choice, good, some, _ = decision.answers
    assert [(p.label, p.value) for p in score.probabilities] == [("bad", 0), ("some", 1), ("good", 2)]
    assert [p.probability for p in score.probabilities] == close
    assert score.score == pytest.approx(probs[1] + 2 * probs[2], abs=1e-9)
    assert score.confidence == pytest.approx(max(probs), abs=1e-9)
    assert (same.name, score.name, same.score) == ("fit", None, score.score)
    assert [p.probability for p in choice.probabilities] == close
    assert choice.choice == NAMES[probs.index(max(probs))]
    assert good.probability == pytest.approx(probs[2], abs=1e-9)
    assert some.probability == pytest.approx(probs[1] + probs[2], abs=1e-9)
    assert decision.model == "students/tiny"


def test_the_same_request_has_the_same_answer_and_says_what_was_read(shop):
    one, two = (asked(shop, model="students/tiny", input=PART, questions=[SCORE]) for _ in range(2))
    assert one == two
    assert one.usage.input_tokens == one.usage.total_tokens > one.usage.input_tokens_details.cached_tokens > 0
    assert one.usage.output_tokens == one.usage.output_tokens_details.reasoning_tokens == 0


def test_a_scale_of_many_kinds_is_a_choice_and_a_text_is_the_only_field(kinds):
    choice = {"type": "choice", "instructions": "", "choices": [{"value": s} for s in KINDS.symbols]}
    decision = asked(kinds, model="students/tiny", input="red lamp", questions=[choice])
    ours = scored(kinds, {"text": "red lamp"})
    assert decision.answers[0].choice == ours["grade"]
    assert [p.probability for p in decision.answers[0].probabilities] == pytest.approx(list(ours["probs"].values()))
    message = [{"role": "user", "content": [{"type": "input_text", "text": "red lamp"}]}]
    assert asked(kinds, model="students/tiny", input=message, questions=[choice]).answers == decision.answers
    for wrong in (
        {"type": "predicate", "instructions": "grade>=B"},
        {"type": "score", "instructions": "", "levels": [{"label": s} for s in KINDS.symbols]},
    ):
        with pytest.raises(openai.BadRequestError, match="choice question"):
            asked(kinds, model="students/tiny", input="red lamp", questions=[wrong])


def question(**change):
    return {"questions": [{**SCORE, **change}]}


def user(*parts):
    return {"input": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        (question(levels=[{"label": name} for name in reversed(NAMES)]), "questions[0].levels", "another order"),
        (question(levels=[{"label": name} for name in ("a", "b", "c")]), "questions[0].levels", '"some", "good"'),
        (question(levels=[{"label": str(i)} for i in range(11)]), "questions[0].levels", "at most 10"),
        (question(instructions="Is it polite?"), "questions[0].instructions", SHOP.ask),
        (question(type="predicate", levels=None), "questions[0].levels", "not permitted"),
        ({"questions": [{"type": "predicate", "instructions": "Is it red?"}]}, "questions[0].instructions", "grade>=K"),
        ({"questions": [{"type": "predicate", "instructions": "grade>=7"}]}, "questions[0].instructions", "grade>=K"),
        ({"questions": [{"type": "choice", "instructions": "", "choices": [{"value": True}, {"value": False}]}]},
         "questions[0].choices", "grades"),
        (question(type="s3cret"), "questions[0]", "'score'"),
        ({"questions": [SCORE] * 400}, "questions", "at most 64"),
        ({"questions": []}, "questions", "at least 1"),
        ({"input": "red lamp"}, "input", "input_json"),
        (user({"type": "input_json", "data": {"query": "a"}}), "input[0].content[0].data", '"title"'),
        (user({"type": "input_json", "data": {**SAMPLE, "x": 1}}), "input[0].content[0].data", "too many"),
        (user({"type": "input_json", "data": [SAMPLE]}), "input[0].content[0]", "one object"),
        (user({"type": "input_json", "data": {**SAMPLE, "title": "a" * 200_000}}),
         "input[0].content[0].data.title", "200,000 characters"),
        (user({"type": "input_image", "image_url": "data:image/png;base64,AA"}), "input[0].content[0]", "images"),
        (user(*[{"type": "input_text", "text": "a"}] * 2), "input[0].content", "one part"),
        ({"input": [{"role": "system", "content": "be kind"}, *PART]}, "input", "no other roles"),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}]}, "input", "tool"),
        ({"stream": True}, "stream", "/explain"),
        ({"tools": []}, "tools", "parameter"),
        ({"state": {}}, "state", "/v1/systemone"),
        ({"documents": ["a"], "query": "b"}, "documents", "/v1/rerank"),
    ],
)  # fmt: skip
def test_what_the_student_does_not_answer_is_refused_in_the_shape_of_the_contract(shop, change, param, words):
    body = {"model": "students/tiny", "input": PART, "questions": [SCORE], **change}
    refused = shop.post("/v1/decisions", json=body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert len(error["message"]) < 500
    assert "s3cret" not in refused.text


def test_an_object_that_a_client_wrote_as_text_is_the_sample_too(shop, kinds):
    part = asked(shop, model="students/tiny", input=PART, questions=[SCORE])
    assert asked(shop, model="students/tiny", input=json.dumps(SAMPLE), questions=[SCORE]) == part
    choice = {"type": "choice", "instructions": "", "choices": [{"value": s} for s in KINDS.symbols]}
    bare, whole, other = (
        asked(kinds, model="students/tiny", input=text, questions=[choice]).usage.input_tokens
        for text in ("red lamp", '{"text": "red lamp"}', '{"title": "red lamp"}')
    )
    assert bare == whole < other


def test_a_calibrated_student_answers_with_its_calibrated_probabilities(tmp_path):
    kept = Calibration(strategy="bias", temperature=2.0, bias=(0.0, 0.0, 3.0))
    judge = make(tmp_path, SHOP, calibration=kept)
    with serving(judge) as client:
        [answer] = asked(client, model="students/tiny", input=PART, questions=[SCORE]).answers
    [offline] = judge.score([SAMPLE])
    raw = make(tmp_path / "raw", SHOP).score([SAMPLE])[0].probs
    assert [p.probability for p in answer.probabilities] == pytest.approx(offline.probs, abs=CLOSE)
    assert offline.probs != pytest.approx(raw, abs=0.05)


def test_a_model_that_is_not_here_is_not_found_and_the_names_are_listed(shop):
    with openai.OpenAI(base_url=f"{shop.base_url}/v1", api_key="none", max_retries=0) as api:
        assert [model.id for model in api.models.list()] == ["students/tiny", "gpt-6-luna"]
        assert api.models.retrieve("students/tiny").owned_by == "piar"
        with pytest.raises(openai.NotFoundError, match="gpt-6-luna"):
            api.models.retrieve("gpt-5")
    with pytest.raises(openai.NotFoundError, match="students/tiny"):
        asked(shop, model="gpt-5", input=PART, questions=[SCORE])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/decisions", b"{", 400),
        ("/v1/decisions", b"[" * 100_000, 400),
        ("/v1/decisions", b'{"input": "a", "input": "b"}', 400),
        ("/v1/decisions", b'{"input": NaN}', 400),
        ("/v1/decisions", b" " * 5_000_000, 413),
        ("/v1/chat/completions", b"{}", 404),
        ("/v1/models", b"{}", 405),
    ],
)
def test_errors_before_the_question_is_read_have_the_same_shape(shop, path, body, status):
    refused = shop.post(path, content=body, headers={"content-type": "application/json"})
    assert refused.status_code == status
    assert refused.json()["error"]["type"] == "invalid_request_error"


def test_half_a_character_and_a_prompt_that_is_too_long_are_refused(shop):
    half = (
        b'{"input": [{"role": "user", "content": [{"type": "input_json", "data": {"query": "\\ud800", "title": ""}}]}],'
    )
    half += b'"questions": [{"type": "predicate", "instructions": "grade>=1"}]}'
    refused = shop.post("/v1/decisions", content=half, headers={"content-type": "application/json"})
    assert (refused.status_code, "surrogate" in refused.text) == (400, True)
    long = {**SAMPLE, "title": "7 " * 9000}
    with pytest.raises(openai.BadRequestError) as error:
        asked(shop, model="students/tiny", questions=[SCORE], **user({"type": "input_json", "data": long}))
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize("path", ["POST /v1/decisions", "GET /v1/models", "GET /v1/models/{name}"])
def test_it_answers_as_its_own_description_says(shop, path):
    """Fuzzed from its OpenAPI document, which cannot say that a question must be the student's."""
    schema = schemathesis.openapi.from_url(f"{shop.base_url}/openapi.json")
    method, route = path.split()

    @given(schema[route][method].as_strategy())
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def fuzz(case):
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    fuzz()
