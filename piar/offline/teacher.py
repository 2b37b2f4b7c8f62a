"""The offline teacher: a literal-minded rule follower that needs no network and no model.

It reads a request's messages like any other client and has access to nothing else. In a judging prompt
it finds the rules it can follow (`piar.offline.rulebook_reader`), applies them in order to the sample, and answers in
the format asked for; where no rule fits it falls back to the overlap of words. In a reviser prompt it
induces rules from the evidence shown (`piar.offline.reviser`). It knows no language: it is the floor that a
language model has to beat.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from piar.llm.base import Completion, Failure, OnCompletion, Request, Usage
from piar.offline.grammar import sentence
from piar.offline.predicates import ALWAYS, All, Predicate, quotes
from piar.offline.rulebook_reader import Clause, Rulebook, read_rulebook
from piar.offline.words import overlap_grade, read_text, stems
from store.ids import SEPARATOR
from store.task import Grade, Step, Task
from store.trace import write_trace
from store.types import Trace

_SURE = (0.86, 0.90, 0.93, 0.95)  # probability of the grade by the number of conditions of the rule that decided
_DEFAULT = 0.6  # ... of a rule for everything else
_GUESS = 0.45  # ... of the overlap of words


@dataclass(frozen=True)
class _Rule:
    """A clause, ready to answer with."""

    condition: Predicate
    grade: str
    cites: tuple[str, ...]
    probs: Mapping[str, float]
    steps: Mapping[str, str]


class _Judge:
    """A rulebook, compiled."""

    def __init__(self, rulebook: Rulebook) -> None:
        self.rulebook = rulebook
        self.grades = rulebook.grades
        grades = tuple(Grade(symbol=symbol, value=float(i)) for i, symbol in enumerate(self.grades))
        # Only the answer's format is asked of this task: its grades and steps.
        self.task = Task(name="asked", group_by="sample", fields=("sample",), grades=grades, steps=rulebook.steps)
        self._rules = [_compiled(clause, rulebook) for clause in rulebook.clauses]
        self._guesses = {symbol: self._guess(symbol) for symbol in self.grades}

    def judge(self, fields: Mapping[str, str]) -> tuple[Trace, Mapping[str, float]]:
        """The answer for one sample, and its probabilities."""
        view = {name: read_text(value) for name, value in fields.items()}
        rule = next((rule for rule in self._rules if rule.condition.holds(view)), None)
        if rule is None:
            rule = self._guesses[self.grades[overlap_grade(list(view.values()), len(self.grades))]]
        return Trace(rule.grade, quotes(rule.condition, view), rule.steps, rule.cites, rule.grade), rule.probs

    def _guess(self, symbol: str) -> _Rule:
        steps = {step.name: _step(step, "", "No rule fits; judged by shared words.") for step in self.rulebook.steps}
        return _Rule(ALWAYS, symbol, (), _spread(self.grades, symbol, _GUESS), steps)


def _compiled(clause: Clause, rulebook: Rulebook) -> _Rule:
    condition = clause.condition
    conditions = len(condition.parts) if isinstance(condition, All) else 1
    sure = _SURE[min(conditions, len(_SURE)) - 1] if conditions else _DEFAULT
    said = sentence(condition)
    return _Rule(
        condition,
        clause.grade,
        (clause.policy.id,) if clause.policy.id else (),
        _spread(rulebook.grades, clause.grade, sure),
        {step.name: _step(step, clause.policy.text, said) for step in rulebook.steps},
    )


def _spread(grades: Sequence[str], chosen: str, sure: float) -> dict[str, float]:
    """`sure` for the chosen grade, and never less than for another; the rest halves with each grade of distance."""
    at, sure = grades.index(chosen), max(sure, 1 / len(grades) + 0.05) if len(grades) > 1 else 1.0
    weights = [0.0 if i == at else 0.5 ** abs(i - at) for i in range(len(grades))]
    total = sum(weights) or 1.0
    return {
        g: sure if i == at else (1 - sure) * w / total for i, (g, w) in enumerate(zip(grades, weights, strict=True))
    }


def _step(step: Step, policy: str, said: str) -> str:
    """A sub-judgement: the choice that the rule's own words name, else the last; or the rule in a plain sentence."""
    if not step.choices:
        return said
    words = set(stems(policy))
    named = [choice for choice in step.choices if set(stems(choice)) <= words]
    return max(named, key=len) if named else step.choices[-1]


