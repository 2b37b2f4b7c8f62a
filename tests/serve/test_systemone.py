"""`POST /v1/systemone`: a state and a map of questions get the grades of `/score`."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serve.test_decisions import KINDS, NAMES, SAMPLE, SHOP, make, scored
from tests.serve.test_serve import serving

SCORE = {"type": "score", "criteria": list(NAMES)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with serving(make(tmp_path_factory.mktemp("s"), SHOP)) as client:
        yield client


def test_every_question_about_the_grades_is_answered_from_the_grades_of_score(shop):
    questions = {
        "fit": {**SCORE, "instructions": SHOP.ask},
        "which": {"type": "choice", "criteria": {"0": "not at all", "1": None, "2": None}},
        "grade>=good": {"type": "noul", "instructions": ""},
        "some": {"type": "noul", "instructions": "grade>=some", "criteria": {"true": "it fits", "false": None}},
    }
    body = {"model": "students/tiny", "state": SAMPLE, "questions": questions, "priority": 0}
    reply = shop.post("/v1/systemone", json=body)
    assert reply.status_code == 200
    answers, probs = reply.json()["answers"], list(scored(shop, SAMPLE)["probs"].values())
    close = pytest.approx(probs, abs=1e-9)
    assert list(answers) == list(questions)
    assert list(answers["fit"]["probabilities"].values()) == close
    assert answers["fit"]["legend"] == {"0": "bad", "1": "some", "2": "good"}
    assert answers["fit"]["score"] == pytest.approx(probs[1] + 2 * probs[2], abs=1e-9)
    assert answers["fit"]["confidence"] == pytest.approx(max(probs), abs=1e-9)
    assert list(answers["which"]["probabilities"].values()) == close
    assert answers["which"]["choice"] == str(probs.index(max(probs)))
    assert answers["grade>=good"] == {"type": "noul", "noul": pytest.approx(probs[2], abs=1e-9)}
    assert answers["some"]["noul"] == pytest.approx(probs[1] + probs[2], abs=1e-9)
    assert reply.json()["usage"]["input_tokens"] > 0
    assert shop.post("/v1/systemone", json=body).json() == reply.json()


def test_a_text_is_the_only_field_of_a_task_that_has_one(tmp_path):
    with serving(make(tmp_path, KINDS)) as client:
        question = {"type": "choice", "criteria": dict.fromkeys(KINDS.symbols)}
        reply = client.post("/v1/systemone", json={"state": "red lamp", "questions": {"kind": question}})
        assert reply.json()["answers"]["kind"]["choice"] == scored(client, {"text": "red lamp"})["grade"]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"questions": {"a": {**SCORE, "criteria": list(reversed(NAMES))}}}, "questions.a.criteria", "another order"),
        ({"questions": {"a": {**SCORE, "instructions": "Is it polite?"}}}, "questions.a.instructions", SHOP.ask),
        ({"questions": {"a": {"type": "noul", "instructions": "Is it red?"}}}, "questions.a.instructions", "grade>=K"),
        ({"questions": {"a": {"type": "predicate", "instructions": ""}}}, "questions.a", "noul"),
        ({"questions": {str(i): SCORE for i in range(400)}}, "questions", "at most 64"),
        ({"questions": [SCORE]}, "questions", "dictionary"),
        ({"questions": {}}, "questions", "at least 1"),
        ({"instructions": "Be kind."}, "instructions", "one instruction"),
        ({"state": "red lamp"}, "state", "several fields"),
        ({"state": [SAMPLE]}, "state", "no list"),
        ({"state": {**SAMPLE, "title": "a" * 200_000}}, "state.title", "200,000 characters"),
        ({"images": ["data:image/png;base64,AA"]}, "images", "parameter"),
        ({"stream": True}, "stream", "/explain"),
        ({"input": "red lamp"}, "input", "/v1/decisions"),
        ({"texts": ["a"], "query": "b"}, "texts", "/rerank"),
    ],
)
def test_what_the_student_does_not_answer_is_refused_in_the_shape_of_the_contract(shop, change, param, words):
    refused = shop.post("/v1/systemone", json={"state": SAMPLE, "questions": {"a": SCORE}, **change})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == param
    assert words in error["message"]
    assert len(error["message"]) < 500


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/systemone", {"input": "a", "questions": [SCORE]}, "/v1/decisions"),
        ("/v1/decisions", {"state": SAMPLE, "questions": {"a": SCORE}}, "/v1/systemone"),
        ("/v1/decisions", {"query": "a", "documents": ["b"]}, "/v1/rerank"),
        ("/v1/rerank", {"state": SAMPLE, "questions": {"a": SCORE}}, "/v1/systemone"),
        ("/v1/decisions", {"samples": [SAMPLE]}, "/score"),
        ("/v1/systemone", {"messages": [{"role": "user", "content": "hello"}]}, "no chat model"),
    ],
)
def test_a_body_of_one_contract_at_the_path_of_another_is_told_where_it_belongs(shop, path, body, words):
    refused = shop.post(path, json=body)
    assert refused.status_code == 400
    assert words in refused.text


def test_it_answers_as_its_own_description_says(shop):
    """Fuzzed from its OpenAPI document, which cannot say that a question must be the student's."""
    schema = schemathesis.openapi.from_url(f"{shop.base_url}/openapi.json")

    @given(schema["/v1/systemone"]["POST"].as_strategy())
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def fuzz(case):
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    fuzz()
