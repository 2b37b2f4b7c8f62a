"""Decision endpoints' wire formats: a typed question in, a probability for every grade out, and no text. Pure.

Three shapes go by two paths, and a server does not say which it speaks (`piar doctor --ask` finds out):

- `decisions`: `POST /decisions`, an `input` and a list of questions, as OpenAI (openai 3.54, `types/decision.py`), vLLM
  0.33 and SGLang have it;
- `systemone`: `POST /systemone`, a `state` and a map of questions, as TypeSafe, vLLM 0.32 and Ollama have it;
- `state`: the same body at `/decisions`, as Perplexity and some gateways have it.

The instruction is the question's own; the grades are its levels, or its options where they have no order.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piar.llm.base import Request
from piar.llm.cost import read_usage
from piar.llm.grade_probs import choose
from piar.llm.openai.chat import Answer, BadReply
from piar.llm.openai.refusals import error_inside, error_message
from store.types import Usage

NAME = "grade"  # of the question
MOST_LEVELS = 10  # of a score question; a scale of more grades is asked as a choice
ROUNDING = 0.02  # by which the probabilities may miss 1
PATHS = {"decisions": "/decisions", "systemone": "/systemone", "state": "/decisions"}  # by shape


@dataclass(frozen=True, slots=True)
class DecisionWire:
    """How one of the shapes asks, and reads its answers."""

    shape: str = "decisions"
    prefix: str = "decisions"
    template: str = "decide"

    @property
    def path(self) -> str:
        """Where its requests go, below the address."""
        return PATHS[self.shape]

    @property
    def shaping(self) -> Mapping[str, Any]:
        """Another shape asks in other words."""
        return {} if self.shape == "decisions" else {"shape": self.shape}

    def most(self, usage: Usage) -> Usage:
        """What an attempt may use at most: nothing is written."""
        return Usage(usage.prompt, 0, 0)

    def body(self, request: Request, model: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON body that asks for the grade of one sample.

        Raises:
            BadReply: the request wants a text.
        """
        if not request.grades:
            raise BadReply("request", "a decision model gives grades and writes no text: name another for this role")
        rules = "\n\n".join(m.content for m in request.messages if m.role != "user")
        sample = next(m.content for m in request.messages if m.role == "user")
        kind, told = self._kind(request), _meanings(request)
        if self.shape == "decisions":
            options = [{_KEYS[kind]: grade, **({"description": told[grade]} if told[grade] else {})} for grade in told]
            question = {"type": kind, "name": NAME, "instructions": rules, _LISTS[kind]: options}
            return {"model": model, "input": sample, "questions": [question], **extra}
        named: object = [f"{grade}: {meaning}" if meaning else grade for grade, meaning in told.items()]
        criteria = named if kind == "score" else {grade: meaning or None for grade, meaning in told.items()}
        asked = {"type": kind, "instructions": rules, "criteria": criteria}
        return {"model": model, "state": _state(sample), "questions": {NAME: asked}, **extra}

    def answer(self, request: Request, data: object) -> Answer:
        """The grade in a decoded reply, the likeliest or at a temperature above 0 a drawn one, with all probabilities.

        Raises:
            BadReply: no answer, a refusal, or what is no distribution over the grades.
        """
        if not isinstance(data, Mapping):
            raise BadReply("malformed", f"the reply is not a JSON object: {error_message(data)}")
        usage = read_usage(data, Usage())[0]
        error = error_inside(data)
        if error is not None:
            raise BadReply("server", f"the endpoint answered with an error: {error_message(error)}", usage)
        found = data.get("answers")
        one = found.get(NAME) if isinstance(found, Mapping) else found[0] if isinstance(found, list) and found else None
        if not isinstance(one, Mapping):
            raise BadReply("malformed", "the reply does not answer the question", usage)
        if one.get("type") == "refusal":
            raise BadReply("refused", "the model declined to answer the question", usage)
        probs = _distribution(one.get("probabilities"), request.grades)
        if probs is None:
            raise BadReply("malformed", "the answer holds no distribution over the grades", usage)
        return Answer(choose(probs, request), "stop", usage, model=str(data.get("model") or ""), probs=probs)

    def _kind(self, request: Request) -> str:
        """`score` for a scale; `choice` for grades without order, too many of them, or symbols that a server which
        numbers levels from 0 would show beside other numbers."""
        ordered = request.brief is None or request.brief.task.ordered
        counted = request.grades == tuple(map(str, range(len(request.grades))))
        fits = len(request.grades) <= MOST_LEVELS and (self.shape == "decisions" or counted)
        return "score" if ordered and fits else "choice"


_KEYS = {"score": "label", "choice": "value"}
_LISTS = {"score": "levels", "choice": "choices"}


def _meanings(request: Request) -> dict[str, str]:
    """Grade -> what it means: its name, and what the instruction or the task says of it."""
    if request.brief is None:
        return dict.fromkeys(request.grades, "")
    task, meanings = request.brief.task, request.brief.instruction.meanings
    told = {g.symbol: ": ".join(filter(None, (g.name, meanings.get(g.symbol, g.meaning)))) for g in task.grades}
    return {grade: told.get(grade, "") for grade in request.grades}


def _state(sample: str) -> object:
    try:
        data = json.loads(sample)
    except ValueError:
        return sample
    return data if isinstance(data, dict) else sample


def _distribution(told: object, grades: Sequence[str]) -> dict[str, float] | None:
    """The probabilities of an answer by grade, adding up to 1; None where they are no distribution over the grades.

    Args:
        told: a list in the order of the grades or with their labels, or a map by label or by index.
    """
    if isinstance(told, list):
        rows = [one for one in told if isinstance(one, Mapping)]
        labels = [one.get("label", one.get("value")) for one in rows]
        told = dict(zip(map(str, labels), [one.get("probability") for one in rows], strict=True))
    if not isinstance(told, Mapping) or len(told) != len(grades):
        return None
    keys = grades if set(told) == set(grades) else tuple(map(str, range(len(grades))))
    values = [told.get(key) for key in keys]
    if any(isinstance(v, bool) or not isinstance(v, int | float) or not 0 <= v <= 1 + ROUNDING for v in values):
        return None
    total = math.fsum(values)  # type: ignore[arg-type]
    if abs(total - 1) > ROUNDING:
        return None
    return {grade: v / total for grade, v in zip(grades, values, strict=True)}  # type: ignore[operator]
