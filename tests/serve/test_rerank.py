"""`/rerank` as clients of Cohere, Jina and TEI send it: the expected grade of `/score`, scaled."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cohere
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from piar.serve.app import build
from piar.serve.documents import fields_in
from piar.serve.settings import ServeSettings
from store.errors import UsageError
from store.task import Grade, Task
from tests.serve.test_decisions import KINDS, SHOP, make
from tests.serve.test_serve import serving
from trainers.session import Session

OFFER = Task(
    name="offer",
    fields=("query", "title", "price"),
    group_by="query",
    grades=tuple(Grade(symbol=str(i), value=3 * i) for i in range(4)),
)
QUERY = "red lamp"
TEXTS = [f"red lamp {i % 5} «chair» {i}" for i in range(12)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with serving(make(tmp_path_factory.mktemp("s"), SHOP), rerank_tokens=60_000) as client:
        yield client


@pytest.fixture(scope="module")
def offer(tmp_path_factory):
    with serving(make(tmp_path_factory.mktemp("s"), OFFER)) as client:
        yield client


def expected(client, samples, low=0.0, high=20.0):
    results = client.post("/score", json={"samples": samples}).json()["results"]
    return [(r["expected"] - low) / (high - low) for r in results]


def by_index(results, score="relevance_score"):
    return [r[score] for r in sorted(results, key=lambda r: r["index"])]


def test_coheres_clients_get_the_expected_grade_scaled_from_0_to_1(shop):
    ours = expected(shop, [{"query": QUERY, "title": text} for text in TEXTS])
    address = {"base_url": str(shop.base_url), "api_key": "none"}
    with cohere.ClientV2(**address) as api:
        reply = api.rerank(model="students/tiny", query=QUERY, documents=TEXTS, top_n=5)
        with pytest.raises(cohere.NotFoundError, match="students/tiny"):
            api.rerank(model="rerank-v5", query=QUERY, documents=TEXTS)
    assert len(reply.results) == 5
    assert [r.relevance_score for r in reply.results] == pytest.approx(sorted(ours, reverse=True)[:5], abs=1e-6)
    with cohere.Client(**address) as api:
        texts = [{"text": text} for text in TEXTS]
        older = api.rerank(model="students/tiny", query=QUERY, documents=texts, return_documents=True)
    assert [r.relevance_score for r in older.results] == sorted(
        [r.relevance_score for r in older.results], reverse=True
    )
    assert all(r.document.text == TEXTS[r.index] for r in older.results)
    assert older.meta.tokens.input_tokens > 0


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_jinas_clients_find_the_documents_beside_their_relevance(shop, path):
    body = {"model": "students/tiny", "query": QUERY, "documents": TEXTS, "top_n": None}
    reply = shop.post(path, json=body).json()
    assert [r["document"]["text"] for r in reply["results"]] == [TEXTS[r["index"]] for r in reply["results"]]
    assert reply["usage"]["total_tokens"] > 0
    bare = shop.post(path, json={**body, "return_documents": False}).json()
    assert all(set(r) == {"index", "relevance_score"} for r in bare["results"])
    assert by_index(reply["results"]) == by_index(bare["results"])


def test_text_embeddings_inference_gets_a_bare_list_and_its_own_errors(shop):
    found = shop.post("/rerank", json={"query": QUERY, "texts": TEXTS, "return_text": True}).json()
    assert [one["score"] for one in found] == sorted([one["score"] for one in found], reverse=True)
    assert all(one["text"] == TEXTS[one["index"]] for one in found)
    for wrong in ({"texts": TEXTS}, {"query": QUERY, "texts": []}, {"query": 7, "texts": []}):
        refused = shop.post("/rerank", json=wrong)
        assert refused.status_code == 422
        assert set(refused.json()) == {"error", "error_type"}
    long = shop.post("/rerank", json={"query": QUERY, "texts": ["7 " * 9000]})
    assert (long.status_code, long.json()["error_type"]) == (413, "Validation")
    assert shop.post("/rerank", json={"query": QUERY, "texts": ["7 " * 99_000], "truncate": True}).status_code == 200


def test_documents_fill_the_fields_as_objects_json_or_yaml(offer):
    samples = [
        {"query": QUERY, "title": "red «chair»", "price": "9.50"},
        {"query": QUERY, "title": "é", "price": ""},
        {"query": QUERY, "title": "lamp: red", "price": '["7", "8"]'},
    ]
    documents = [
        {"title": "red «chair»", "price": "9.50", "id": 7, "query": "another"},
        "title: é\nid: 8",
        'title: "lamp: red"\nprice:\n- "7"\n- "8"',
    ]
    same = ['{"title": "red «chair»", "price": 9.50, "id": 7}', {"title": "é", "price": None}, json.dumps(samples[2])]
    ours = expected(offer, samples, high=9.0)
    for asked in (documents, same[:2]):
        reply = offer.post("/v2/rerank", json={"query": QUERY, "documents": asked}).json()
        assert by_index(reply["results"]) == pytest.approx(ours[: len(asked)], abs=1e-6)


def test_a_text_needs_a_field_to_stand_in(offer, tmp_path):
    refused = offer.post("/v1/rerank", json={"query": QUERY, "documents": ["title of a lamp", "note: red"]})
    assert refused.status_code == 400
    assert "serve.rerank_field" in refused.json()["message"] == refused.json()["detail"]
    with serving(make(tmp_path, OFFER), rerank_field="title") as client:
        reply = client.post("/v1/rerank", json={"query": QUERY, "documents": ["title of a lamp", "note: red"]}).json()
        samples = [{"query": QUERY, "title": t, "price": ""} for t in ("title of a lamp", "note: red")]
        assert by_index(reply["results"]) == pytest.approx(expected(client, samples, high=9.0), abs=1e-6)
    with pytest.raises(UsageError, match="rerank_field"):
        build(Session(make(tmp_path / "b", OFFER)), ServeSettings(rerank_field="titel"), "s")


def test_equal_documents_are_equal_and_ties_keep_their_order(shop):
    documents = [TEXTS[i % 3] for i in range(40)]
    results = shop.post("/rerank", json={"query": QUERY, "documents": documents}).json()["results"]
    assert len({r["relevance_score"] for r in results}) <= 3
    places = [r["index"] for r in results]
    assert places == sorted(places, key=lambda i: (-by_index(results)[i], i))


def test_a_thousand_documents_are_ranked_and_their_tokens_are_bounded(shop):
    documents = [f"lamp {i}" for i in range(1000)]
    results = shop.post("/v2/rerank", json={"query": QUERY, "documents": documents}).json()["results"]
    assert sorted(r["index"] for r in results) == list(range(1000))
    refused = shop.post("/v2/rerank", json={"query": QUERY, "documents": [f"{i} lamp " * 20 for i in range(2000)]})
    assert refused.status_code == 400
    assert "60,000" in refused.json()["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"documents": TEXTS}, "query"),
        ({"query": " ", "documents": TEXTS}, "query"),
        ({"query": QUERY}, "document"),
        ({"query": QUERY, "documents": []}, "document"),
        ({"query": QUERY, "documents": "lamp"}, "list"),
        ({"query": QUERY, "documents": [7]}, "documents[0]"),
        ({"query": QUERY, "documents": [{"image": "http://a/b.png"}]}, "documents[0]"),
        ({"query": QUERY, "documents": TEXTS, "top_n": 0}, "top_n"),
        ({"query": QUERY, "documents": TEXTS, "top_k": 3}, "top_n"),
        ({"query": QUERY, "documents": TEXTS, "stream": True}, "/explain"),
        ({"query": QUERY, "documents": ["a" * 200_000]}, "200,000"),
        ({"query": QUERY, "documents": ["\ud800"]}, "surrogate"),
        ({"query": QUERY, "texts": TEXTS}, "/rerank"),
        ({"input": "a", "questions": []}, "/v1/decisions"),
        ({"samples": []}, "/score"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_words_that_both_contracts_show(shop, body, words):
    for path in ("/v1/rerank", "/v2/rerank"):
        refused = shop.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        assert refused.status_code == 400
        assert words in refused.json()["message"]
        assert "top_n: top_n:" not in refused.json()["message"]
        assert len(refused.text) < 1000


def test_the_document_that_is_too_long_is_named_by_its_place(shop):
    refused = shop.post("/v1/rerank", json={"query": QUERY, "documents": ["lamp", "lamp", "7 " * 9000]})
    assert (refused.status_code, "sample 2" in refused.json()["message"]) == (400, True)


def test_a_task_without_order_cannot_rank(tmp_path):
    with serving(make(tmp_path, KINDS)) as client:
        refused = client.post("/rerank", json={"query": QUERY, "documents": TEXTS})
    assert (refused.status_code, "no order" in refused.text) == (400, True)


def test_a_short_request_does_not_wait_for_all_of_a_long_one(tmp_path, monkeypatch):
    gate, sizes = threading.Event(), []
    with serving(make(tmp_path, SHOP), batch=8) as client, ThreadPoolExecutor(2) as pool:
        session = client.app.state.engine._session
        score = session.score

        def counted(prompts):
            sizes.append(len(prompts))
            return gate.wait(20) and score(prompts)

        monkeypatch.setattr(session, "score", counted)
        long = pool.submit(client.post, "/rerank", json={"query": QUERY, "documents": [f"lamp {i}" for i in range(80)]})
        while not sizes:
            time.sleep(0.01)
        short = pool.submit(client.post, "/score", json={"samples": [{"query": QUERY, "title": "lamp"}]})
        while client.get("/healthz").json()["waiting"] < 81:
            time.sleep(0.01)
        gate.set()
        short.result()
        assert not long.done()
        assert len(long.result().json()["results"]) == 80
    assert len(sizes) == 11


BOMB = "title: &a [lol,lol,lol,lol]\n" + "".join(f"x{i}: &x{i} [*a,*a,*a,*a,*a,*a,*a]\n" for i in range(1000))


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "title: &a b\nprice: *a",
        "title: " + "[" * 5000,
        "title: " + "[" * 900 + "]" * 900 + "\nprice: *a",
        '{"title": ' * 2000,
        "title: !!python/object/apply:os.system [id]\nprice: [",
        "title: a\nand more",
        "a text about a title: red",
        "titles: many",
        "- title: a",
        '["title"]',
        "title: a\x00",
        "title: " + "a" * 300_000,
    ],
)
def test_a_text_that_is_no_small_mapping_with_a_field_stays_a_text(text):
    assert fields_in(text, ("title", "price")) is None


def test_scalars_stay_what_was_written_and_tags_make_nothing():
    text = "title: 2026-01-01\nprice: 0.10\nmore: {a: yes}\nrun: !!python/object/apply:os.getcwd []"
    assert fields_in(text, ("title", "price")) == {
        "title": "2026-01-01", "price": "0.10", "more": {"a": "yes"}, "run": []
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_it_answers_as_its_own_description_says(shop, path):
    """Fuzzed from its OpenAPI document, which cannot say what a document may be."""
    schema = schemathesis.openapi.from_url(f"{shop.base_url}/openapi.json")

    @given(schema[path]["POST"].as_strategy())
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def fuzz(case):
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    fuzz()
