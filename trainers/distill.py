"""Distillation: a teacher's grade distribution and trace, token by token, into a small student.

The loop is `train`. Three terms, each over its own count: forward KL over the grades, the generalised JSD
over the trace's tokens, cross-entropy on the gold grade. The teacher runs once over the rows: its
grades and top-k tokens with a tail bucket are cached beside the run, chunk by chunk, and a second run
reads them. Without a teacher model, the grade distributions come from the shards and the trace term is
cross-entropy (SeqKD). Left out: teachers with another vocabulary, hidden-state matching.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from store.errors import PiarError, UsageError
from store.ids import short_hash
from trainers import losses
from trainers.budget import foresee
from trainers.checkpoint import writing
from trainers.config import DistillSettings, StudentSettings
from trainers.data import Example
from trainers.head import Head, log_probs, over_rows, read_labels
from trainers.layout import Labels, labels
from trainers.loading import load_policy, refuse_encoder
from trainers.logs import progress
from trainers.loop import Run, Trained
from trainers.model import EVERY, Policy, context, end_id
from trainers.rollout import generate
from trainers.sft import columns, totals_of

CHUNK = 256  # rows in one file of the cache


class Signal(NamedTuple):
    """What the teacher says of one completion of T tokens."""

    grades: Tensor  # [K] probabilities over the grades
    ids: Tensor  # [T, k] its likeliest tokens
    logp: Tensor  # [T, k + 1] their log-probabilities, and the tail's


Signals = Mapping[int, Signal]  # by `id` of the example


def train(
    shards: Path,
    out: Path,
    *,
    student: StudentSettings | None = None,
    settings: DistillSettings | None = None,
    resume: bool = False,
) -> Trained:
    """Distil a teacher into a student.

    Raises:
        PiarError: see `trainers.loop.Run`; a teacher with another vocabulary, or that reads less than the longest row.
        UsageError: on-policy steps without a teacher, or an encoder as one.
    """
    student, settings = student or StudentSettings(), settings or DistillSettings()
    if settings.on_policy and not settings.teacher:
        raise UsageError("on_policy needs a teacher that reads the student's traces.", "Set train.distill.teacher.")
    if settings.teacher:  # whose tokenizer a tiny student takes, before it is loaded
        refuse_encoder(settings.teacher)
    run = Run("distill", shards, out, student, settings, tokenizer_from=settings.teacher, resume=resume)
    teacher = _teacher(run, settings) if settings.teacher else None
    if teacher:
        run.forecast = foresee(run)  # with the teacher in memory
    tokens = _tokens(run, teacher) if teacher else 0
    cache = cached(run, teacher, settings, tokens) if teacher else {}
    if not settings.on_policy:
        teacher = None  # its answers are on disk, its weights are not needed while the student learns
    reverse = settings.model_copy(update={"beta": 1.0})
    for step in run.steps():
        batch = run.draw()
        if teacher and step >= run.total * (1 - settings.on_policy):
            batch = rewrite(run, batch, settings, context(teacher.lm))
            found = distill_step(run, batch, ask(run, teacher, batch, settings.top_k, tokens), reverse)
        else:
            found = distill_step(run, batch, cache, settings)
        run.update(int(found.pop("tokens")), **found)
    return run.finish()


def distill_step(run: Run, batch: Sequence[Example], signals: Signals, settings: DistillSettings) -> dict[str, float]:
    """Gradients of the three terms on a batch; each, their sum and the tokens, see `Run.learn`."""
    terms_of = partial(_terms, signals=signals, totals=totals_of(batch), run=run, settings=settings)
    [grade, gold, trace], tokens = run.learn(batch, terms_of, 3)
    return {"loss": grade + gold + trace, "grade_kd": grade, "grade_gold": gold, "trace_kd": trace, "tokens": tokens}


def _terms(
    hidden: Tensor,
    head: Head,
    *,
    part: Sequence[Example],
    rows: Labels,
    signals: Signals,
    totals: losses.Totals,
    run: Run,
    settings: DistillSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    k = len(run.grade_ids)
    gold, soft, weight = columns(part, k, run.device)
    first = rows.place == 0
    known = [signals[id(e)] for e in part if id(e) in signals]
    if len(known) == len(part):
        soft = torch.stack([s.grades for s in known]).to(hidden.device)
        ids = torch.cat([s.ids for s in known]).to(hidden.device)
        teacher = torch.cat([s.logp.float() for s in known]).to(hidden.device)  # autocast refuses to join float16
        out = log_probs(hidden, head, torch.cat([run.grade_ids.expand(len(ids), -1), ids.long()], 1))[0]
        grades, theirs = out[:, :k], losses.with_tail(out[:, k:])
        per_token = losses.generalised_jsd(theirs, teacher, settings.beta)
    else:
        plain = read_labels(hidden, head, rows.targets, run.grade_ids)
        grades, per_token = plain.grades, -plain.logp
    per_grade = grades[first]
    has = soft.isfinite().all(1)
    kd = losses.generalised_jsd(per_grade.log_softmax(-1), soft.nan_to_num(1.0).clamp(min=1e-9).log(), 0.0)
    grade = settings.grade_weight * (torch.where(has, kd, torch.zeros_like(kd)) * weight).sum()
    cross = settings.gold_weight * (-per_grade.gather(1, gold[:, None])[:, 0] * weight).sum()
    trace = (per_token * weight[rows.owner])[~first].sum()
    return grade / totals.grades, cross / totals.grades, trace / totals.tokens


def rewrite(run: Run, batch: Sequence[Example], settings: DistillSettings, reads: int | None = None) -> list[Example]:
    """The batch with traces that the student writes itself, after the gold grade, as far as a teacher `reads` them."""
    ids, end = run.grade_ids.tolist(), end_id(run.tokenizer)
    with run.policy.judging(), run.autocast():
        found = generate(
            run.policy,
            [e.prompt for e in batch],
            end=end,
            limit=settings.max_tokens,
            starts=[ids[e.grade] for e in batch],
            generator=run.generator,
        )
    most = reads or EVERY
    return [replace(e, completion=only[: most - len(e.prompt)]) for e, [only] in zip(batch, found, strict=True)]


@torch.no_grad()
def ask(run: Run, teacher: Policy, examples: Sequence[Example], k: int, tokens: int) -> Signals:
    """What the teacher says of each example's completion: its `k` likeliest of the first so many tokens."""
    found: dict[int, Signal] = {}
    read = partial(over_rows, partial(_likeliest, grade_ids=run.grade_ids, k=k, tokens=tokens))
    for part in run.cut(examples):
        packs = teacher.pack([e.item for e in part])
        rows = labels(packs, run.device)
        with run.autocast():
            grades, ids, logp = teacher(packs, read)
        for i, example in enumerate(part):
            mine = rows.owner == i
            found[id(example)] = Signal(grades[mine][0].cpu(), ids[mine].int().cpu(), logp[mine].half().cpu())
    return found


