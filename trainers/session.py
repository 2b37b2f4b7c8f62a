"""A student kept warm for requests: what its prompts share is computed once, and an answer is written token by token.

The root (chat template and rubric) stays in memory as keys and values; a request pays for its own
tokens alone. Left out: continuous batching of answers and paged memory (a large model is served by
vLLM from the same checkpoint).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from store.errors import UsageError
from store.trace import Parsed, parse_trace
from trainers.data import common_prefix
from trainers.head import read_grades
from trainers.layout import Item, Tokens
from trainers.model import Policy, end_id
from trainers.rollout import KEEPS, Anew, Memory, Prefill, Root, Stock, hidden_rows, run
from trainers.scoring import Scored, Student
from trainers.students import AnyStudent, session_of


@dataclass(frozen=True, slots=True)
class TooLong:
    """A sample whose prompt does not fit the model."""

    tokens: int
    most: int
    reader: str = "this student"


class Session:
    """Answers requests with one student.

    Args:
        student: ready to judge; prompts longer than its model's window are computed whole, without the warm root.
    """

    def __init__(self, student: Student) -> None:
        self.student = student
        self._root = self._warm()

    @property
    def root(self) -> list[int]:
        """Tokens that all prompts begin with, which are warm."""
        return self._root.tokens

    @torch.inference_mode()
    def _warm(self) -> Root:
        fields, policy = self.student.task.fields, self.student.policy
        alike = self.student.prompts([dict.fromkeys(fields, "a"), dict.fromkeys(fields, "7 b")])
        root = alike[0][: common_prefix(*alike)]
        return Root(policy, root if len(root) < policy.written else ())

    def prompts(self, samples: Sequence[Mapping[str, str]]) -> list[list[int] | TooLong]:
        """Tokens of each prompt, or why there are none.

        Raises:
            UsageError: a sample lacks a field.
        """
        most = self.student.most
        return [p if len(p) <= most else TooLong(len(p), most) for p in self.student.prompts(samples)]

    @torch.inference_mode()
    def score(self, prompts: Sequence[Tokens]) -> list[Scored]:
        """The grade of each prompt, in one prefill."""
        if max(map(len, prompts)) > self.student.policy.written:
            return self.student.scored(prompts)
        return self._grades(self._below_root(prompts))

    @property
    def explains(self) -> bool:
        """Whether the student was taught traces."""
        return self.student.card.completion == "trace"

    @torch.inference_mode()
    def begin(self, sample: Mapping[str, str], grade: Scored | None = None) -> "Writing | TooLong":
        """The grade of one sample, and the answer that begins with it; or why there is none.

        Args:
            grade: another student's, with which the answer begins in place of this one's own.

        Raises:
            UsageError: this student was taught grades without traces, or the sample lacks a field.
        """
        if not self.explains:
            raise UsageError(
                "This student was taught grades alone: it has no trace to write.",
                "Train with train.sft.completion=trace.",
            )
        [prompt] = self.prompts([sample])
        if isinstance(prompt, TooLong):
            return prompt
        policy, more = self.student.policy, self.student.trace_tokens
        if len(prompt) + more > policy.written:
            scored = grade or self.student.scored([prompt])[0]
            return Writing(self.student, scored, KEEPS[policy.writes](policy), unread=prompt)
        prefill = self._below_root([prompt])
        [own] = self._grades(prefill)
        return Writing(self.student, grade or own, _Tree(policy, Memory(prefill, 1, more), len(prompt)))

    def _below_root(self, prompts: Sequence[Tokens]) -> Prefill:
        return self._root.below(self.student.policy, [Item(prompt, [[0]]) for prompt in prompts])

    def _grades(self, prefill: Prefill) -> list[Scored]:
        hidden = hidden_rows(self.student.policy, prefill)
        ids = torch.tensor(self.student.grade_ids, device=hidden.device)
        probs = read_grades(hidden, self.student.policy.head, ids)
        return [self.student.opinion(row) for row in probs.tolist()]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds on the clock, one sample at a time with the shared prompt warm: median and 99th percentile."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """The quantiles of some measurements."""
        p50, p99 = np.quantile(1000 * np.array(seconds), [0.5, 0.99])
        return cls(round(float(p50), 2), round(float(p99), 2))


def latencies(
    student: AnyStudent,
    samples: Sequence[Mapping[str, str]],
    traces: int = 10,
    *,
    on_progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Latency]:
    """How long one sample takes: `first_token` (the grade) and, of a student that writes it, the whole `trace`.

    Args:
        samples: at least one; the first is also used to warm up.
        traces: how many of them are written to the end.
        on_progress: called with the number of samples timed since the last call.
    """
    session = session_of(student)
    grades: list[float] = []
    whole: list[float] = []
    for i, sample in enumerate([samples[0], *samples]):
        began = time.perf_counter()
        [prompt] = session.prompts([sample])
        if isinstance(prompt, TooLong):
            continue
        session.score([prompt])
        if i == 0:
            continue
        grades.append(time.perf_counter() - began)
        if i <= traces and session.explains and not isinstance(writing := session.begin(sample), TooLong):
            while not writing.done:
                writing.step()
            whole.append(time.perf_counter() - began)
        on_progress(1)
    parts = {"first_token": grades, "trace": whole}
    return {name: Latency.of(seconds) for name, seconds in parts.items() if seconds}


class Writing:
    """One answer being written after its grade, the likeliest token each time.

    Attributes:
        scored: the grade and its probabilities, known before any step.
        text: the answer so far.
    """

    def __init__(self, student: Student, scored: Scored, model: "_Tree | Stock | Anew", unread: Tokens = ()) -> None:
        self._student, self._model, self.scored = student, model, scored
        self._end = end_id(student.tokenizer)
        self._tokens = [student.grade_ids[student.task.index(scored.grade)]]
        self._unread = [*unread, *self._tokens]
        self.text = scored.grade
        self.done = False

    @torch.inference_mode()
    def step(self) -> str:
        """Write one more token; returns the text that became whole with it, and sets `done` at the end."""
        token = int(self._model.read([self._unread])[0].argmax())
        self._unread = [token]
        self.done = token == self._end or len(self._tokens) + 1 >= self._student.trace_tokens
        if token != self._end:
            self._tokens.append(token)
        before, text = self.text, str(self._student.tokenizer.decode(self._tokens))
        if not self.done and text.endswith("\N{REPLACEMENT CHARACTER}"):  # half a character: wait for its other bytes
            return ""
        if not self.done and self.scored.grade.startswith(text):  # a grade of several tokens, known from its first
            return ""
        self.text = text
        return text[len(before) :]

    @property
    def parsed(self) -> Parsed:
        """The answer as a trace, or why it is none."""
        return parse_trace(self.text, self._student.task)

    @property
    def agrees(self) -> bool | None:
        """Whether the trace comes to the grade that it was begun with; None where it says no verdict to the letter. Its
        first line can be another grade: of `1` a writer may make `10`."""
        trace = parse_trace(self.text.strip(), self._student.task, strict=True).trace
        return None if trace is None else trace.verdict == self.scored.grade


class _Tree:
    """The layers' own memory of one prompt, at position `depth`."""

    def __init__(self, policy: Policy, memory: Memory, depth: int) -> None:
        self._policy, self._memory, self._depth = policy, memory, depth

    def read(self, rows: Sequence[Tokens]) -> Tensor:
        """[1, V] logits after one more token of the only row."""
        device = self._policy.device
        here = torch.tensor([self._depth + self._memory.step], device=device)
        logits = run(self._policy, torch.tensor(rows[0], device=device), here, self._memory, slice(None))
        self._memory.step += 1
        return logits
