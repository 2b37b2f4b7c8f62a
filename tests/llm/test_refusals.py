"""What endpoints say instead of an answer, in the shapes in which different ones say it."""

from datetime import UTC, datetime

import pytest

from piar.llm.openai.refusals import Dialect, error_inside, error_message, inner_status, read_refusal

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
BODY = {
    "model": "m", "messages": [], "max_tokens": 400, "temperature": 0, "seed": 1, "logprobs": True,
    "top_logprobs": 8, "response_format": {}, "n": 2, "reasoning_effort": "low",
}  # fmt: skip


def understood(status, error, headers=None):
    return read_refusal(status, headers or {}, error, BODY, NOW)


@pytest.mark.parametrize(
    ("headers", "error", "wait"),
    [
        ({"retry-after": "7"}, {"error": {"code": "429", "message": "limit; see /quotaincrease"}}, 7),
        ({}, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED",
                         "message": "current quota: 10 a minute. Please retry in 1.2s."}}], 1.2),
        ({}, {"error": {"message": "quota", "details": [{"@type": "RetryInfo", "retryDelay": "32s"}]}}, 32),
        ({}, {"error": {"message": "Rate limit reached for tokens. Please try again in 7m12s. Visit the page."}}, 432),
        ({}, {"error": {"message": "Please retry after 2 seconds."}}, 2),
        ({}, {"message": "Requests rate limit exceeded", "retry_after_ms": 1500}, 1.5),
        ({}, {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error": "wait 3 s"}'}}}, 3),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m2s"}, {"error": "slow"}, 62),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767268805000"}, {"error": "slow"}, 5),
        ({"anthropic-ratelimit-requests-remaining": "1"}, {"error": {"type": "rate_limit_error"}}, None),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:09 GMT"}, "Too many requests", 9),
    ],
)  # fmt: skip
def test_a_limit_per_minute_is_waited_out_as_told(headers, error, wait):
    found = understood(429, error, headers)
    assert found.kind == "rate_limit"
    assert found.wait == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}),
        (429, {"error": {"type": "billing_not_active", "message": "Your account is not active"}}),
        (402, {"error": {"message": "This request requires more credits"}}),
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Credit balance is too low"}}),
    ],
)  # fmt: skip
def test_only_a_spent_account_is_final(status, error):
    assert understood(status, error).kind == "billing"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (503, {"error": {"message": "The model is overloaded. Please try again later."}}, "server"),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "server"),
        (400, {"__type": "x", "code": "ThrottlingException", "message": "Too many tokens, wait"}, "rate_limit"),
        (498, {"error": {"message": "capacity exceeded"}}, "rate_limit"),
        (408, {}, "timeout"),
        (409, "conflict", "server"),
        (425, "", "server"),
        (502, "<html><head><title>502 Bad Gateway</title></head></html>", "server"),
        (401, {"error": {"message": "Incorrect API key; set logprobs"}}, "auth"),
        (403, {"error": {"message": "Project does not have access to model m"}}, "auth"),
        (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}], "auth"),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***n"}, "auth"),
        (404, {"error": {"message": "The model 'm' does not exist", "code": "model_not_found"}}, "request"),
        (413, {"error": {"message": "Request too large for the limit", "code": "rate_limit_exceeded"}}, "request"),
        (400, {"error": {"message": "maximum context length is 4096; reduce the messages or max_tokens"}}, "request"),
        (400, {"error": {"code": "content_filter", "message": "The response was filtered"}}, "refused"),
        (403, {"error": {"code": 403, "message": "Input flagged", "metadata": {"reasons": ["violence"]}}}, "refused"),
        (400, {"error": {"code": "json_validate_failed", "message": "Failed to generate JSON"}}, "malformed"),
        (307, "", "request"),
    ],
)  # fmt: skip
def test_other_errors_have_their_class(status, error, kind):
    found = understood(status, error)
    assert (found.kind, found.parameter) == (kind, None)


