"""Scoring: the grade of every sample in one prefill, shared prefixes computed once, the trace on demand.

The distribution is over the grade symbols alone: K rows of the head are multiplied, at the last
prompt token. Left out: batching across processes (`piar score --pool` splits by file).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from store.calibration import Fit, fit
from store.decision_rule import DecisionRule
from store.errors import PiarError
from store.metrics import evaluate_arrays
from store.probability_scores import probability_scores
from store.task import Task, sample_text
from store.trace import Parsed, parse_trace
from trainers.checkpoint import MARKER, StudentCard, check, read_card
from trainers.data import Example, micro_batches
from trainers.layout import Item, Tokens
from trainers.loading import load_policy
from trainers.model import Policy, context, end_id, fitting_prompts, prompt_ids, symbol_ids
from trainers.precision import for_judging
from trainers.rollout import generate

BATCH_TOKENS = 8192
TRACE_TOKENS = 256
PROMPT_TOKENS = 8192
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scored:
    """A student's opinion of one sample, calibrated where its card has a calibration."""

    grade: str  # by the card's decision rule: the likeliest where it has none
    probs: tuple[float, ...]  # over the task's grades in ascending order of value; sums to 1
    expected: float  # value of the grade
    raw: tuple[float, ...] = ()  # as the network has it: what the store keeps
    text: str | None = None  # the whole answer, when a trace was asked for
    trace: Parsed | None = None  # the answer, parsed


