"""`POST /v1/decisions` and `GET /v1/models`, as the `openai` package's `client.decisions.create` speaks them.

Wire: openai 3.54, `types/decision.py` and `types/decision_create_params.py`. A student has one question, its grades: a
request is answered by one prefill, whatever it asks of it. Our choices: at most 64 questions; a choice is the grade of
`/score`, by the student's decision rule, `confidence` its probability, and of a score question the likeliest level's;
nothing is written, so no output token is counted.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from piar.serve.contracts import OpenAIError, Refused, documented, known_keys
from piar.serve.engine import Judged
from piar.serve.handlers import engine_of, offer_of
from piar.serve.offer import MOST_QUESTIONS, Offer
from trainers.scoring import Scored

_SEVERAL = "send one user message with one `input_json` part"
_KNOWN = frozenset({"prompt_cache_key", "prompt_cache_options", "safety_identifier"})  # legal, and without effect here


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Text(_Strict):
    """A piece of text."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = None


class Level(_Strict):
    """A level of a score question."""

    label: str
    description: str | None = None


class Choice(_Strict):
    """An option of a choice question."""

    value: str | bool
    description: str | None = None


class _Question(_Strict):
    instructions: str | list[Text]
    name: str | None = None

    @property
    def asks(self) -> str:
        """Its instructions as one text."""
        given = self.instructions
        return given if isinstance(given, str) else "\n".join(part.text for part in given)


class ScoreQuestion(_Question):
    """Where on the student's scale the sample is."""

    type: Literal["score"]
    levels: list[Level] = Field(min_length=2, max_length=255)


class ChoiceQuestion(_Question):
    """Which of the student's grades the sample has."""

    type: Literal["choice"]
    choices: list[Choice] = Field(min_length=2, max_length=255)


class PredicateQuestion(_Question):
    """Whether the sample has at least a grade: `grade>=K`."""

    type: Literal["predicate"]


Question = Annotated[ScoreQuestion | ChoiceQuestion | PredicateQuestion, Field(discriminator="type")]


class DecisionRequest(BaseModel):
    """A sample, and questions that the student was taught to answer."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    input: str | list[dict[str, Any]]
    questions: list[Question] = Field(min_length=1, max_length=MOST_QUESTIONS)


def add_decisions(app: FastAPI) -> None:
    """Add both routes to the application."""
    began = int(time.time())
    entry = {"object": "model", "created": began, "owned_by": "piar"}

    @app.get("/v1/models", summary="What requests may call this student")
    async def models(request: Request) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, **entry} for name in offer_of(request).names]}

    @app.get("/v1/models/{name:path}", summary="One of these names", responses=documented(OpenAIError, 404))
    async def model(name: str, request: Request) -> dict[str, Any]:
        offer_of(request).model(name)
        return {"id": name, **entry}

    @app.post(
        "/v1/decisions",
        summary="Answer the student's own question about one sample",
        responses=documented(OpenAIError),
    )
    async def decide(body: DecisionRequest, request: Request) -> dict[str, Any]:
        known_keys(body, _KNOWN)
        offer = offer_of(request)
        offer.model(body.model)
        answers = [_ANSWERS[q.type](offer, q, f"questions[{i}]") for i, q in enumerate(body.questions)]
        judged = await engine_of(request).score([_sample(body.input, offer)])
        [scored] = judged.scored
        return {
            "model": offer.names[0],
            "answers": [
                {"type": q.type, "name": q.name, **answer(scored)}
                for q, answer in zip(body.questions, answers, strict=True)
            ],
            "usage": usage(judged),
        }


def usage(judged: Judged) -> dict[str, Any]:
    """The tokens of a request, as OpenAI counts them."""
    return {
        "input_tokens": judged.tokens,
        "input_tokens_details": {"cached_tokens": judged.cached, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": judged.tokens,
    }


def _sample(given: str | Sequence[Mapping[str, Any]], offer: Offer) -> dict[str, str]:
    """The sample in an input: a text for the task's only field, or one user message with one text or JSON part."""
    if isinstance(given, str):
        return offer.only(given, "input", _SEVERAL)
    if len(given) != 1 or given[0].get("role") != "user" or given[0].get("type", "message") != "message":
        raise Refused(400, "this student reads one user message: no other roles, no tool calls", param="input")
    content, where = given[0].get("content"), "input[0].content"
    if isinstance(content, str):
        return offer.only(content, where, _SEVERAL)
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        raise Refused(400, "this student reads one part of a message: a text, or an object of JSON", param=where)
    part, where = content[0], f"{where}[0]"
    match part.get("type"):
        case "input_text" if isinstance(part.get("text"), str):
            return offer.only(part["text"], f"{where}.text", _SEVERAL)
        case "input_json" if isinstance(part.get("data"), dict):
            return offer.sample(part["data"], f"{where}.data")
    raise Refused(400, "this student reads text or one object of JSON: no images, no lists", param=where)


Answering = Callable[[Scored], dict[str, Any]]


def _score(offer: Offer, question: ScoreQuestion, where: str) -> Answering:
    labels = [level.label for level in question.levels]
    offer.question("score", labels, question.asks, where, "levels")
    return lambda scored: {
        "score": sum(i * p for i, p in enumerate(scored.probs)),
        "confidence": max(scored.probs),
        "probabilities": [
            {"label": label, "value": i, "probability": p}
            for i, (label, p) in enumerate(zip(labels, scored.probs, strict=True))
        ],
    }


def _choice(offer: Offer, question: ChoiceQuestion, where: str) -> Answering:
    values = [choice.value for choice in question.choices]
    offer.question("choice", values, question.asks, where, "choices")
    return lambda scored: {
        "choice": values[offer.task.index(scored.grade)],
        "confidence": scored.probs[offer.task.index(scored.grade)],
        "probabilities": [{"value": value, "probability": p} for value, p in zip(values, scored.probs, strict=True)],
    }


def _predicate(offer: Offer, question: PredicateQuestion, where: str) -> Answering:
    least = offer.at_least(question.name or "", question.asks, f"{where}.instructions")
    return lambda scored: {"probability": min(1.0, sum(scored.probs[least:]))}


_ANSWERS: dict[str, Callable[[Offer, Any, str], Answering]] = {
    "score": _score,
    "choice": _choice,
    "predicate": _predicate,
}
