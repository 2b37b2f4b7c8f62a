"""`POST /v1/systemone`: a state and a map of questions, as TypeSafe's clients, vLLM 0.32 and Ollama have it.

Wire: vLLM 0.32 `entrypoints/generate/structured_decisions`. A question's `criteria` are a map of options (`choice`), a
list of levels (`score`) or nothing (`noul`, which is true or not). Ours: `confidence` is the winner's probability, as
in `/v1/decisions`; servers of this contract differ there.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from piar.serve.contracts import OpenAIError, Refused, documented, known_keys
from piar.serve.handlers import engine_of, offer_of
from piar.serve.offer import MOST_QUESTIONS, Offer
from trainers.scoring import Scored

# Legal in one of the servers, and without effect here.
_KNOWN = frozenset({"chat_template_kwargs", "cache_salt", "priority", "request_id", "keep_alive"})


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid")

    instructions: str = ""


class Choice(_Question):
    """Which of the student's grades the state has."""

    type: Literal["choice"]
    criteria: dict[str, str | None] = Field(min_length=2, max_length=255)


class Score(_Question):
    """Where on the student's scale the state is."""

    type: Literal["score"]
    criteria: list[str] = Field(min_length=2, max_length=255)


class Noul(_Question):
    """Whether the state has at least a grade: `grade>=K`, as the question's id or its instructions."""

    type: Literal["noul"]
    criteria: dict[Literal["true", "false"], str | None] | None = None


class SystemOneRequest(BaseModel):
    """A sample, and questions that the student was taught to answer."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    state: str | dict[str, Any] | list[Any]
    instructions: str | None = None
    questions: dict[str, Annotated[Choice | Score | Noul, Field(discriminator="type")]] = Field(
        min_length=1, max_length=MOST_QUESTIONS
    )


def add_systemone(app: FastAPI) -> None:
    """Add the route to the application."""

    @app.post(
        "/v1/systemone",
        summary="Answer the student's own question about one state",
        responses=documented(OpenAIError),
    )
    async def decide(body: SystemOneRequest, request: Request) -> dict[str, Any]:
        known_keys(body, _KNOWN)
        offer = offer_of(request)
        offer.model(body.model)
        offer.instructions(body.instructions or "", "instructions")
        answers = {name: _ANSWERS[q.type](offer, q, name) for name, q in body.questions.items()}
        judged = await engine_of(request).score([_sample(body.state, offer)])
        [scored] = judged.scored
        return {
            "model": offer.names[0],
            "answers": {
                name: {"type": body.questions[name].type, **answer(scored)} for name, answer in answers.items()
            },
            "usage": {"input_tokens": judged.tokens, "output_tokens": 0},
        }


def _sample(state: str | dict[str, Any] | list[Any], offer: Offer) -> dict[str, str]:
    if isinstance(state, list):
        raise Refused(400, f"this student reads one sample, no list: {offer.told()}", param="state")
    if isinstance(state, dict):
        return offer.sample(state, "state")
    return offer.only(state, "state", "send an object as `state`")


Answering = Callable[[Scored], dict[str, Any]]


def _choice(offer: Offer, question: Choice, name: str) -> Answering:
    options = list(question.criteria)
    offer.question("choice", options, question.instructions, _where(name), "criteria")
    return lambda scored: {
        "choice": options[offer.task.index(scored.grade)],
        "probabilities": dict(zip(options, scored.probs, strict=True)),
        "confidence": scored.probs[offer.task.index(scored.grade)],
    }


def _score(offer: Offer, question: Score, name: str) -> Answering:
    offer.question("score", question.criteria, question.instructions, _where(name), "criteria")
    return lambda scored: {
        "score": sum(i * p for i, p in enumerate(scored.probs)),
        "legend": {str(i): level for i, level in enumerate(question.criteria)},
        "probabilities": {str(i): p for i, p in enumerate(scored.probs)},
        "confidence": max(scored.probs),
    }


def _noul(offer: Offer, question: Noul, name: str) -> Answering:
    least = offer.at_least(name, question.instructions, f"{_where(name)}.instructions")
    return lambda scored: {"noul": min(1.0, sum(scored.probs[least:]))}


_ANSWERS: dict[str, Callable[[Offer, Any, str], Answering]] = {"choice": _choice, "score": _score, "noul": _noul}


def _where(name: str) -> str:
    return f"questions.{name[:80]}"
