"""Strict rewards of a trace: named, pure functions of what was written, the row, and the rulebook.

Each answers 1.0, 0.0, or None where nothing can be checked (masked; weights renormalise). They read
text by the one grammar of `store.trace`, strictly. Which rewards a paper uses is not public for the
source of this method (arXiv 2602.10006: "strict rule-based rewards"); this set is ours.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from store.manifest import Manifest
from store.task import Task
from store.trace import parse_trace
from store.types import Rule, Trace


@dataclass(frozen=True)
class Case:
    """What a reward may look at."""

    text: str  # what was written, without the end of turn
    ended: bool  # within the limit
    trace: Trace | None  # `text` by the strict grammar
    row: Mapping[str, Any]  # the shard's: fields, grade, reference evidence, steps, rules (None where unknown)
    task: Task
    rules: Mapping[str, Rule]  # by id


Reward = Callable[[Case], float | None]


def case(text: str, ended: bool, row: Mapping[str, Any], task: Task, rules: Mapping[str, Rule]) -> Case:
    """Parse what was written."""
    return Case(text, ended, parse_trace(text, task, strict=True).trace, row, task, rules)


def rulebook(manifest: Manifest) -> dict[str, Rule]:
    """The rules of the instruction that the shards were made under."""
    return {r.id: Rule(r.id, r.text, r.grade) for r in manifest.rules}


def format_reward(case: Case) -> float:
    """1 when the answer follows the grammar to the letter and ends within the limit."""
    return float(case.ended and case.trace is not None)


def evidence_reward(case: Case) -> float:
    """1 when every span is a verbatim part of a field and one has two words, or the reference needs none."""
    if case.trace is None:
        return 0.0
    spans = [_normal(span) for span in case.trace.evidence]
    if not spans:
        reference = case.row.get("evidence")
        return float(reference is not None and not reference and bool(case.trace.rules))
    fields = [_normal(text) for text in case.row["fields"]]
    verbatim = all(span and any(f" {span} " in f" {text} " for text in fields) for span in spans)
    return float(verbatim and any(" " in span for span in spans))


def rule_reward(case: Case) -> float | None:
    """1 for the reference rule; where there is none, for exactly one existing rule that admits the grade.

    Whether the condition of such a rule holds nobody knows: conditions are English.
    """
    if case.trace is None:
        return 0.0
    reference = case.row.get("rules")
    if reference is not None:
        return float(list(case.trace.rules) == list(reference))
    if not case.rules:
        return None
    if len(case.trace.rules) != 1:
        return 0.0
    [cited] = case.trace.rules
    return float(cited in case.rules and case.rules[cited].admits(case.trace.grade))


def step_reward(name: str, position: int) -> Reward:
    """1 when a sub-judgement equals the reference; None where there is none."""

    def reward(case: Case) -> float | None:
        reference = case.row.get("steps")
        if reference is None or reference[position] is None:
            return None
        return float(case.trace is not None and case.trace.steps.get(name) == reference[position])

    return reward


def verdict_reward(case: Case) -> float:
    """1 when the trace closes with the grade that came first."""
    return float(case.trace is not None and case.trace.verdict == case.trace.grade)


def grade_rewards(gold: int, k: int, kind: Literal["exact", "ordinal"] = "exact") -> list[float]:
    """[K] reward of each grade: 1 or -1, or 1 - 2·|g - y| / (K - 1)."""
    if kind == "exact":
        return [1.0 if g == gold else -1.0 for g in range(k)]
    return [1.0 - 2.0 * abs(g - gold) / (k - 1) for g in range(k)]


def trace_rewards(task: Task) -> dict[str, Reward]:
    """Rewards of the segments after the grade, in the order of the lines; `format` is the last segment."""
    steps = {step.name: step_reward(step.name, i) for i, step in enumerate(task.steps)}
    last = {"rules": rule_reward, "verdict": verdict_reward, "format": format_reward}
    return {"evidence": evidence_reward, **steps, **last}


def judge(case: Case, task: Task) -> dict[str, float | None]:
    """All rewards of a trace."""
    return {name: reward(case) for name, reward in trace_rewards(task).items()}


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
