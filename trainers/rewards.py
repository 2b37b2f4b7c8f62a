"""Rewards, named: of a trace, pure functions of what was written, the row and the rulebook; of a grade's distribution.

A trace's are strict. Each answers 1.0, 0.0, or None where nothing can be checked (masked; weights renormalise). They
read text by the one grammar of `store.trace`, strictly. Which rewards a paper uses is not public for the
source of this method (arXiv 2602.10006: "strict rule-based rewards"); this set is ours.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

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


def exact(probs: Tensor, gold: Tensor) -> Tensor:
    """Of a drawn grade 1 if it is gold and -1 if not: Σ_k p_k R_k = 2 p_y - 1."""
    return 2 * probs.gather(1, gold[:, None])[:, 0] - 1


def ordinal(probs: Tensor, gold: Tensor) -> Tensor:
    """Of a drawn grade g 1 - 2·|g - y| / (K - 1)."""
    k = probs.shape[1]
    distance = (torch.arange(k, device=gold.device) - gold[:, None]).abs()
    return 1 - 2 * (probs * distance).sum(1) / (k - 1)


def brier(probs: Tensor, gold: Tensor) -> Tensor:
    """1 - Σ_k (p_k - [k = y])², the quadratic score (Brier 1950)."""
    return 1 - (probs - one_hot(gold, probs.shape[1])).square().sum(1)


def rps(probs: Tensor, gold: Tensor) -> Tensor:
    """1 - 2 Σ_{j<K} (P_j - [j ≥ y])² / (K - 1) of cumulated P: the ranked probability score (Epstein 1969)."""
    k = probs.shape[1]
    gap = (probs - one_hot(gold, k)).cumsum(1)[:, :-1]
    return 1 - 2 * gap.square().sum(1) / (k - 1)


GRADE_REWARDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exact": exact,
    "ordinal": ordinal,
    "brier": brier,
    "rps": rps,
}
"""What a grade's distribution earns: [m, K] probabilities over the grades and [m] gold -> [m], from -1 to 1.

The first two are strict: the reward that a grade drawn from p is expected to earn. It is linear in p, so whatever the
student knows, all of p on one grade earns most, and confidence grows without end. `brier` and `rps` are strictly proper
scores of p itself (Gneiting & Raftery 2007): on average they earn most where p is how often each grade is true. With
all of p on one grade `brier` is `exact` and `rps` is `ordinal`, which is why they are scaled as they are (our choice).

All have an exact gradient, without a draw: ∂/∂p_k of `brier` is 2 ([k = y] - p_k), which is what a policy gradient has
that rewards grade k with 2 ([k = y] - p_k): being right is worth the less the surer the student is already. RLCR (arXiv
2507.16806) adds a Brier term of a confidence that the model writes to the reward of a drawn answer, and shows that
bounded proper scores keep both; here the distribution of the first token is the confidence. The logarithmic score is
proper and not bounded: it is what `piar train sft` learns by.
"""

PROPER = {"exact": "brier", "ordinal": "rps"}  # the proper score of each strict reward
RANKED = ("ordinal", "rps")  # they mean something only where grades have an order


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
