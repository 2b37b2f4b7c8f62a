"""What an endpoint says instead of an answer: which class of failure, how long to wait, which parameter it refuses.

Providers agree on little here. A limit per minute is a 429 in most, a 400 or 503 in some, and its text may speak of
a quota; a parameter is refused by 400, 403, 404, 405, 422 or 500; a gateway wraps the words of the one behind it.
Only a code that says that the account is spent makes a rate limit final.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from piar.llm.base import FailureClass
from piar.llm.openai.pacing import duration, retry_after

MOST_ALTERNATIVES = 20  # log-probabilities of so many tokens are asked for at most: what the OpenAI API and vLLM allow
MESSAGE_LENGTH = 20_000  # far more than is kept: keys are taken out before the words are cut to what is

# Parameters that some endpoints refuse, under every name that they give them. Any other key of a body is
# looked for as it is.
ALIASES = {
    "response_format": r"response_?format|json_?schema|response_?schema|structured[_ ]outputs?|json[_ ]mode|guided_json"
    r"|grammar",
    "top_logprobs": r"top_?logprobs|max_logprobs|sample logprobs",
    "logprobs": r"(?:response_?)?log_?probs?|log[- ]probabilit(?:y|ies)",
    "seed": r"seed",
    "temperature": r"temperature",
    "max_tokens": r"max_?tokens|max_?output_?tokens",
}
STREAM = "stream"  # a key that some endpoints want
STREAMED = {STREAM: True, "stream_options": {"include_usage": True}}
SYSTEM_ROLE = "system role"  # no key of a body, but refused by templates like one
STEADS = {"max_tokens": "max_completion_tokens"}  # what is sent in the place of a refused one
# Without these there is no question, or no limit.
KEPT = frozenset({"model", "messages", "max_completion_tokens", "input", "state", "questions", STREAM})

STATUS_KINDS: dict[int, FailureClass] = {
    401: "auth",
    402: "billing",
    403: "auth",
    408: "timeout",
    409: "server",
    424: "server",
    501: "request",
    425: "server",
    429: "rate_limit",
    498: "rate_limit",
    499: "server",
}
SPENT = frozenset(
    {
        "insufficient_quota",
        "billing_not_active",
        "billing_hard_limit_reached",
        "insufficient_balance",
        "arrearage",
        "insufficient_credits",
        "insufficient_user_quota",
        "payment_required",
        "account_deactivated",
    }
)
THROTTLED = frozenset(
    {
        "throttlingexception",
        "toomanyrequestsexception",
        "rate_limit_exceeded",
        "rate_limit_error",
        "resource_exhausted",
        "too_many_requests",
        "ratelimitreached",
        "rate_limit_reached",
        "throttling",
        "throttling.ratequota",
    }
)
BROKEN_OFF = frozenset({"error", "network_error", "insufficient_system_resource"})  # how an answer ended that is none
UNREADABLE = frozenset({"json_validate_failed"})  # the model's answer did not follow the schema; the request is sound
_NAMED_KINDS: dict[str, FailureClass] = {
    "invalid_request_error": "request",
    "authentication_error": "auth",
    "permission_error": "auth",
    "invalid_api_key": "auth",
    "not_found_error": "request",
    "model_not_found": "request",
}

_SPENT = re.compile(
    r"credit balance is too low|(?:insufficient|not enough|requires more) (?:account )?(?:balance|credits?|funds)"
    r"|spending limit|account (?:is )?(?:not active|overdue|in arrears)",
    re.I,
)
_WRONG_KEY = re.compile(
    r"(?:incorrect|invalid|missing|expired)\W{1,3}api[ _-]?key|api[ _-]?key\b.{0,20}\b(?:incorrect|invalid|not valid"
    r"|missing|expired)|not authenticated|unauthori[sz]ed",
    re.I,
)
_NOWHERE = re.compile(r"unexpected endpoint|\bmodel\b.{0,120}\b(?:does not exist|not found)", re.I)
_THROTTLED = re.compile(r"rate[ _-]?limit|too many requests|\b[RT]PM\b", re.I)
_FILTERED = re.compile(
    r"content[_ ](?:management|filter|policy)|responsible_?ai|data_inspection|flagged|moderation|prohibited_content",
    re.I,
)
_LOADING = re.compile(r"\bloading\b|warming up|starting up", re.I)  # takes minutes, and is waited out like a limit
_NEVER_FITS = re.compile(r"request too large", re.I)  # for the limit of a minute: no waiting mends it
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|maximum context|too long|too many (?:input )?tokens|n_ctx"
    r"|reduce the length|(?:max_tokens|max_completion_tokens)\W.{0,20}(?:too large|at most|less than)",
    re.I,
)
_WINDOW = re.compile(
    r"(?:context[_ ](?:length|window|size)|n_ctx|max(?:imum)?[_ ](?:model[_ ])?(?:len|length|context|number of tokens)"
    r"|must be <=|tokens >)\D{0,40}?(\d[\d,.]{2,})",
    re.I,
)
_UNABLE = re.compile(
    r"unsupported|not (?:be )?(?:supported|allowed|permitted|available|enabled|valid|implemented)|does(?: not|n't) "
    r"|unavailable|no endpoints? found|not .{0,12}support"
    r"|un(?:known|expected|recogni[sz]ed)|invalid|cannot|extra|can't|reject",
    re.I,
)
_NO_SYSTEM = re.compile(
    r"system[ _-]?(?:role|message|prompt|instruction)|developer (?:instruction|message|role)|roles? must alternate"
    r"|(?:only|expected|allowed|supported)\b.{0,40}\broles?\b|\broles?\b.{0,60}(?:\bsystem\b|must be|not supported)"
    r"|(?:unexpected|invalid|unsupported|unknown)\W+(?:message )?role|\bsystem\b.{0,20} is not (?:one of|supported)",
    re.I | re.S,
)
_STREAMS_ONLY = re.compile(
    r"\bonly\b.{0,20}\b(?<!non.)stream|\bstream\w*\W+only\b|\bnon-?stream\w*\b.{0,20}\bnot\b.{0,12}support"
    r"|\bstream\W{1,3}must be (?:set to )?\W?true|\bstream\W{0,2}=\W{0,2}false",
    re.I,
)
_ANY_PARAMETER = re.compile(r"(?:requested|these|some|unsupported|following) param", re.I)
_AGAIN = re.compile(r"(?:retry|again|reset|wait)\D{0,24}?((?:\d+(?:\.\d+)?\s*[a-z]+\s*)+)", re.I)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.I | re.S)
_WRAPPERS = (
    "error", "errors", "detail", "details", "message", "metadata", "raw", "inner_error", "innererror", "base_resp",
)  # fmt: skip
_SENTENCES = ("message", "msg", "status_msg", "error", "detail", "title", "code")
# What the words of an error mean that has no code, as a status.
_MEANINGS = ((402, _SPENT), (429, _THROTTLED), (401, _WRONG_KEY), (404, _NOWHERE))


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error reply, understood.

    Attributes:
        kind: what to do about it.
        message: the endpoint's own words.
        wait: seconds after which it wants to be asked again, None when it does not say.
        parameter: the key of the body that it does not take, if it is that.
        most: the largest value of that key which it would take, if it says so.
    """

    kind: FailureClass
    message: str
    wait: float | None = None
    parameter: str | None = None
    most: int | None = None