def _tokens(run: Run, teacher: Policy) -> int:
    """How many tokens teacher and student both have a row for: models of one family pad their tables to other sizes,
    and such rows stand for no token."""
    rows: list[int] = [one.lm.get_input_embeddings().weight.shape[0] for one in (teacher, run.policy)]
    last: int = max(run.tokenizer.get_vocab().values())
    return min(*rows, 1 + last)


def _likeliest(logits: Tensor, *, grade_ids: Tensor, k: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    logp = logits[:, :tokens].log_softmax(-1)
    likeliest, ids = logp.topk(min(k, logp.shape[-1]), sorted=False)
    return logp[:, grade_ids].softmax(-1), ids, losses.with_tail(likeliest)


def _teacher(run: Run, settings: DistillSettings) -> Policy:
    teacher, tokenizer = load_policy(settings.teacher, device=str(run.device))
    if tokenizer.get_vocab() != run.tokenizer.get_vocab():
        raise PiarError(
            "Teacher and student do not share a vocabulary, so their tokens cannot be compared.",
            "Use a student of the teacher's family, or --model tiny, which takes the teacher's.",
        )
    longest = max(len(e.prompt) + len(e.completion) for e in run.corpus.train)
    if longest > (most := context(teacher.lm) or longest):
        raise PiarError(
            f"The teacher reads {most:,} tokens; a row has {longest:,} of them.",
            f"Set train.distill.max_length={most} (longer rows are left out), or use another teacher.",
        )
    return teacher.eval().requires_grad_(False)


def cached(run: Run, teacher: Policy, settings: DistillSettings, tokens: int) -> Signals:
    """What the teacher says of all training rows, read from files of `CHUNK` rows that are made once.

    A file is there whole or not, so a killed run loses one. Another teacher (or one that was trained again at the same
    place), rows of other tokens (by another template or context too) or another `top_k` make another folder.
    """
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(Path(settings.teacher).glob("*model*"))]
    rows_hash = hashlib.sha256()
    for row in run.corpus.train:
        rows_hash.update(np.array([len(row.prompt), *row.prompt, *row.completion, -1]).tobytes())
    key = short_hash([settings.teacher, files, rows_hash.hexdigest(), settings.top_k, tokens])
    folder, train = run.out / f"teacher-cache-{key}", run.corpus.train
    folder.mkdir(exist_ok=True)
    chunks = [(folder / f"{n:06d}.pt", train[n * CHUNK :][:CHUNK]) for n in range(math.ceil(len(train) / CHUNK))]
    missing = [(path, rows) for path, rows in chunks[run.rank :: run.world] if not path.exists()]
    with progress("asking the teacher, chunk", 0, len(missing), quiet=run.rank > 0) as show:
        for number, (path, rows) in enumerate(missing, 1):
            said = ask(run, teacher, rows, settings.top_k, tokens)
            with writing(path) as aside:
                torch.save([tuple(said[id(row)]) for row in rows], aside)
            show(number, {})
    if run.world > 1:
        dist.barrier()
    kept = (zip(rows, torch.load(path, mmap=True, weights_only=True), strict=True) for path, rows in chunks)
    return {id(row): Signal(*said) for pairs in kept for row, said in pairs}