@lru_cache(maxsize=512)
def _judge_for(prompt: str, grades: tuple[str, ...], fields: tuple[str, ...]) -> _Judge | None:
    rulebook = read_rulebook(prompt, grades, fields)
    return _Judge(rulebook) if len(rulebook.grades) > 1 else None


class RulebookClient:
    """The offline teacher as a `Client`.

    Args:
        noise: share of judgements that are flipped to a neighbouring grade, in [0, 1).
        seed: which ones; a request's answer depends on its content and this, never on its order.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        if not 0.0 <= noise < 1.0:
            raise ValueError(f"noise must lie in [0, 1), not {noise}")
        self.noise = noise
        self.seed = seed

    @property
    def model(self) -> str:
        """`rulebook`, with its noise when there is any: a noisy teacher is another teacher."""
        return f"rulebook:noise={self.noise:g},seed={self.seed}" if self.noise else "rulebook"

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """Answer every request, in the order asked."""
        completions = []
        for request in requests:
            completion = self._answer(request)
            if on_completion is not None:
                on_completion(completion)
            completions.append(completion)
        return completions

    def _answer(self, request: Request) -> Completion:
        prompt, data = _read_messages(request)
        if data is None:
            return self._failed(request, "The last message holds no JSON object to judge.")
        if data.get("task") == "revise" and isinstance(data.get("evidence"), list):
            from piar.offline.reviser import answer_revision

            return self._done(request, answer_revision(data))
        fields = {str(name): value if isinstance(value, str) else _plain(value) for name, value in data.items()}
        judge = _judge_for(prompt, request.grades, tuple(fields))
        if judge is None:
            return self._failed(request, "The request names no grades, and none can be read from the prompt.")
        trace, probs = judge.judge(fields)
        if self.noise:
            trace, probs = self._disturbed(request, judge.grades, trace, probs)
        text = write_trace(trace, judge.task) if request.schema is None else _as_json(trace)
        return self._done(request, text, probs)

    def _done(self, request: Request, text: str, probs: Mapping[str, float] | None = None) -> Completion:
        tokens = sum(len(message.content) for message in request.messages) // 4
        return Completion(request.key, self.model, text, probs, usage=Usage(tokens, 0, len(text) // 4))

    def _failed(self, request: Request, message: str) -> Completion:
        return Completion(request.key, self.model, failure=Failure("request", message))

    def _disturbed(
        self, request: Request, grades: tuple[str, ...], trace: Trace, probs: Mapping[str, float]
    ) -> tuple[Trace, Mapping[str, float]]:
        """A wrong answer for some requests, always the same ones."""
        content = SEPARATOR.join((str(self.seed), str(request.seed), *(m.content for m in request.messages)))
        digest = hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=9).digest()
        if int.from_bytes(digest[:8], "big") >= self.noise * 2**64:
            return trace, probs
        at = grades.index(trace.grade)
        near = [i for i in (at - 1, at + 1) if 0 <= i < len(grades)]
        wrong = grades[near[digest[8] % len(near)]]
        swapped = {**probs, wrong: probs[trace.grade], trace.grade: probs[wrong]}
        return replace(trace, grade=wrong, verdict=wrong, rules=()), swapped


def unfollowed(prompt: str, grades: Sequence[str], fields: Sequence[str]) -> list[str]:
    """The rules of a prompt that the offline teacher cannot follow, in their own words."""
    return [policy.text for policy in read_rulebook(prompt, tuple(grades), tuple(fields)).unfollowed]


def _read_messages(request: Request) -> tuple[str, dict[str, Any] | None]:
    """The text that samples share, and the JSON object to judge: the last message of the user's that holds one.

    After it there may be an answer that could not be read, and the words that ask for another.
    """
    for place, message in reversed(list(enumerate(request.messages))):
        if message.role != "user":
            continue
        shared = [earlier.content for earlier in request.messages[:place]]
        if (data := _json_object(message.content)) is not None:
            return "\n\n".join(shared), data
        at = message.content.rfind("\n{")
        if at >= 0 and (data := _json_object(message.content[at:])) is not None:
            return "\n\n".join([*shared, message.content[:at]]), data
    return "", None


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _plain(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _as_json(trace: Trace) -> str:
    """The trace as the JSON object of `store.trace.trace_schema`."""
    said = {"grade": trace.grade, "evidence": trace.evidence, **trace.steps}
    return json.dumps({**said, "rules": trace.rules, "verdict": trace.verdict}, ensure_ascii=False)