@dataclass
class Dialect:
    """What an endpoint takes, as far as it is known: it is learnt from refusals.

    Attributes:
        without: keys of a body that it refuses, or that are not wanted.
        alternatives: log-probabilities of so many tokens it sends at most.
        streams: whether it answers by streams alone.
    """

    without: set[str] = field(default_factory=set)
    alternatives: int = MOST_ALTERNATIVES
    streams: bool = False

    @classmethod
    def of(cls, *, structured: bool = True, logprobs: bool = True) -> "Dialect":
        """The dialect to begin with: everything is sent but what is not wanted."""
        return cls({*(() if structured else ("response_format",)), *(() if logprobs else ("logprobs",))})

    def spoken(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A body as this endpoint takes it."""
        said = {**body, **STREAMED} if self.streams else dict(body)
        if SYSTEM_ROLE in self.without:
            said["messages"] = _folded(said["messages"])
        for name in self.without:
            value = said.pop(name, None)
            if value is not None and name in STEADS:
                said.setdefault(STEADS[name], value)
        if "logprobs" not in said:
            said.pop("top_logprobs", None)
        if "top_logprobs" in said:
            said["top_logprobs"] = min(said["top_logprobs"], self.alternatives)
        return said

    def learn(self, refusal: Refusal) -> str:
        """Take in a refused parameter; returns what changes, in words."""
        if refusal.most is not None:
            self.alternatives = min(self.alternatives, refusal.most)
            return f"takes no more than {refusal.most} {refusal.parameter}; going on with so many"
        if refusal.parameter == STREAM:
            self.streams = True
            return "answers by streams alone; going on with them"
        self.without.add(str(refusal.parameter))
        if refusal.parameter == SYSTEM_ROLE:
            return "takes no system message: from here on the instruction stands at the head of the user's"
        return f"refuses {refusal.parameter!r}; going on without it"


def _folded(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The chat without a system message: its text stands at the head of the first other one."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    first, *others = [dict(message) for message in messages if message["role"] != "system"]
    return [{**first, "content": "\n\n".join([*system, first["content"]])}, *others]


def read_refusal(
    status: int, headers: Mapping[str, str], data: object, body: Mapping[str, Any], now: datetime
) -> Refusal:
    """Understand an error.

    Args:
        status: of HTTP, or the code of an error inside a reply that claims success.
        headers: by lower-case name.
        data: the decoded reply, or its text where it is no JSON.
        body: what had been sent.
        now: with a zone; dates in headers are held against it.
    """
    if 300 <= status < 400:
        return Refusal(
            "request", f"it redirects to {headers.get('location', 'nowhere')!r}, and samples are not sent on"
        )
    errors = list(_errors(data))
    words, codes = error_message(data), _codes(errors)
    kind = _kind(status, codes, words)
    parameter = _refused(status, errors, words, body) if kind in {"request", "auth", "server"} else None
    most = _limit(words, body[parameter]) if parameter == "top_logprobs" else None
    return Refusal(kind, words, _wait(headers, errors, words, now), parameter, most)


def is_too_long(words: str) -> bool:
    """Whether an error says that a prompt, with its answer, is longer than the model's window."""
    return bool(_TOO_LONG.search(words) or _WINDOW.search(words))


def window_named(words: str) -> int | None:
    """Tokens of the window that such an error names; None where it names none."""
    found = [int(re.sub(r"\D", "", number)) for number in _WINDOW.findall(words)]
    return min((tokens for tokens in found if tokens), default=None)


def error_inside(data: object) -> object | None:
    """The error in a reply that claims success: of its first choice, or of the whole, under whatever name."""
    if not isinstance(data, Mapping):
        return None
    if data.get("error"):
        return data
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        answered = choices or data.get("answers")
        return data if not answered and any(map(_words, _errors(data))) else None
    if choice.get("error"):
        return {"error": choice["error"]}
    broken = str(choice.get("finish_reason") or "").lower() in BROKEN_OFF
    return {"error": {"message": "the provider broke the answer off", "code": 502}} if broken else None


def is_bare_error(data: object) -> bool:
    """Whether a reply is an error and nothing else, which nobody charges for."""
    return isinstance(data, Mapping) and error_inside(data) is not None and not data.get("choices")


def inner_status(data: object) -> int:
    """The status that an error inside a reply stands for; 500 where neither its code nor its words say one."""
    for error in _errors(data):
        for code in map(error.get, ("code", "status", "status_code")):
            if str(code).isdecimal() and 400 <= int(str(code)) <= 599:
                return int(str(code))
    named = [_NAMED_KINDS[code] for code in _codes(list(_errors(data))) if code in _NAMED_KINDS]
    if named:
        return {"auth": 401, "request": 400}[named[0]]
    words = error_message(data)
    return next((status for status, meaning in _MEANINGS if meaning.search(words)), 500)


def error_message(data: object) -> str:
    """The words of an error reply, whatever its shape, those of a wrapped error behind it."""
    if isinstance(data, str) and "<html" in data[:2000].lower():
        title = _TITLE.search(data[:20_000])
        return f"an HTML page: {' '.join(title[1].split()) if title else 'without a title'}"[:MESSAGE_LENGTH]
    said = dict.fromkeys(words for error in _errors(data) if (words := _words(error)))
    if not said and isinstance(data, dict | list):
        return "no message"
    return ("; ".join(said) or str(data).strip() or "no message")[:MESSAGE_LENGTH]


def _words(error: Mapping[str, Any]) -> str:
    """The sentence in one error object; JSON in it is looked into by `_errors`."""
    for name in _SENTENCES:
        value = error.get(name)
        if value and isinstance(value, str | int) and not str(value).lstrip().startswith(("{", "[")):
            return f"{value} ({error['loc'][-1]})" if name == "msg" and error.get("loc") else str(value)
    return ""


def _errors(data: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Every object in a reply that may say what is wrong, the outermost first; JSON within text is read."""
    if depth > 6:
        return
    if isinstance(data, str) and data.lstrip().startswith(("{", "[")):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            return
    if isinstance(data, list):
        for item in data[:8]:
            yield from _errors(item, depth + 1)
    elif isinstance(data, dict):
        yield data
        for name in _WRAPPERS:
            yield from _errors(data.get(name), depth + 1)


def _codes(errors: list[Mapping[str, Any]]) -> set[str]:
    """Everything in an error that is a name for machines."""
    values = [error.get(name) for error in errors for name in ("code", "type", "status", "reason", "__type")]
    return {value.rpartition("#")[2].lower() for value in values if isinstance(value, str)}


def _kind(status: int, codes: set[str], words: str) -> FailureClass:
    if status == 402 or codes & SPENT or (status < 500 and _SPENT.search(words)):
        return "billing"
    if status in {400, 403, 422} and _FILTERED.search(" ".join([words, *codes])):
        return "refused"
    if codes & UNREADABLE:
        return "malformed"
    if status == 400 and _WRONG_KEY.search(words):
        return "auth"
    if status == 413 or _NEVER_FITS.search(words):
        return "request"
    if (codes & THROTTLED and status != 401) or (status == 503 and _LOADING.search(words)):
        return "rate_limit"
    return STATUS_KINDS.get(status, "server" if status >= 500 else "request")


def _refused(status: int, errors: list[Mapping[str, Any]], words: str, body: Mapping[str, Any]) -> str | None:
    """The key of the body that an error is about: what it points at, else what it names first."""
    if status == 401 or _TOO_LONG.search(words):
        return None
    if STREAM not in body and _STREAMS_ONLY.search(words):
        return STREAM
    roles = [message["role"] for message in body.get("messages", ())]
    if "system" in roles[:1] and len(roles) > 1 and _NO_SYSTEM.search(words):
        return SYSTEM_ROLE
    if status not in {400, 422} and not _UNABLE.search(words):
        return None
    names = [name for name in (*ALIASES, *body) if name in body and name not in KEPT]
    for error in errors:
        place = error.get("loc")
        pointed = [error.get("param"), *(place if isinstance(place, list) else ())]
        for name in names:
            if any(str(value).partition(".")[0] == name for value in pointed):
                return name
    sent = " ".join(_spoken(message) for message in body.get("messages", ()))
    found = [(at, name) for name in names if (at := _place(name, words, sent)) is not None]
    if not found and _ANY_PARAMETER.search(words):
        return next(iter(names), None)
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _spoken(message: Mapping[str, Any]) -> str:
    return " ".join(str(message.get("content", "")).lower().split())


def _place(name: str, words: str, sent: str) -> int | None:
    """Where an error names a parameter; words that it quotes of what was sent name none ("pumpkin seed oil")."""
    for match in re.finditer(_named(name), words, re.I):
        before, after = words[: match.start()].split()[-1:], words[match.end() :].split()[:1]
        around = " ".join([*before, match[0], *after]).lower().strip("\"'`.,:;()[]{}")
        if len(around.split()) < 2 or around not in sent:
            return match.start()
    return None


def _named(name: str) -> str:
    quote = "[\"'`]" if len(name) < 3 else ""  # `n` is a parameter only in quotes
    return rf"(?<![a-z0-9_]){quote}(?:{ALIASES.get(name, re.escape(name))}){quote}(?![a-z0-9_])"


def _limit(words: str, sent: object) -> int | None:
    """The largest whole number below what was sent that a refusal names, if any."""
    named = [int(number) for number in re.findall(r"(?<![\w.])\d{1,3}(?![\w.]*\d)", words)]
    return max((number for number in named if isinstance(sent, int) and 0 < number < sent), default=None)


def _wait(headers: Mapping[str, str], errors: list[Mapping[str, Any]], words: str, now: datetime) -> float | None:
    """Seconds to wait: as a header says, else as a field of the error does, else as its words do."""
    found = retry_after(headers, now)
    if found is not None:
        return found
    for error in errors:
        for name, unit in (
            ("retryDelay", 1.0),
            ("retry_after", 1.0),
            ("retryAfter", 1.0),
            ("estimated_time", 1.0),
            ("retry_after_ms", 0.001),
        ):
            if (seconds := duration(str(error.get(name, "")))) is not None:
                return seconds * unit
    spoken = _AGAIN.search(words)
    return duration(spoken[1]) if spoken else None
