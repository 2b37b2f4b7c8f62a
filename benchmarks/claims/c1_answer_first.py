"""Claim 1: answering first costs no quality, and the grade comes at once.

The paper states that the very first token is the grade and the reason follows. Hypothesis: from the same words-only
checkpoint, the same rows in the same order, steps, learning rate and weights of grade and reason, the student that
answers first is not worse than the one that reasons first by 3 points or more, and needs no token before the grade.

Arms: *answer first*, `piar train sft` as it is; *reason first*, the same completions turned round (evidence, steps,
rule, then the grade), read off after its own greedily written reason. Reason first teaches the reason from the first
step on, so it computes more tokens: the comparison favours it. Measure: the grade is true, on held-out queries.
Told beside it: tokens and milliseconds before the grade, one sample at a time.
Holds: the gain's interval lies above −3 points. Fails: it lies below. Seeds: those of the run, at least three.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.claims.harness import Claim
from benchmarks.claims.lab import Found, Lab
from benchmarks.claims.verdict import Contrast
from benchmarks.trainers.measure import by_field, milliseconds
from trainers.config import SftSettings
from trainers.data import Example
from trainers.layout import Tokens
from trainers.loop import Run, Trained
from trainers.model import end_id
from trainers.rollout import generate
from trainers.scoring import Student
from trainers.sft import sft_step, text_step

CLOSING = "\nverdict: "  # what a reason ends with; the space may belong to the grade's token
LIMIT = 128  # tokens of a reason
AT_ONCE = 64  # prompts decoded together
TIMED = 20


def answer_first(lab: Lab) -> Found:
    """The product's own order."""
    model = lab.base()
    found, student = lab.graded(model), Student.load(model.path)
    ms = float(np.median(milliseconds(student.scored, _prompts(lab, student)[:TIMED])))
    return replace(found, figures={**found.figures, "tokens before the grade": 0.0, "ms to the grade": ms})


def reason_first(lab: Lab) -> Found:
    """The grade after the reason."""
    model = lab.made("reason-first", lambda out: _train(lab, out))
    student = Student.load(model.path)
    prompts = _prompts(lab, student)
    said = [one for i in range(0, len(prompts), AT_ONCE) for one in _reasoned(student, prompts[i : i + AT_ONCE])]
    found = lab.judged(np.array([probs for probs, _, _ in said]), model)
    return replace(found, figures={
        **found.figures, "tokens before the grade": float(np.mean([n for _, n, _ in said])),
        "unfinished reasons": float(np.mean([not ended for _, _, ended in said])),
        "ms to the grade": float(np.median(milliseconds(lambda one: _reasoned(student, one), prompts[:TIMED]))),
    })  # fmt: skip


def _train(lab: Lab, out: Path) -> Trained:
    s, weight = lab.scale, SftSettings().grade_weight
    settings = SftSettings(seed=lab.seed, steps=s.sft, batch_size=s.batch, learning_rate=s.rate,
                           save_every=max(50, s.sft // 8))  # fmt: skip
    shards = lab.shards("taught", lab.taught)
    run = Run("sft", shards, out, lab.student(lab.words()), settings, resume=True)
    grade_alone = SftSettings(grade_weight=1.0)
    for _ in run.steps():
        batch = run.draw()
        _, tokens = text_step(run, [replace(e, completion=_reason(e)) for e in batch if _reason(e)], scale=1 - weight)
        loss, _, more = sft_step(run, [_after_reason(e) for e in batch], grade_alone, scale=weight)
        run.update(tokens + more, loss=loss)
    return run.finish()


def _reason(example: Example) -> Tokens:
    """The completion without the grade at its front and at its end; empty for a row without a reference reason."""
    return example.completion[1:-2]


def _after_reason(example: Example) -> Example:
    grade, end = example.completion[0], example.completion[-1]
    return replace(example, prompt=[*example.prompt, *_reason(example)], completion=[grade, end])


def _reasoned(student: Student, prompts: Sequence[Tokens]) -> list[tuple[list[float], int, bool]]:
    """Probabilities of the grades after the student's own reason, its tokens, and whether it came to an end.

    It writes on to its end of turn, two tokens more than are read where it closed its reason.
    """
    ends = end_id(student.tokenizer)
    said = [one for [one] in generate(student.policy, prompts, end=ends, limit=LIMIT, temperature=0)]
    closed = [closed_at(student.tokenizer, one) for one in said]
    reasons = [one[:stop] if stop else one for one, stop in zip(said, closed, strict=True)]
    ids = torch.tensor(student.grade_ids, device=student.policy.device)
    probs = student.policy.grades([[*p, *reason] for p, reason in zip(prompts, reasons, strict=True)], ids)
    return list(zip(probs.tolist(), map(len, reasons), map(bool, closed), strict=True))


def closed_at(tokenizer: Any, said: Tokens) -> int:
    """How many tokens a reason has with what closes it; 0 for one that did not close.

    Tokenizers cut the closing at different places, some in one token with what stands before it: text decides.
    """
    taught = tokenizer.decode(tokenizer(f"{CLOSING}0", add_special_tokens=False)["input_ids"][:-1])
    found = bisect_left(range(len(said) + 1), True, key=lambda n: taught in tokenizer.decode(said[:n]))
    return found if found <= len(said) else 0


def _prompts(lab: Lab, student: Student) -> list[list[int]]:
    return student.prompts(by_field(lab.world.task, lab.held))


CLAIM = Claim(
    1, "Answer first, reason later",
    "the grade at the first token is not worse by 3 points than the grade after a reason",
    "grade true on held-out queries",
    {"answer first": answer_first, "reason first": reason_first},
    (Contrast("answer first", "reason first", margin=0.03),),
    reasoned=("answer first", "reason first"),
)  # fmt: skip
