"""The chat-completions wire format, for HTTP and batch files alike: requests to bodies, replies to answers. Pure."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic_core import from_json

from piar.llm.base import FailureClass, Request, Usage
from piar.llm.cost import read_usage
from piar.llm.grade_probs import GradeProbs, Token, grade_probs
from piar.llm.openai.refusals import MESSAGE_LENGTH, MOST_ALTERNATIVES, error_inside, error_message
from piar.llm.openai.streams import is_stream, joined
from piar.llm.openai.transports import PATH

# Names that servers and providers use.
REASONING = ("reasoning_content", "reasoning")
TEXT_PARTS = ("text", "output_text")
CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens"})
WINDOW_FULL = frozenset({"model_length", "model_context_window_exceeded"})
# In how an answer ended, whatever stands around it: providers write `content_filter: PROHIBITED_CONTENT`.
FILTERED = re.compile(r"content[_-]filter|safety|recitation|prohibited|blocklist|spii|sensitive|guardrail|refusal")
RAISE_LIMIT = "raise max_tokens, or ask the model to reason less by `extra`"
LIMITS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum"})
ROUNDING = 0.02  # by which probabilities may exceed 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply says.

    Attributes:
        text: the answer; the reasoning, where the reply holds nothing else.
        finish: how it ended, such as `stop`; `length` where its own limit cut it off, `window` where the model's did.
        tokens: the tokens' alternatives, where they were sent.
        model: who says that it answered.
        probs: of every grade, where the endpoint gives them instead of tokens.
    """

    text: str
    finish: str
    usage: Usage
    tokens: tuple[Token, ...] = ()
    model: str = ""
    probs: dict[str, float] | None = None


