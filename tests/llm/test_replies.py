"""Replies of chat completions in all the shapes that servers give them."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piar.llm.base import Request
from piar.llm.openai.chat import BadReply, answer_from, decoded, probabilities
from store.task import Grade, Task
from store.trace import parse_trace

TASK = Task(name="t", group_by="q", fields=("q",), grades=tuple(Grade(symbol=g, value=float(g)) for g in "012"))
GOOD = json.dumps({"grade": "1", "evidence": [], "rules": [], "verdict": "1"})


def read_answer(payload):
    return answer_from(decoded(payload))


def reply(message, finish="stop", **choice):
    usage = {"prompt_tokens": 30, "completion_tokens": 400}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish, **choice}], "usage": usage}).encode()


@pytest.mark.parametrize(
    "message",
    [
        {"content": GOOD},
        {"content": [{"type": "thinking", "thinking": [{"text": "2?"}]}, {"type": "text", "text": GOOD}]},
        {"content": [{"type": "text", "text": GOOD[:9]}, {"type": "text", "text": GOOD[9:]}]},
        {"content": [{"type": "reasoning", "text": "2?"}, {"type": "output_text", "text": GOOD}]},
        {"content": {"type": "text", "text": GOOD}},
        {"content": json.loads(GOOD)},
        {"content": None, "tool_calls": [{"function": {"name": "answer", "arguments": json.loads(GOOD)}}]},
        {"content": ["", GOOD]},
        {"content": None, "reasoning_content": GOOD},
        {"content": "", "reasoning": f"It fits.\n</think>\n\n{GOOD}"},
        {"content": None, "tool_calls": [{"function": {"name": "answer", "arguments": GOOD}}]},
        {"content": None, "function_call": {"name": "answer", "arguments": GOOD}},
        {"content": GOOD, "reasoning_content": "2?", "refusal": None},
    ],
)  # fmt: skip
def test_an_answer_is_read_wherever_the_server_puts_it(message):
    answer = read_answer(reply(message))
    assert parse_trace(answer.text, TASK).trace.grade == "1"


@pytest.mark.parametrize(
    ("stream", "kind", "words"),
    [
        (b'data: {"error": {"message": "overloaded", "code": 529}}\n\n', "server", "overloaded"),
        (b'event: error\r\ndata: {"error": "fell over"}\r\n\r\n', "server", "fell over"),
        (b": alive\n\n: alive\n\ndata: [DONE]\n\n", "malformed", "not a JSON object"),
        (b'data: {"choices": 3}\n\ndata: {"choices": [4], "id": "x"}\n\ndata: {"cho', "malformed", "no choices"),
        (b'data: {"choices": [{"delta": {}, "finish_reason": "SAFETY"}]}\n\n', "refused", "content filter"),
    ],
)
def test_a_stream_without_an_answer_says_why(stream, kind, words):
    with pytest.raises(BadReply) as raised:
        read_answer(stream)
    assert raised.value.kind == kind
    assert words in raised.value.message


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (reply({"content": None, "reasoning_content": "Let me think"}, "length"), "truncated", "only reasoning"),
        (reply({"content": ""}, "length"), "truncated", "raise max_tokens"),
        (reply({"content": None}, "MAX_TOKENS"), "truncated", "raise max_tokens"),
        (reply({"content": "", "refusal": "I can't help with that."}), "refused", "I can't help"),
        (reply({"content": ""}, "content_filter"), "refused", "the provider's content filter"),
        (reply({"content": "{"}, "SAFETY"), "refused", "the provider's content filter"),
        (reply({"content": None}, "content_filter: PROHIBITED_CONTENT"), "refused", "the provider's content filter"),
        (reply({"content": "{"}, "network_error"), "server", "broke the answer off"),
        (b'{"code": 500, "msg": "busy", "success": false}', "server", "busy"),
        (reply({"content": ""}, "error", error={"code": 502, "message": "Provider fell over"}), "server", "fell over"),
        (b'{"choices": []}', "malformed", "no choices"),
        (b'{"choices": null}', "malformed", "no choices"),
        (b'{"choices": {"0": 1}}', "malformed", "no choices"),
        (reply(None), "malformed", "no message"),
        (b"[]", "malformed", "not a JSON object"),
    ],
)
def test_a_reply_without_an_answer_says_why(body, kind, words):
    with pytest.raises(BadReply) as raised:
        read_answer(body)
    assert raised.value.kind == kind
    assert words in raised.value.message


@pytest.mark.parametrize(
    "message", [{"content": None}, {"content": 3}, {"content": "", "reasoning_content": "Hm, 2 or 3?"}]
)
def test_a_message_that_says_nothing_is_one_answer_that_cannot_be_read(message):
    assert parse_trace(read_answer(reply(message)).text, TASK).trace is None


@pytest.mark.parametrize(
    "top",
    [
        [{"token": "1", "logprob": float("nan")}],
        [{"token": "1", "logprob": 0.5}],
        [{"token": "1", "logprob": -0.1}, {"token": "2", "logprob": -0.1}],
        [{"token": "1"}],
        [{"token": 1, "logprob": -0.1}],
        "none",
    ],
)
def test_what_cannot_be_log_probabilities_is_left_out(top):
    item = {"token": "1", "logprob": -0.1, "top_logprobs": top}
    assert read_answer(reply({"content": "1"}, logprobs={"content": [item]})).tokens == ()


NAMES = [
    "content",
    "text",
    "type",
    "message",
    "error",
    "choices",
    "reasoning",
    "refusal",
    "logprobs",
    "token",
    "logprob",
    "top_logprobs",
    "bytes",
    "usage",
    "prompt_tokens",
    "finish_reason",
    "tool_calls",
    "function",
    "arguments",
]
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
json_values = st.recursive(
    plain | st.sampled_from(["1", "text", GOOD]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, json_values, json_values)
@settings(max_examples=400, deadline=None)
def test_any_reply_is_an_answer_or_an_explained_failure(message, logprobs, usage):
    choice = {"message": message, "logprobs": logprobs, "finish_reason": "stop"}
    for data in (message, {"choices": [choice], "usage": usage}, {"choices": message}):
        with contextlib.suppress(BadReply):
            answer = read_answer(json.dumps(data).encode())
            assert isinstance(answer.text, str)
            assert probabilities(Request("k", (), ("0", "1", "2")), answer).probs is None or answer.tokens
