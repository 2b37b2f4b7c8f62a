"""The OpenAI-compatible endpoint: what a client sees is what the offline teacher answers."""

import json
import math
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.judging import judge_messages
from piar.instructions.prompts import judge_prefix
from piar.llm.base import Request
from piar.offline.endpoint import Faults, running
from piar.offline.teacher import RulebookClient
from piar.shop.world import make_shop
from store.trace import parse_trace, trace_schema

WORLD = make_shop(60, seed=2)
PAIRS = WORLD.pairs.select("query", "title").to_dicts()
PROMPT = judge_prefix(WORLD.task, WORLD.oracle)
CLIENT = RulebookClient()


def chat(pair=PAIRS[0], **more):
    messages = [{"role": m.role, "content": m.content} for m in judge_messages(PROMPT, pair)]
    return {"model": "rulebook", "messages": messages, **more}


def post(server, body, path="/v1/chat/completions"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, data), timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def get(server, path):
    with urllib.request.urlopen(server.url + path, timeout=30) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def server():
    with running(CLIENT) as simulator:
        yield simulator


def test_it_answers_as_the_teacher_does(server):
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda pair: post(server, chat(pair)), PAIRS))
    direct = CLIENT.generate([Request("k", judge_messages(PROMPT, p), WORLD.task.symbols) for p in PAIRS])
    assert [status for status, _ in replies] == [200] * len(PAIRS)
    assert [reply["choices"][0]["message"]["content"] for _, reply in replies] == [d.text for d in direct]


@pytest.mark.parametrize("structured", [False, True])
def test_log_probabilities_of_the_grade_token(server, structured):
    schema = {"type": "json_schema", "json_schema": {"name": "v", "schema": trace_schema(WORLD.task)}}
    more = {"response_format": schema} if structured else {}
    choice = post(server, chat(logprobs=True, top_logprobs=5, **more))[1]["choices"][0]
    tokens = choice["logprobs"]["content"]
    text = choice["message"]["content"]
    assert "".join(token["token"] for token in tokens) == text
    grade = parse_trace(text, WORLD.task).trace.grade
    chosen = next(token for token in tokens if token["token"] == grade)
    shares = {top["token"]: math.exp(top["logprob"]) for top in chosen["top_logprobs"]}
    assert shares.keys() == set(WORLD.task.symbols)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert max(shares, key=shares.get) == grade


def test_the_official_client_understands_it(server):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["rulebook"]
        reply = client.chat.completions.create(**chat(logprobs=True, top_logprobs=2))
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_the_token_limit_cuts_the_answer(server):
    choice = post(server, chat(max_tokens=1))[1]["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"]) == 4


def test_the_ledger_counts_calls_and_tokens_by_model():
    with running(CLIENT) as server:
        usages = [post(server, {**chat(), "model": name})[1]["usage"] for name in ("a", "a", "b")]
        post(server, {**chat(), "model": "a", "messages": [{"role": "user", "content": "no sample"}]})
        ledger = get(server, "/ledger")
    assert (ledger["calls"], ledger["answered"], ledger["failed"]) == (4, 3, 1)
    assert ledger["models"]["a"]["calls"] == 3
    assert ledger["prompt_tokens"] == sum(usage["prompt_tokens"] for usage in usages)
    assert ledger["completion_tokens"] == sum(usage["completion_tokens"] for usage in usages)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": 3}', b'{"messages": [{"role": "robot"}]}'])
def test_a_broken_request_is_refused_with_the_reason(server, body):
    status, reply = post(server, body)
    assert status == 400
    assert reply["error"]["message"]


def test_unknown_paths_are_not_found(server):
    assert post(server, {}, "/v1/embeddings")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "[", "127.0.0.1.evil.example"])
def test_a_page_of_another_name_is_not_answered(server, host):
    request = urllib.request.Request(server.url + "/ledger", headers={"Host": host})
    with pytest.raises(urllib.error.HTTPError, match="421") as refused:
        urllib.request.urlopen(request, timeout=30)
    refused.value.close()


def test_it_answers_to_a_name_that_it_was_given():
    with running(CLIENT, allow_hosts=["Teacher.lan"]) as server:
        request = urllib.request.Request(server.url + "/ledger", headers={"Host": "teacher.lan:8080"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            assert json.load(reply)["calls"] == 0


def test_faults_come_by_seed_and_number():
    def codes(seed):
        faults = Faults(errors=0.3, rate_limited=0.3, malformed=0.2, seed=seed)
        with running(CLIENT, faults=faults) as server:
            return [post(server, chat())[0] for _ in range(40)]

    first = codes(1)
    assert first == codes(1) != codes(2)
    assert {200, 429, 500} == set(first)


def test_a_dropped_call_closes_the_connection():
    with running(CLIENT, faults=Faults(dropped=1.0)) as server:
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            post(server, chat())
        assert get(server, "/ledger")["failed"] == 1


def test_malformed_answers_follow_no_format():
    with running(CLIENT, faults=Faults(malformed=1.0)) as server:
        text = post(server, chat())[1]["choices"][0]["message"]["content"]
    assert parse_trace(text, WORLD.task).trace is None
