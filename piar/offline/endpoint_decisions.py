"""`/v1/decisions` and `/v1/systemone` of the simulated endpoint: the offline teacher as a decision model.

It answers the first question of a request, and the others alike where they ask for the same grades; a question is a
`score` or a `choice` whose instructions are a rulebook.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from piar.llm.base import Completion, Message, Request
from store.ids import short_hash


def read_decision(asked: Mapping[str, Any]) -> Request:
    """A decision request as ours.

    Raises:
        ValueError: it holds no question that the offline teacher answers.
    """
    questions = asked["questions"]
    first = next(iter(questions.values() if isinstance(questions, dict) else questions), None)
    if not isinstance(first, dict) or first.get("type") not in ("score", "choice"):
        raise ValueError("the offline teacher answers score and choice questions")
    grades = _labels(first)
    if any(_labels(one) != grades for one in _all(questions)):
        raise ValueError("the offline teacher answers questions about the same grades alone")
    given = asked["state"] if "state" in asked else asked["input"]
    sample = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    scale = "".join(f"- {grade} ({name})\n" for grade, name in zip(grades, _names(first), strict=True) if name)
    rules = f"{first.get('instructions') or ''}\n\n# Grades\n{scale}"
    messages = (Message("system", rules), Message("user", sample))
    return Request(short_hash([[m.role, m.content] for m in messages]), messages, grades)


def decision_reply(asked: Mapping[str, Any], request: Request, completion: Completion, text: str) -> dict[str, Any]:
    """The answer in the shape that was asked in; without probabilities where the answer is malformed."""
    probs = completion.probs if text == completion.text else None
    tokens = completion.usage.prompt
    if isinstance(asked["questions"], dict):
        answers: Any = {name: _mapped(one, request.grades, probs) for name, one in asked["questions"].items()}
        return {
            "model": asked.get("model", ""),
            "answers": answers,
            "usage": {"input_tokens": tokens, "output_tokens": 0},
        }
    answers = [_listed(one, request.grades, probs) for one in asked["questions"]]
    usage = {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }
    return {"model": asked.get("model", ""), "answers": answers, "usage": usage}


def _all(questions: Any) -> list[dict[str, Any]]:
    return list(questions.values() if isinstance(questions, dict) else questions)


def _labels(question: Mapping[str, Any]) -> tuple[str, ...]:
    """The grades that a question asks for; a level told as `2: good` is `2`."""
    criteria = question.get("criteria")
    if isinstance(criteria, dict):
        return tuple(criteria)
    if isinstance(criteria, list):
        return tuple(str(level).partition(":")[0] for level in criteria)
    return tuple(str(one.get("label", one.get("value"))) for one in question.get("levels") or question["choices"])


def _names(question: Mapping[str, Any]) -> list[str]:
    """What each grade is called: what its description says before a colon."""
    criteria = question.get("criteria")
    if isinstance(criteria, dict):
        told = [str(meaning or "") for meaning in criteria.values()]
    elif isinstance(criteria, list):
        told = [str(level).partition(": ")[2] for level in criteria]
    else:
        told = [str(one.get("description") or "") for one in question.get("levels") or question["choices"]]
    return [text.partition(":")[0].strip() for text in told]


def _listed(question: Mapping[str, Any], grades: Sequence[str], probs: Mapping[str, float] | None) -> dict[str, Any]:
    said: dict[str, Any] = {"type": question["type"], "name": question.get("name")}
    if probs is None:
        return said
    shares = [probs[grade] for grade in grades]
    said |= {"confidence": max(shares)}
    if question["type"] == "choice":
        rows = [{"value": grade, "probability": p} for grade, p in zip(grades, shares, strict=True)]
        return {**said, "choice": max(grades, key=lambda g: probs[g]), "probabilities": rows}
    rows = [{"label": g, "value": i, "probability": p} for i, (g, p) in enumerate(zip(grades, shares, strict=True))]
    return {**said, "score": sum(i * p for i, p in enumerate(shares)), "probabilities": rows}


def _mapped(question: Mapping[str, Any], grades: Sequence[str], probs: Mapping[str, float] | None) -> dict[str, Any]:
    if probs is None:
        return {"type": question["type"]}
    shares = [probs[grade] for grade in grades]
    said = {"type": question["type"], "confidence": max(shares)}
    if question["type"] == "choice":
        return {
            **said,
            "choice": max(grades, key=lambda g: probs[g]),
            "probabilities": dict(zip(grades, shares, strict=True)),
        }
    legend = {str(i): grade for i, grade in enumerate(grades)}
    told = {str(i): p for i, p in enumerate(shares)}
    return {**said, "score": sum(i * p for i, p in enumerate(shares)), "legend": legend, "probabilities": told}