class BadReply(Exception):
    """A reply with no answer in it; `kind` says what to do about it, `usage` what it cost all the same."""

    def __init__(self, kind: FailureClass, message: str, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.usage = usage or Usage()


class Wire(Protocol):
    """A wire format of an endpoint, for one request and its reply.

    Attributes:
        prefix: of the model's name in requests' keys and in verdicts.
        template: of the prompt that goes before a sample.
        path: where requests go, below the endpoint's address.
    """

    @property
    def prefix(self) -> str: ...

    @property
    def template(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def shaping(self) -> Mapping[str, Any]:
        """What of it shapes answers, for the model's name in requests' keys."""
        ...

    def most(self, usage: Usage) -> Usage:
        """What an attempt may use at most, of what a text of the request's length would."""
        ...

    def body(self, request: Request, model: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON body that asks. Raises `BadReply` for what cannot be asked."""
        ...

    def answer(self, request: Request, data: object) -> Answer:
        """The answer in a decoded reply. Raises `BadReply`."""
        ...


@dataclass(frozen=True, slots=True)
class ChatWire:
    """Chat completions."""

    prefix: str = "openai"
    template: str = "judge"
    path: str = PATH

    @property
    def shaping(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def most(self, usage: Usage) -> Usage:
        """As it is."""
        return usage

    def body(self, request: Request, model: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """See `chat_body`."""
        return chat_body(request, model, extra)

    def answer(self, request: Request, data: object) -> Answer:
        """See `answer_from`."""
        return answer_from(data)


def chat_body(request: Request, model: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON body that asks for one answer.

    Args:
        model: name by which the endpoint knows the model.
        extra: further keys, sent as they are.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed % 2**31,
    }
    if request.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": portable(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.grades:
        body |= {"logprobs": True, "top_logprobs": min(MOST_ALTERNATIVES, max(5, 2 * len(request.grades)))}
    return {**body, **(extra or {})}


def portable(schema: Any) -> Any:
    """A JSON schema without limits of length, number and size, which some providers refuse in a strict schema."""
    if isinstance(schema, Mapping):
        return {key: portable(value) for key, value in schema.items() if key not in LIMITS}
    return [portable(item) for item in schema] if isinstance(schema, list) else schema


def decoded(payload: bytes) -> object:
    """JSON, three times as fast where it holds no half surrogate pairs; the text itself where it is no JSON.

    A stream of events is the reply that it adds up to.
    """
    try:
        return from_json(payload)
    except ValueError:
        pass
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        reply = joined(payload) if is_stream(payload) else None
        return payload.decode(errors="replace") if reply is None else reply


def answer_from(data: object) -> Answer:
    """The answer in a decoded reply.

    Raises:
        BadReply: no JSON object, no choices, an error in a reply that claims success, or a refusal.
    """
    if not isinstance(data, dict):
        raise BadReply("malformed", f"the reply is not a JSON object: {error_message(data)}")
    usage = read_usage(data, Usage())[0]
    error = error_inside(data)
    if error is not None:
        raise BadReply("server", f"the endpoint answered with an error: {error_message(error)}", usage)
    choice = _first(data.get("choices"))
    if choice is None:
        raise BadReply("malformed", "the reply holds no choices", usage)
    finish = _ending(choice.get("finish_reason"))
    message = choice.get("message", {"content": choice.get("text")})
    if not isinstance(message, dict):
        raise BadReply("malformed", "the reply's choice holds no message", usage)
    refusal = message.get("refusal")
    if FILTERED.search(finish):
        raise BadReply("refused", f"the provider's content filter withheld the answer ({finish})", usage)
    if refusal:
        raise BadReply("refused", f"the model refused: {str(refusal)[:MESSAGE_LENGTH]}", usage)
    text = _said(message.get("content"))
    if not text.strip():
        text = _elsewhere(message)
        if finish == "length":
            what = "only reasoning and no answer" if text else "no answer"
            raise BadReply("truncated", f"{what} within {usage.completion:,} tokens: {RAISE_LIMIT}", usage)
    return Answer(text, finish, usage, _tokens(choice.get("logprobs")), str(data.get("model") or ""))


def _ending(reason: object) -> str:
    """How an answer ended, in small letters; all names for one that was cut off become one."""
    said = str(reason or "").lower()
    return "length" if said in CUT_OFF else "window" if said in WINDOW_FULL else said


def _first(items: object) -> Mapping[str, Any] | None:
    return items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else None


def _said(content: object) -> str:
    """The text of a message's content: as it is, or the text parts of a list; thinking is left out."""
    parts = content if isinstance(content, list) else [content]
    return "".join(map(_part, parts))


def _part(part: object) -> str:
    if isinstance(part, dict) and ("text" in part or "type" in part):
        part = part.get("text") if part.get("type", "text") in TEXT_PARTS else None
    return _as_text(part)


def _as_text(value: object) -> str:
    """A text; of an answer that came as an object or a number, the JSON that it would have been."""
    if isinstance(value, str):
        return value
    return (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict | int | float) and not isinstance(value, bool)
        else ""
    )


def _elsewhere(message: Mapping[str, Any]) -> str:
    """What a message without content says: in a tool call, or where the server puts reasoning; may be empty."""
    function = (_first(message.get("tool_calls")) or {}).get("function", message.get("function_call"))
    places = [function.get("arguments") if isinstance(function, dict) else None, *(message.get(n) for n in REASONING)]
    return next((text for place in places if (text := _as_text(place)).strip()), "")


def probabilities(request: Request, answer: Answer) -> GradeProbs:
    """What the tokens of an answer say about its grade, or why nothing is known."""
    if answer.probs is not None:
        return GradeProbs(answer.probs)
    if not request.grades or not answer.tokens:
        return GradeProbs(None)
    return grade_probs(answer.tokens, request.grades, answer.text, likeliest=not request.temperature)


def _tokens(logprobs: object) -> tuple[Token, ...]:
    """The tokens and their alternatives; none when something in them cannot be a log-probability."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return ()
    try:
        return tuple(map(_token, content))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()


def _token(item: Mapping[str, Any]) -> Token:
    """One token; it is among its own alternatives. Raises `ValueError` when they add up to more than 1."""
    top: dict[str, float] = {}
    for one in [*(item.get("top_logprobs") or ()), item]:
        logprob = one["logprob"]
        if logprob is None:
            continue
        if not float(logprob) <= ROUNDING:  # so that NaN is none, either
            raise ValueError("not a log-probability")
        top.setdefault(_token_text(one), min(0.0, float(logprob)))
    if sum(map(math.exp, top.values())) > 1 + ROUNDING:
        raise ValueError("more than all")
    return Token(_token_text(item), top)


def _token_text(item: Mapping[str, Any]) -> str:
    """A token's text; from its bytes where those are sent, since it may be a part of a character."""
    raw, text = item.get("bytes"), item["token"]
    if not isinstance(text, str):
        raise TypeError("a token is text")
    return text if text.isascii() or not raw else bytes(raw).decode(errors="surrogateescape")