class Student:
    """A trained student, ready to judge samples of its task."""

    end = False  # of a text that is cut its start stays

    def __init__(self, policy: Policy, tokenizer: Any, card: StudentCard) -> None:
        self.policy, self.tokenizer, self.card = policy.eval(), tokenizer, card
        self.grade_ids = symbol_ids(tokenizer, card.task.symbols)

    @property
    def task(self) -> Task:
        """What it judges."""
        return self.card.task

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None) -> "Student":
        """A student from a checkpoint folder.

        Args:
            device: None for a GPU where there is one.
            dtype: of the weights; None for what `precision.for_judging` says.

        Raises:
            PiarError: no student there, or a checkpoint that is not whole.
        """
        folder = Path(path)
        card = read_card(folder)
        if card.kind == "encoder":
            raise PiarError(
                f"{folder} holds an encoder, which is no language model.",
                "`piar score` and `piar serve` load it; from Python, `trainers.students.load_student` does.",
            )
        if (folder / MARKER).exists():
            check(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        policy, tokenizer = load_policy(str(folder), dtype=dtype or for_judging(), device=device)
        return cls(policy, tokenizer, card)

    @property
    def most(self) -> int:
        """Tokens of the longest prompt that it reads: room for the trace is kept, and memory grows with the square."""
        return self._reads - (self.trace_tokens if self.card.completion == "trace" else 0)

    @property
    def trace_tokens(self) -> int:
        """Tokens of the longest trace: of a short context half."""
        return min(TRACE_TOKENS, self._reads // 2)

    @property
    def _reads(self) -> int:
        return min((context(self.policy.lm) or PROMPT_TOKENS) - 1, PROMPT_TOKENS)

    def fitting(self, samples: Sequence[Mapping[str, str]]) -> list[list[int]]:
        """Tokens of the prompts, a sample's longest field cut where its prompt would be too long; says how many were.

        Raises:
            PiarError: a sample lacks a field, or the prompt is too long without any.
        """
        wanted = self.task.fields
        self._require(samples)

        def write(rows: Sequence[Sequence[str]]) -> list[list[int]]:
            return self.prompts([dict(zip(wanted, row, strict=True)) for row in rows])

        rows = [[fields[name] for name in wanted] for fields in samples]
        fix = "Use a student with a longer context, or a shorter rulebook."
        prompts, cut = fitting_prompts(rows, write, self.most, fix)
        if cut:
            log.warning("%d of %d samples were cut: this student reads %d tokens", cut, len(samples), self.most)
        return prompts

    def prompts(self, samples: Sequence[Mapping[str, str]]) -> list[list[int]]:
        """Tokens of the prompts that ask about samples.

        Raises:
            PiarError: a sample lacks one of the task's fields.
        """
        self._require(samples)
        wanted = self.task.fields
        return prompt_ids(self.tokenizer, [messages(self.card, {f: fields[f] for f in wanted}) for fields in samples])

    def _require(self, samples: Sequence[Mapping[str, str]]) -> None:
        wanted = self.task.fields
        missing = next((name for fields in samples for name in wanted if name not in fields), None)
        if missing:
            raise PiarError(
                f"A sample lacks the field {missing!r} that this student reads.",
                f"It was taught on: {', '.join(wanted)}.",
            )

    def score(
        self,
        samples: Sequence[Mapping[str, str]],
        *,
        trace: bool = False,
        on_progress: Callable[[int], None] = lambda n: None,
    ) -> list[Scored]:
        """Judge samples, in the order given.

        Args:
            samples: field -> text, each with all of the task's fields.
            trace: also write the answer that follows the grade (one decoding; the grade does not change).
            on_progress: called with the number of samples done since the last call.
        """
        prompts = self.fitting(samples)
        scored: list[Scored] = [Scored("", (), 0.0)] * len(prompts)
        for batch in batches(prompts, self.policy):
            chosen = [prompts[i] for i in batch]
            for i, one in zip(batch, self.scored(chosen), strict=True):
                scored[i] = one
            if trace:
                texts = self._texts(chosen, [self.task.index(scored[i].grade) for i in batch])
                for i, text in zip(batch, texts, strict=True):
                    scored[i] = replace(scored[i], text=text, trace=parse_trace(text, self.task))
            on_progress(len(batch))
        return scored

    def scored(self, prompts: Sequence[Tokens]) -> list[Scored]:
        """The grade of each prompt, all of them in one pass."""
        ids = torch.tensor(self.grade_ids, device=self.policy.device)
        return [self.opinion(row) for row in self.policy.grades(prompts, ids).tolist()]

    def opinion(self, probs: Sequence[float]) -> Scored:
        """The grade and the expected value of a distribution over the task's grades, once calibrated."""
        return opinion(self.card, probs)

    def _texts(self, prompts: Sequence[Tokens], grades: Sequence[int]) -> list[str]:
        end = end_id(self.tokenizer)
        starts = [self.grade_ids[g] for g in grades]
        found = generate(self.policy, prompts, end=end, limit=self.trace_tokens, starts=starts, temperature=0)
        return [self.tokenizer.decode([t for t in only if t != end]) for [only] in found]


def opinion(card: StudentCard, probs: Sequence[float]) -> Scored:
    """The grade and the expected value of a distribution over the task's grades, once calibrated."""
    values, raw = [g.value for g in card.task.grades], tuple(probs)
    if card.calibration is not None:
        [probs] = card.calibration.apply([raw]).tolist()
    [best] = (card.rule or DecisionRule()).apply([probs]).clip(0).tolist()
    expected = sum(v * p for v, p in zip(values, probs, strict=True))
    return Scored(card.task.symbols[best], tuple(probs), expected, raw)


def messages(card: StudentCard, fields: Mapping[str, str]) -> list[dict[str, str]]:
    """The chat that a student was taught to answer: the rubric, if it reads one, then the sample as JSON."""
    sample = {"role": "user", "content": sample_text(fields)}
    return [{"role": "system", "content": card.rubric}, sample] if card.prompt == "rulebook" else [sample]


def opinions(
    policy: Policy,
    examples: Sequence[Example],
    ids: Tensor,
    *,
    on_progress: Callable[[int, dict[str, float]], None] = lambda n, metrics: None,
) -> NDArray[np.float64]:
    """[rows, K] probabilities of the first token, over the grades alone.

    Args:
        ids: [K] tokens of the grades.
        on_progress: called with the number of examples done so far, see `trainers.logs.progress`.
    """
    probs, done = np.zeros((len(examples), len(ids))), 0
    for batch in batches([e.prompt for e in examples], policy):
        probs[batch] = policy.grades([examples[i].prompt for i in batch], ids).cpu().numpy()
        done += len(batch)
        on_progress(done, {})
    return probs


def calibration(examples: Sequence[Example], probs: NDArray[np.float64]) -> Fit | None:
    """Which correction of these probabilities helps, by group; None with fewer than two groups to tell.

    Args:
        examples: rows that no step has seen, with the probabilities of each.
    """
    groups = [e.group for e in examples]
    return fit(groups, [e.grade for e in examples], probs) if len(set(groups)) > 1 else None


def headline(
    groups: Sequence[str], gold: Sequence[int], probs: NDArray[np.float64], task: Task, *, prefix: str = ""
) -> dict[str, float]:
    """Accuracy, macro F1, pair accuracy, kappa, calibration error and loss (nats), each with its interval by group.

    Args:
        gold: [rows] positions in the task's order; probs: [rows, K].
    """
    scores = evaluate_arrays(groups, gold, probs.argmax(1), probs, task)
    found: dict[str, float] = {}
    named = {n: getattr(scores, n) for n in ("accuracy", "macro_f1", "pair_accuracy", "quadratic_kappa", "ece")}
    proper = probability_scores(groups, gold, probs, ordered=task.ordered)
    for name, interval in {**named, **({"nll": proper.nll} if proper else {})}.items():
        ends = {"": interval.value, "_low": interval.low, "_high": interval.high}
        found |= {f"{prefix}{name}{end}": value for end, value in ends.items() if value is not None}
    return found


def batches(prompts: Sequence[Tokens], policy: Policy) -> list[list[int]]:
    """Indices of prompts that are judged together: common prefixes side by side, and counted once."""
    return micro_batches([Item(prompt, []) for prompt in prompts], BATCH_TOKENS, policy.window)
