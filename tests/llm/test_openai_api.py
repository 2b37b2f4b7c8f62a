"""The HTTP client against a real server that misbehaves; every test runs over both transports."""

import json
import os
import signal
import threading
import time

import pytest

from piar.connect import connect
from piar.llm.base import Message, Request, Usage
from piar.llm.cost import Price
from piar.llm.settings import ModelSettings
from store.task import Grade, Task
from store.trace import parse_trace, trace_schema
from tests.faulty_server import GRADES, FaultyServer, right_grade, send

TASK = Task(
    name="t", group_by="q", fields=("q",), grades=tuple(Grade(symbol=g, value=float(g)) for g in GRADES)
)  # fmt: skip


@pytest.fixture(params=["openai", "lean"])
def transport(request):
    return request.param


@pytest.fixture(autouse=True)
def _world(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-planted-0123456789")
    monkeypatch.setattr("piar.llm.openai.pacing.PAUSE_SECONDS", 0.05)  # a tenth of the real pauses
    monkeypatch.setattr("piar.llm.openai.asking.BACKOFF_SECONDS", 0.05)


def client_for(server, transport, notices=None, **settings):
    defaults = {"timeout": 0.5, "concurrency": 16, "attempts": 12, "api_key_env": "TEST_KEY"}
    settings = ModelSettings(
        model="openai:m", base_url=server.url, transport=transport, **(defaults | settings)
    )  # fmt: skip
    return connect(settings, [].append if notices is None else notices.append)


def requests(count, *, check=True, **more):
    read = (lambda text: parse_trace(text, TASK).reason) if check else None
    return [
        Request(f"k{i}", (Message("system", "Judge."), Message("user", f"sample {i}")), GRADES, check=read, **more)
        for i in range(count)
    ]


def grade_of(completion):
    return parse_trace(completion.text, TASK).trace.grade


def test_answers_keep_their_order_and_arrive_as_they_come(transport):
    with FaultyServer(latency=0.01).running() as server:
        arrived, threads = [], set()

        def note(completion):
            arrived.append(completion.key)
            threads.add(threading.current_thread())

        asked = requests(100)
        done = client_for(server, transport).generate(asked, note)
    assert [c.key for c in done] == [r.key for r in asked]
    assert [grade_of(c) for c in done] == [right_grade(f"sample {i}") for i in range(100)]
    assert sorted(arrived) == sorted(r.key for r in asked)
    assert arrived != [r.key for r in asked]
    assert threads == {threading.main_thread()}
    assert server.most_open <= 16
    assert {c.model for c in done} == {"openai:m"}


def test_no_request_no_call(transport):
    with FaultyServer().running() as server:
        assert client_for(server, transport).generate([]) == []
        assert not server.bodies


def test_every_fault_ends_in_the_right_answer(transport):
    server = FaultyServer(seed=3, faults=0.25, malformed=0.1, latency=0.001)
    with server.running():
        done = client_for(server, transport, timeout=0.3).generate(requests(250))
    for i, completion in enumerate(done):
        if completion.failure is None:
            assert grade_of(completion) == right_grade(f"sample {i}")
        else:
            assert completion.failure.kind == "malformed", completion.failure
    assert sum(c.failure is not None for c in done) < 25
    assert len([kind for kind in server.seen if kind != "ok"]) >= 10
    assert sum(c.attempts for c in done) >= sum(server.billed.values())


@pytest.mark.parametrize("kind", ["500", "reset", "stall", "truncated_json", "empty_choices", "error_with_200"])
def test_a_fault_that_lasts_becomes_an_explained_failure(transport, kind):
    with FaultyServer(faults=1.0, kinds=(kind,)).running() as server:
        done = client_for(server, transport, attempts=2, timeout=0.2).generate(requests(3))
    expected = {
        "500": "server",
        "reset": "connection",
        "stall": "timeout",
        "truncated_json": "malformed",
        "empty_choices": "malformed",
        "error_with_200": "server",
    }[kind]
    paid = 1 if kind in ("500", "error_with_200") else 2  # an error is not charged for; a lost reply may be
    assert [(c.failure.kind, c.attempts) for c in done] == [(expected, paid)] * 3
    assert server.seen == {kind: 6}
    assert all(c.failure.message and c.text is None for c in done)


def test_a_storm_of_429_is_waited_out(transport):
    with FaultyServer(faults=0.5, kinds=("429", "429_retry_after")).running() as server:
        done = client_for(server, transport, attempts=1, timeout=60).generate(requests(60))
    assert all(c.failure is None for c in done)
    assert set(server.seen) == {"ok", "429", "429_retry_after"}


def test_nobody_listening_is_a_failure_of_each_request_and_stops_in_time(transport):
    with FaultyServer().running() as server:
        pass
    done = client_for(server, transport, attempts=99, patience=1.0).generate(requests(200))
    assert {c.failure.kind for c in done} == {"connection"}
    assert sum(c.attempts for c in done) < 100
    assert "no answer for" in done[-1].failure.message


def test_an_address_where_nobody_has_ever_answered_is_soon_given_up_and_named(transport, monkeypatch):
    monkeypatch.setattr("piar.llm.openai.asking.UNHEARD_SECONDS", 0.5)
    notices = []
    with FaultyServer().running() as server:
        pass
    done = client_for(server, transport, notices, attempts=99, patience=100).generate(requests(50))
    assert {c.failure.kind for c in done} == {"connection"}
    assert int(done[-1].failure.message.split("no answer for ")[1].split(" ")[0]) < 50
    assert [server.url in notice for notice in notices] == [True]


def test_a_wrong_key_stops_soon_and_is_never_shown(transport):
    with FaultyServer(key="right").running() as server:
        done = client_for(server, transport, concurrency=4).generate(requests(500))
    assert {c.failure.kind for c in done} == {"auth"}
    assert server.seen["401"] < 20
    assert not any("planted" in c.failure.message for c in done)
    assert "Incorrect API key" in done[0].failure.message


def test_the_key_goes_with_every_request_and_without_a_key_none_does(transport):
    with FaultyServer(key="sk-planted-0123456789").running() as server:
        assert all(c.failure is None for c in client_for(server, transport).generate(requests(5)))
        assert not server.seen["401"]
        [refused] = client_for(server, transport, api_key_env="").generate(requests(1))
    assert "Incorrect API key provided: None" in refused.failure.message


@pytest.mark.parametrize(
    ("status", "reply", "kind"),
    [
        (400, {"error": {"message": "x/m is not a valid model ID"}}, "request"),
        (410, {"error": {"message": "The model m was retired"}}, "request"),
        (200, {"object": "error", "code": 404, "message": "The model m does not exist."}, "request"),
        (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "request"),
        (200, {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "billing"),
    ],
)
def test_what_every_request_would_meet_stops_soon_and_costs_nothing(transport, status, reply, kind):
    class Refusing(FaultyServer):
        async def _ok(self, writer, body):
            await send(writer, status, reply)

    with Refusing(latency=0).running() as server:
        done = client_for(server, transport, concurrency=4, price=Price(input=1, output=1)).generate(requests(200))
    assert {c.failure.kind for c in done} == {kind}
    assert server.seen["ok"] < 20
    assert sum(c.cost_usd for c in done) == 0


@pytest.mark.parametrize("asked", [True, False])
def test_an_answer_that_comes_as_a_stream_is_put_together(transport, asked):
    class Streaming(FaultyServer):
        async def _ok(self, writer, body):
            if asked and not body.get("stream"):
                words = "This model only support stream mode, please enable the stream parameter."
                await send(writer, 400, {"error": {"message": words}})
            else:
                await send(writer, 200, as_stream(self.answer(body)))

    notices = []
    with Streaming(latency=0).running() as server:
        done = client_for(server, transport, notices, price=Price(input=1e6)).generate(
            requests(5, schema=trace_schema(TASK))
        )
    assert [grade_of(c) for c in done] == [right_grade(f"sample {i}") for i in range(5)]
    assert all(c.probs and c.attempts == 1 and c.usage == Usage(50, 40, 10) for c in done)
    assert [notice for notice in notices if "streams alone" in notice] == notices
    assert bool(notices) == asked


def as_stream(reply):
    """The same reply, token by token, with a comment, the usage in an event of its own, and the closing mark."""
    [choice] = reply["choices"]
    tokens = choice["logprobs"]["content"]
    parts = [{"delta": {"content": one["token"]}, "logprobs": {"content": [one]}} for one in tokens]
    parts.append({"delta": {}, "finish_reason": choice["finish_reason"]})
    events = [reply | {"choices": [{"index": 0, **part}], "usage": None} for part in parts]
    events.append(reply | {"choices": []})
    return ": alive\n\n" + "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def test_what_a_proxy_did_not_let_through_is_not_charged(monkeypatch):
    class Proxy(FaultyServer):
        async def _connection(self, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            await send(writer, 503, "no")
            writer.close()

    monkeypatch.delenv("no_proxy", raising=False)
    with Proxy().running() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.removesuffix("/v1"))
        settings = ModelSettings(
            model="openai:m", base_url="https://host.invalid/v1", attempts=2, price=Price(input=1, output=1)
        )
        [done] = connect(settings, [].append).generate(requests(1))
    assert (done.failure.kind, done.cost_usd) == ("connection", 0)


def test_a_row_that_is_refused_by_itself_stops_nothing(transport):
    class Picky(FaultyServer):
        async def _ok(self, writer, body):
            if len(self.bodies) > 4:
                await send(writer, 400, {"error": {"message": "this text is not welcome"}})
            else:
                await super()._ok(writer, body)

    with Picky(latency=0).running() as server:
        done = client_for(server, transport, concurrency=1).generate(requests(30))
    assert [c.failure is None for c in done] == [True] * 4 + [False] * 26
    assert server.seen["ok"] == 30


def test_an_answer_that_comes_as_created_is_an_answer(transport):
    class Created(FaultyServer):
        async def _ok(self, writer, body):
            await send(writer, 201, self.answer(body))

    with Created(latency=0).running() as server:
        assert all(c.failure is None for c in client_for(server, transport).generate(requests(3)))


@pytest.mark.parametrize(("finish", "words"), [("MAX_TOKENS", "raise max_tokens"), ("model_length", "window ends")])
def test_an_answer_that_was_cut_off_under_another_name_is_not_paid_for_twice(transport, finish, words):
    class Cutting(FaultyServer):
        def answer(self, body):
            reply = super().answer(body)
            reply["choices"][0] |= {"finish_reason": finish, "message": {"content": '{"gr'}}
            return reply

    with Cutting(latency=0).running() as server:
        [done] = client_for(server, transport).generate(requests(1))
    assert (done.failure.kind, done.attempts) == ("truncated", 1)
    assert words in done.failure.message


def test_the_server_that_comes_back_is_asked_again(transport):
    server = FaultyServer(latency=0.01)
    with server.running():
        done = []
        client = client_for(server, transport, attempts=20)
        server.faults, server.kinds = 1.0, ("reset",)
        threading.Timer(1.0, lambda: setattr(server, "faults", 0.0)).start()
        done = client.generate(requests(100))
    assert all(c.failure is None for c in done)


def test_parameters_that_an_endpoint_refuses_are_left_out_from_then_on(transport):
    notices, refused = [], ("response_format", "logprobs", "seed", "max_tokens")
    with FaultyServer(reject=refused).running() as server:
        client = client_for(server, transport, notices, concurrency=1)
        done = client.generate(requests(5, schema=trace_schema(TASK)))
    assert [grade_of(c) for c in done] == [right_grade(f"sample {i}") for i in range(5)]
    assert server.seen["400"] >= 4  # one more where a busy machine let a request time out, which is sent again
    assert not any(name in body for body in server.bodies[-4:] for name in refused)
    assert len(notices) == 4
    assert any("response_format" in n for n in notices)
    assert server.bodies[-1]["max_completion_tokens"] == 400
    assert done[0].probs is None


def test_an_endpoint_that_passes_over_things_in_silence_is_named(transport):
    notices = []
    with FaultyServer(logprobs=False, schema=False).running() as server:
        client = client_for(server, transport, notices)
        client.generate(requests(20, schema=trace_schema(TASK)))
        client.generate(requests(20, schema=trace_schema(TASK)))
    assert len(notices) == 2
    assert "no logprobs" in notices[0] + notices[1]
    assert "JSON schema" in notices[0] + notices[1]


def test_another_model_answering_is_named(transport):
    notices = []
    with FaultyServer(faults=1.0, kinds=("other_model",)).running() as server:
        client_for(server, transport, notices).generate(requests(3))
    assert notices == ["openai:m was asked for, 'someone-else' says that it answered."]


@pytest.mark.parametrize("schema", [None, trace_schema(TASK)])
def test_probabilities_sum_the_spellings_of_a_grade(transport, schema):
    with FaultyServer().running() as server:
        (done,) = client_for(server, transport).generate(requests(1, schema=schema))
    grade = right_grade("sample 0")
    assert done.text.startswith("{") == (schema is not None)
    assert done.probs[grade] == pytest.approx(0.7)
    assert sum(done.probs.values()) == pytest.approx(1)


def test_a_malformed_answer_is_asked_again_once_with_the_reason(transport):
    with FaultyServer(malformed=1.0).running() as server:
        done = client_for(server, transport).generate(requests(60))
    kinds = [c.failure and c.failure.kind for c in done]
    assert set(kinds) == {None, "malformed"}
    assert len(server.bodies) == 120
    again = [b["messages"] for b in server.bodies if len(b["messages"]) > 2]
    assert len(again) == 60
    assert "first line is not a grade symbol" in again[0][-1]["content"]
    assert again[0][-2] == {"role": "assistant", "content": "I would say it is rather relevant."}
    assert {c.usage.prompt for c in done} == {100}


def test_a_repair_that_is_refused_leaves_the_answer_malformed(transport):
    class Strict(FaultyServer):
        async def _ok(self, writer, body):
            if len(body["messages"]) > 2:
                await send(writer, 400, {"error": {"message": "roles must alternate"}})
            else:
                await super()._ok(writer, body)

    notices = []
    with Strict(malformed=1, latency=0).running() as server:
        done = client_for(server, transport, notices).generate(requests(3, schema=trace_schema(TASK)))
    assert [c.failure.kind for c in done] == ["malformed"] * 3
    assert "roles must alternate" in done[0].failure.message
    assert not any("ignores the JSON schema" in notice for notice in notices)


def test_usage_cached_tokens_and_cost(transport):
    price = Price(input=1.0, cached_input=0.1, output=10.0)
    with FaultyServer().running() as server:
        client = client_for(server, transport, price=price)
        (done,) = client.generate(requests(1))
    assert (done.usage.prompt, done.usage.cached, done.usage.completion) == (50, 40, 10)
    assert done.cost_usd == pytest.approx((10 * 1.0 + 40 * 0.1 + 10 * 10.0) / 1e6)


def test_an_interrupt_lets_what_is_in_flight_arrive(transport):
    with FaultyServer(latency=0.05).running() as server:
        kept, notices = [], []

        def keep(completion):
            kept.append(completion)
            if len(kept) == 20:
                os.kill(os.getpid(), signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            client_for(server, transport, notices, timeout=30).generate(requests(500), keep)
        time.sleep(0.3)
        assert 20 <= len(kept) <= 20 + 2 * 16
        assert all(c.failure is None for c in kept)
        assert len(kept) == sum(server.billed.values())
        assert signal.getsignal(signal.SIGINT) is before
        assert "Ctrl-C again" in notices[0]


def test_a_second_interrupt_stops_at_once(transport):
    notices = []

    def press_twice():
        for seen in (lambda: server.open, lambda: notices):
            while not seen():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

    with FaultyServer(faults=1.0, kinds=("stall",)).running() as server:
        presses = threading.Thread(target=press_twice)
        presses.start()
        with pytest.raises(KeyboardInterrupt):  # no attempt ends by itself before the test is given up
            client_for(server, transport, notices, timeout=3600).generate(requests(50))
        presses.join()
    assert ["Ctrl-C again" in notice for notice in notices] == [True]


def test_an_error_of_the_caller_comes_through_and_the_client_lives_on(transport):
    with FaultyServer(latency=0.01).running() as server:
        client = client_for(server, transport)

        def full(completion):
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            client.generate(requests(100), full)
        assert len(client.generate(requests(10))) == 10


def test_bodies_are_the_same_over_both_transports():
    sent = []
    for transport in ("openai", "lean"):
        with FaultyServer().running() as server:
            client_for(server, transport, extra={"top_p": 0.9}).generate(requests(1, schema=trace_schema(TASK)))
        sent.append(server.bodies[0])
    assert sent[0] == sent[1]
    assert sent[0]["messages"][0]["role"] == "system"
    assert sent[0]["top_p"] == 0.9
    assert json.dumps(sent[0]["response_format"])


def test_a_model_that_gives_no_logprobs_is_asked_without_them(transport):
    class Forbidding(FaultyServer):
        async def _serve(self, writer, headers, body):
            if "logprobs" in body:
                words = "You are not allowed to request logprobs from this model"
                await send(writer, 403, {"error": {"message": words}})
            else:
                await super()._serve(writer, headers, body)

    notices = []
    with Forbidding().running() as server:
        done = client_for(server, transport, notices).generate(requests(30))
        assert all(c.failure is None and c.probs is None for c in done)
        quiet = []
        client_for(server, transport, quiet, logprobs=False).generate(requests(1))
    assert any("refuses 'logprobs'" in notice for notice in notices)
    assert quiet == []


def test_a_limit_that_is_longer_than_patience_stops_with_the_endpoints_words(transport):
    class Spent(FaultyServer):
        async def _ok(self, writer, body):
            words = "Rate limit reached for tokens per day. Please try again in 7h12m0s."
            await send(writer, 429, {"error": {"message": words, "code": "rate_limit_exceeded"}})

    with Spent(latency=0).running() as server:
        done = client_for(server, transport).generate(requests(50))
    assert {c.failure.kind for c in done} == {"rate_limit"}
    assert "asks to wait 25920 s" in done[-1].failure.message
    assert "tokens per day" in done[-1].failure.message
