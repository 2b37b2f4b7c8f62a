"""The chat-completions wire format, for HTTP and batch files alike: requests to bodies, replies to answers. Pure."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from piar.llm.base import FailureClass, Request, Usage
from piar.llm.grade_probs import Token

# Parameters that some endpoints refuse, and what is sent in their stead. None: leave it out.
FALLBACKS: dict[str, str | None] = {
    "response_format": None,
    "top_logprobs": None,
    "logprobs": None,
    "seed": None,
    "temperature": None,
    "max_tokens": "max_completion_tokens",
}
MOST_ALTERNATIVES = 20  # what the OpenAI API and vLLM allow

_SECRET = re.compile(r"(?i)\b(sk-|key-|bearer\s+)[\w*.\-]{4,}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply says: the text, how it ended, what it used, and the tokens' alternatives where they were sent."""

    text: str
    finish: str
    usage: Usage
    tokens: tuple[Token, ...] = ()
    model: str = ""


class BadReply(Exception):
    """A reply with no answer in it; `kind` says what to do about it, `usage` what it cost all the same."""

    def __init__(self, kind: FailureClass, message: str, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.usage = usage or Usage()


def chat_body(
    request: Request, model: str, *, without: Collection[str] = (), extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON body that asks for one answer.

    Args:
        model: name by which the endpoint knows the model.
        without: names of `FALLBACKS` that the endpoint refuses.
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
        schema = {"name": "answer", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.grades:
        body |= {"logprobs": True, "top_logprobs": min(MOST_ALTERNATIVES, max(5, 2 * len(request.grades)))}
    for name in without:
        value = body.pop(name, None)
        stead = FALLBACKS[name]
        if value is not None and stead is not None:
            body[stead] = value
    return {**body, **(extra or {})}


def refused_parameter(message: str, body: Mapping[str, Any]) -> str | None:
    """Which of `FALLBACKS` an endpoint's complaint is about; the more telling names first."""
    return next((name for name in FALLBACKS if name in body and re.search(rf"\b{name}\b", message)), None)


def read_answer(payload: bytes) -> Answer:
    """The answer in a reply's body.

    Raises:
        BadReply: not JSON, no choices, an error in a reply that claims success, or a refusal.
    """
    try:
        data = decode(payload)
    except (ValueError, RecursionError):
        raise BadReply("malformed", f"the reply is not whole JSON ({len(payload)} bytes)") from None
    if not isinstance(data, dict):
        raise BadReply("malformed", "the reply is not a JSON object")
    return answer_from(data)


def decode(payload: bytes) -> Any:
    """JSON, three times as fast where it holds no half surrogate pairs; raises `ValueError` or `RecursionError`."""
    try:
        return from_json(payload)
    except ValueError:
        return json.loads(payload)


def answer_from(data: Mapping[str, Any]) -> Answer:
    """The answer in a decoded reply; raises `BadReply` as `read_answer` does."""
    usage = _usage(data.get("usage"))
    if data.get("error"):
        raise BadReply("server", f"the endpoint answered with an error: {error_message(data)}", usage)
    try:
        choice = data["choices"][0]
        message = choice["message"]
        text, finish = message.get("content"), str(choice.get("finish_reason") or "")
        refusal = message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise BadReply("malformed", "the reply holds no choices", usage) from None
    if refusal or finish == "content_filter":
        raise BadReply("refused", f"the model refused: {str(refusal or 'content filter')[:200]}", usage)
    if not isinstance(text, str):
        raise BadReply("malformed", "the reply's message holds no text", usage)
    return Answer(text, finish, usage, _tokens(choice.get("logprobs")), str(data.get("model") or ""))


def error_message(data: object) -> str:
    """The words of an error reply, whatever its shape, at most 300 characters."""
    inner = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(inner, dict):
        inner = inner.get("message") or inner.get("detail") or inner.get("code") or "no message"
    return str(inner)[:300]


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """The text without the given secrets and without anything shaped like a key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _SECRET.sub(r"\1***", text)


def _usage(data: object) -> Usage:
    if not isinstance(data, dict):
        return Usage()
    details = data.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else data.get("prompt_cache_hit_tokens")
    prompt = _count(data.get("prompt_tokens"))
    return Usage(prompt, min(prompt, _count(cached)), _count(data.get("completion_tokens")))


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _tokens(logprobs: object) -> tuple[Token, ...]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return ()
    try:
        return tuple(
            Token(item["token"], {top["token"]: float(top["logprob"]) for top in item.get("top_logprobs") or [item]})
            for item in content
        )
    except (KeyError, TypeError, ValueError):
        return ()
