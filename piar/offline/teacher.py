"""The offline teacher: a literal-minded rule follower that needs no network and no model.

It has access to nothing but the request. To judge, it takes the rules of the request's brief that it can follow
(`piar.offline.rule_reader`), applies them in order to the sample, and answers in the format asked for; where no rule
fits it falls back to the overlap of words. To revise, it induces rules from the evidence shown
(`piar.offline.reviser`). It knows no language: it is the floor that a language model has to beat.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from piar.llm.base import Brief, Completion, Failure, OnCompletion, Request, Usage
from piar.offline.grammar import sentence
from piar.offline.layouts import find_rules
from piar.offline.predicates import ALWAYS, All, Predicate, quotes
from piar.offline.prompt_reader import read_messages, understood
from piar.offline.reviser import answer_revision
from piar.offline.rule_reader import Clause, grade_names, read_rules
from piar.offline.words import overlap_grade, read_text, stems
from store.ids import SEPARATOR
from store.task import Step, Task
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
    """A brief, compiled for samples with these fields."""

    def __init__(self, brief: Brief, fields: tuple[str, ...]) -> None:
        self.task, grades = brief.task, brief.task.symbols
        # A sentence of the preamble may define words, or decide.
        rules = (*find_rules(brief.instruction.preamble, grades), *brief.instruction.rules)
        reading = read_rules(rules, grades, grade_names(self.task.grades), fields)
        self._rules = [_compiled(clause, self.task) for clause in reading.clauses]
        # A prompt may list the grades in another order; their values order them.
        self._scale = [grade.symbol for grade in sorted(self.task.grades, key=lambda grade: grade.value)]
        self._guesses = {symbol: self._guess(symbol) for symbol in grades}

    def judge(self, fields: Mapping[str, str]) -> tuple[Trace, Mapping[str, float]]:
        """The answer for one sample, and its probabilities."""
        view = {name: read_text(value) for name, value in fields.items()}
        rule = next((rule for rule in self._rules if rule.condition.holds(view)), None)
        if rule is None:
            rule = self._guesses[self._scale[overlap_grade(list(view.values()), len(self._scale))]]
        return Trace(rule.grade, quotes(rule.condition, view), rule.steps, rule.cites, rule.grade), rule.probs

    def _guess(self, symbol: str) -> _Rule:
        steps = {step.name: _step(step, "", "No rule fits; judged by shared words.") for step in self.task.steps}
        return _Rule(ALWAYS, symbol, (), _spread(self.task.symbols, symbol, _GUESS), steps)


def _compiled(clause: Clause, task: Task) -> _Rule:
    condition = clause.condition
    conditions = len(condition.parts) if isinstance(condition, All) else 1
    sure = _SURE[min(conditions, len(_SURE)) - 1] if conditions else _DEFAULT
    said = sentence(condition)
    return _Rule(
        condition,
        clause.grade,
        (clause.rule.id,) if clause.rule.id else (),
        _spread(task.symbols, clause.grade, sure),
        {step.name: _step(step, clause.rule.text, said) for step in task.steps},
    )


def _spread(grades: Sequence[str], chosen: str, sure: float) -> dict[str, float]:
    """`sure` for the chosen grade, and never less than for another; the rest halves with each grade of distance."""
    at, sure = grades.index(chosen), max(sure, 1 / len(grades) + 0.05) if len(grades) > 1 else 1.0
    weights = [0.0 if i == at else 0.5 ** abs(i - at) for i in range(len(grades))]
    total = sum(weights) or 1.0
    return {
        g: sure if i == at else (1 - sure) * w / total for i, (g, w) in enumerate(zip(grades, weights, strict=True))
    }


def _step(step: Step, rule: str, said: str) -> str:
    """A sub-judgement: the choice that the rule's own words name, else the last; or the rule in a plain sentence."""
    if not step.choices:
        return said
    words = set(stems(rule))
    named = [choice for choice in step.choices if set(stems(choice)) <= words]
    return max(named, key=len) if named else step.choices[-1]


@lru_cache(maxsize=512)
def _judge_for(brief: Brief, fields: tuple[str, ...]) -> _Judge:
    return _Judge(brief, fields)


class RulebookClient:
    """The offline teacher and reviser as a `Client`.

    Args:
        noise: share of judgements that are flipped to a neighbouring grade, in [0, 1).
        seed: which ones; a request's answer depends on its content and this, never on its order.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        if not 0.0 <= noise < 1.0:
            raise ValueError(f"noise must lie in [0, 1), not {noise}")
        self.simulated = True
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
        prompt, data = read_messages(request)
        if data is None:
            return self._failed(request, "The last message holds no JSON object to judge.")
        asked = understood(request, prompt, data)
        if asked.purpose == "revise":
            return self._done(request, answer_revision(data))
        if asked.purpose != "judge":
            return self._failed(request, f"The offline teacher judges and revises; it does not {asked.purpose}.")
        if asked.brief is None:
            return self._failed(request, "The request names no grades, and none can be read from the prompt.")
        return self._judged(asked, asked.brief, data)

    def _judged(self, request: Request, brief: Brief, data: Mapping[str, Any]) -> Completion:
        fields = {str(name): value if isinstance(value, str) else _plain(value) for name, value in data.items()}
        trace, probs = _judge_for(brief, tuple(fields)).judge(fields)
        if self.noise:
            trace, probs = self._disturbed(request, brief.task.symbols, trace, probs)
        text = write_trace(trace, brief.task) if request.schema is None else _as_json(trace)
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


def _plain(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _as_json(trace: Trace) -> str:
    """The trace as the JSON object of `store.trace.trace_schema`."""
    said = {"grade": trace.grade, "evidence": trace.evidence, **trace.steps}
    return json.dumps({**said, "rules": trace.rules, "verdict": trace.verdict}, ensure_ascii=False)