@pytest.mark.parametrize(
    ("status", "error", "parameter"),
    [
        (403, {"error": {"message": "You are not allowed to request logprobs from this model"}}, "logprobs"),
        (400, {"error": {"status": "INVALID_ARGUMENT", "message": "Logprobs is not enabled for models/x"}}, "logprobs"),
        (500, "UnsupportedParamsError: x does not support parameters: ['logprobs']", "logprobs"),
        (400, {"error": {"message": "top_logprobs is not supported"}}, "top_logprobs"),
        (400, {"error": {"message": "Unsupported parameter: use 'max_completion_tokens'", "param": "max_tokens"}},
         "max_tokens"),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted",
                           "input": 0}]}, "seed"),
        (422, {"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}]}}, "seed"),
        (400, {"error": {"message": "'temperature' does not support 0 with this model"}}, "temperature"),
        (400, {"error": {"message": "This response_format type is unavailable now"}}, "response_format"),
        (400, {"error": "'response_format.type' must be 'text'"}, "response_format"),
        (405, {"error": {"message": "json_schema is not supported for model: x"}}, "response_format"),
        (404, {"error": {"message": "No endpoints found that can handle the requested parameters."}},
         "response_format"),
        (400, {"error": {"message": "only 1 is allowed for 'n'"}}, "n"),
        (400, {"error": {"message": "Unrecognized request argument supplied: reasoning_effort"}}, "reasoning_effort"),
        (400, {"error": {"message": "This model only support stream mode, please enable the parameter."}}, "stream"),
        (400, {"error": {"message": "Non-streaming is not supported for this model"}}, "stream"),
        (400, {"error": {"message": "logprobs are only allowed in non-streaming calls"}}, "logprobs"),
    ],
)  # fmt: skip
def test_a_refused_parameter_is_named(status, error, parameter):
    assert understood(status, error).parameter == parameter


def test_a_dialect_leaves_out_what_is_refused_and_keeps_a_limit():
    dialect = Dialect()
    told = dialect.learn(understood(400, {"error": {"message": "Requested sample logprobs of 8, max allowed: 5"}}))
    assert "no more than 5" in told
    assert dialect.spoken(BODY)["top_logprobs"] == 5
    for name in ("max_tokens", "logprobs", "reasoning_effort"):
        dialect.learn(understood(400, {"error": {"message": f"unknown {name}"}}))
    said = dialect.spoken(BODY)
    assert said["max_completion_tokens"] == 400
    assert not {"max_tokens", "logprobs", "top_logprobs", "reasoning_effort"} & set(said)
    found = read_refusal(400, {}, {"error": {"message": "max_completion_tokens is too large"}}, said, NOW)
    assert (found.kind, found.parameter) == ("request", None)


def test_an_error_inside_a_success_is_found_and_classed():
    choice = {"finish_reason": "error", "error": {"code": 502, "message": "upstream"}, "message": {"content": ""}}
    for reply, status in (
        ({"error": {"code": 429, "message": "later"}}, 429),
        ({"error": {"message": "bad key", "type": "authentication_error"}}, 401),
        ({"error": "odd"}, 500),
        ({"choices": [choice]}, 502),
        ({"choices": [{"finish_reason": "error", "message": {"content": "ha"}}]}, 502),
        ({"choices": [{"finish_reason": "insufficient_system_resource", "message": {"content": "{"}}]}, 502),
        ({"object": "error", "code": 404, "type": "NotFoundError", "message": "no such model"}, 404),
        ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 429),
        ({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, 402),
        ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, 404),
        ({"detail": "Not authenticated"}, 401),
        ({"success": False, "msg": "busy"}, 500),
    ):
        assert inner_status(error_inside(reply)) == status
    assert error_inside({"choices": [{"finish_reason": "stop"}]}) is None
    assert error_inside({"choices": [], "id": "x", "model": "m", "usage": {"total_tokens": 9}}) is None
    assert error_inside({"answers": [{}], "message": "ok"}) is None
    assert error_inside(["text"]) is None


def test_the_words_of_an_error_are_found_in_every_shape():
    assert error_message("<!doctype html><html><title>Just a\n moment</title>") == "an HTML page: Just a moment"
    assert error_message([]) == "no message"
    assert error_message({"detail": "nope"}) == "nope"
    assert len(error_message({"error": "x" * 50_000})) == 20_000


@pytest.mark.parametrize(("status", "data", "wait"), [
    (503, {"error": "Model X is currently loading", "estimated_time": 20.0}, 20.0),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, None),
    (400, {"message": "Too many requests", "__type": "com.amazon#ThrottlingException"}, None),
])  # fmt: skip
def test_a_model_that_is_being_loaded_is_waited_for_like_a_limit(status, data, wait):
    found = read_refusal(status, {}, data, {"model": "m", "messages": []}, datetime.now(UTC))
    assert (found.kind, found.wait) == ("rate_limit", wait)


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        ('Invalid request near "pumpkin seed oil 250 ml"', None),
        ("cannot read pumpkin seed oil; unsupported parameter temperature", "temperature"),
        ("Unrecognized request argument supplied: seed", "seed"),
    ],
)
def test_words_that_an_error_quotes_of_a_sample_name_no_parameter(message, parameter):
    sent = {**BODY, "messages": [{"role": "user", "content": '{"query": "pumpkin seed  oil 250 ml"}'}]}
    assert read_refusal(400, {}, {"error": {"message": message}}, sent, NOW).parameter == parameter
