"""Supervised fine-tuning on the shards: the grade first, then its trace.

The loop is `train`: a student from nothing first learns to see shared words, then the grade alone, then the trace too.
The loss is on completions only and is weighted by segment (`losses.sft_loss`).
Prompts of a batch share their prefixes in one tree. Left out: label smoothing, sequence-length
schedules, example-level curriculum losses (the sampler orders rows, the loss does not know).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from trainers.config import SftSettings, StudentSettings
from trainers.data import Example
from trainers.head import Head, read_labels
from trainers.layout import Labels
from trainers.loop import Run, Trained
from trainers.losses import Totals, sft_loss
from trainers.model import completion_ids
from trainers.tiny import lesson

WORDS, GRADES, TRACES = "shared words", "the grade alone", "grade and trace"


def train(
    shards: Path,
    out: Path,
    *,
    student: StudentSettings | None = None,
    settings: SftSettings | None = None,
    resume: bool = False,
) -> Trained:
    """Teach a student on a shard folder.

    Raises:
        PiarError: see `trainers.loop.Run`.
    """
    student, settings = student or StudentSettings(), settings or SftSettings()
    run = Run("sft", shards, out, student, settings, completion=settings.completion, resume=resume)
    for step in run.steps():
        stage, until = _stage(run, step, settings)
        run.forecast.begin(stage, until - step)
        batch = run.draw()
        if stage == WORDS:
            loss, tokens = words_step(run, batch)
            run.update(tokens, loss=loss, words_loss=loss)
            continue
        if stage == GRADES:
            batch = [replace(example, completion=example.completion[:1]) for example in batch]
        grade_loss, trace_loss, tokens = sft_step(run, batch, settings)
        run.update(tokens, loss=grade_loss + trace_loss, grade_loss=grade_loss, trace_loss=trace_loss)
    return run.finish()


def _stage(run: Run, step: int, settings: SftSettings) -> tuple[str, int]:
    """What a step teaches, and the step at which that ends."""
    words = settings.words_first if run.from_nothing and len(run.task.fields) > 1 else 0.0
    for stage, share in ((WORDS, words), (GRADES, words + settings.grade_first)):
        if step / run.total < share:
            return stage, min(run.total, math.ceil(share * run.total))
    return TRACES if settings.completion == "trace" else "the grade and its end", run.total


def words_step(run: Run, batch: Sequence[Example]) -> tuple[float, int]:
    """Gradients of the first lesson (`tiny.lesson`), which needs no label; its loss and the tokens, see `Run.learn`."""
    first = run.task.fields.index(run.task.asked)
    texts = completion_ids(run.tokenizer, [lesson(example.row["fields"], first) for example in batch])
    return text_step(run, [replace(example, completion=text) for example, text in zip(batch, texts, strict=True)])


def text_step(run: Run, batch: Sequence[Example], *, scale: float = 1.0) -> tuple[float, int]:
    """Gradients of plain cross-entropy, a mean over all completion tokens; the loss and the tokens, see `Run.learn`."""
    count = max(1, sum(len(e.completion) for e in batch))

    def terms_of(hidden: Tensor, head: Head, *, part: Sequence[Example], rows: Labels) -> tuple[Tensor]:
        live = torch.tensor([float(e.weight > 0) for e in part], device=run.device)[rows.owner]
        return (-(read_labels(hidden, head, rows.targets, run.grade_ids).logp * live).sum() / count,)

    [loss], tokens = run.learn(batch, terms_of, 1, scale=scale)
    return loss, tokens


def sft_step(
    run: Run, batch: Sequence[Example], settings: SftSettings, *, scale: float = 1.0
) -> tuple[float, float, int]:
    """Gradients of `losses.sft_loss` on a batch; its two terms and the tokens computed, see `Run.learn`.

    Args:
        scale: multiplies the loss (the anchor's weight in mode balance).
    """
    totals = totals_of(batch)

    def terms_of(hidden: Tensor, head: Head, *, part: Sequence[Example], rows: Labels) -> tuple[Tensor, Tensor]:
        out = read_labels(hidden, head, rows.targets, run.grade_ids)
        return sft_loss(
            out,
            rows,
            *columns(part, len(run.grade_ids), run.device),
            totals,
            grade_weight=settings.grade_weight,
            soft_share=settings.soft_grades,
        )

    [grade, trace], tokens = run.learn(batch, terms_of, 2, scale=scale)
    return grade, trace, tokens


def totals_of(batch: Sequence[Example]) -> Totals:
    """Weighted counts of grades and of the tokens after them."""
    grades, tokens = sum(e.weight for e in batch), sum(e.weight * (len(e.completion) - 1) for e in batch)
    return Totals(max(grades, 1e-9), max(tokens, 1e-9))


def columns(part: Sequence[Example], k: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Gold grades [m], teacher distributions [m, K] (NaN where there is none), weights [m]."""
    soft = [e.probs or (math.nan,) * k for e in part]
    gold = torch.tensor([e.grade for e in part], device=device)
    return gold, torch.tensor(soft, device=device), torch.tensor([e.weight for e in part], device=device)
