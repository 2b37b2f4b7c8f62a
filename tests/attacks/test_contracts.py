"""Bodies of each contract, one part replaced by anything, at each path: an answer or a 4xx in the path's own shape."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from piar.serve.contracts import OpenAIError, RerankError, TeiError
from tests.serve.test_decisions import PART, SAMPLE, SCORE, SHOP, make
from tests.serve.test_serve import serving

SHAPES = {
    "/v1/decisions": (OpenAIError,),
    "/v1/systemone": (OpenAIError,),
    "/rerank": (RerankError, TeiError),
    "/v1/rerank": (RerankError,),
    "/v2/rerank": (RerankError,),
}
BODIES = [
    {"model": "students/tiny", "input": PART, "questions": [SCORE, {"type": "predicate", "instructions": "grade>=1"}]},
    {"state": SAMPLE, "questions": {"a": {"type": "score", "criteria": ["bad", "some", "good"], "instructions": ""}}},
    {
        "query": "lamp",
        "documents": ["title: a", {"title": "b"}, '{"title": "c"}'],
        "top_n": 2,
        "return_documents": True,
    },
    {"query": "lamp", "texts": ["a", "b"], "truncate": False, "return_text": True},
]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with serving(make(tmp_path_factory.mktemp("s"), SHOP)) as client:
        yield client


@st.composite
def changed(draw):
    """A body with one part replaced, removed or added."""
    body = json.loads(json.dumps(draw(st.sampled_from(BODIES))))
    here = body
    while True:
        places = list(here) if isinstance(here, dict) else list(range(len(here)))
        place = draw(st.sampled_from(places)) if places else None
        if place is None or not isinstance(here[place], dict | list) or draw(st.booleans()):
            break
        here = here[place]
    match draw(st.sampled_from(["replace", "remove", "add"])):
        case "add" if isinstance(here, dict):
            here[draw(st.text(max_size=9))] = draw(ANY)
        case "remove" if place is not None:
            del here[place]
        case _ if place is not None:
            here[place] = draw(ANY)
    return body


@given(st.sampled_from(list(SHAPES)), changed() | ANY)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_body_breaks_a_route(client, path, body):
    reply = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert reply.status_code < 500
    if reply.status_code != 200:
        assert any(set(reply.json()) == set(shape.model_fields) for shape in SHAPES[path])
        assert len(reply.text) < 2000


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"content-type": "text/plain"}])
def test_the_door_speaks_the_contract_too(client, path, headers):
    refused = client.post(path, content=b"{}", headers=headers)
    assert 400 <= refused.status_code < 500
    assert any(set(refused.json()) == set(shape.model_fields) for shape in SHAPES[path])
