"""What piar does in a timed step: shared-prefix rollouts, one tree, losses on labelled rows, clipping, AdamW."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.trainers.work import Work
from trainers import losses
from trainers.head import over_rows, read_grades, read_labels
from trainers.layout import Item, labels
from trainers.model import Policy, wrap
from trainers.rollout import generate

GRADES = (5, 6, 7, 8)
TOP = 32  # tokens kept of a teacher's distribution

Step = Callable[[], Any]


def learner(work: Work) -> tuple[Policy, Callable[[Tensor], None]]:
    """A policy, and what applies a loss to it."""
    policy = wrap(work.lm())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)

    def apply(loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return policy, apply


def grpo(work: Work, case: str) -> Step:
    """Shared-prefix rollouts, one tree, segment loss."""
    policy, apply = learner(work)
    (asked, length), vocabulary, grades = work.rollouts(case), work.tokenizer(), _grades(work)

    def step() -> None:
        found = generate(policy, asked, end=-1, limit=length, copies=work.group)
        texts = vocabulary.batch_decode([c for group in found for c in group])
        rewards = torch.tensor([float(len(text) % 7) for text in texts], device=work.device)[:, None]
        group = torch.arange(work.prompts, device=work.device).repeat_interleave(work.group)
        better = losses.advantages(rewards, group, credit="local", scale="std")
        packs = policy.pack([Item(p, c) for p, c in zip(asked, found, strict=True)])
        rows = labels(packs, policy.device)

        def read(hidden: Tensor, head: Tensor) -> Tensor:
            out = read_labels(hidden, head, rows.targets, grades)
            old, zero = out.logp.detach(), torch.zeros_like(rows.owner)
            return losses.segment_loss(out.logp, old, better, torch.ones_like(better), rows.owner, zero,
                                       clip_low=0.2, clip_high=0.28)[0].mean()  # fmt: skip

        apply(policy(packs, read))

    return step


def sft(work: Work, case: str) -> Step:
    """One tree, loss on completions; one update a batch."""
    (policy, apply), grades = learner(work), _grades(work)
    items = [Item(prompt, [completion]) for prompt, completion in work.pairs(case)]

    def step() -> None:
        for start in range(0, len(items), work.batch):
            packs = policy.pack(items[start : start + work.batch])
            rows = labels(packs, policy.device)
            apply(policy(packs, lambda h, w, t=rows.targets: -read_labels(h, w, t, grades).logp.mean()))

    return step


def distill(work: Work, *, cached: bool) -> Step:
    """Generalised JSD with the teacher's likeliest tokens; the teacher is asked in every step, or once."""
    (policy, apply), teacher = learner(work), wrap(work.teacher().lm()).eval()
    packs = policy.pack([Item(prompt, [completion]) for prompt, completion in work.pairs("sft")])

    def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
        logp = logits.log_softmax(-1)
        ids = logp.topk(TOP).indices
        return ids, losses.with_tail(logp, ids)

    def against(logits: Tensor, ids: Tensor, said: Tensor) -> tuple[Tensor]:
        return (losses.generalised_jsd(losses.with_tail(logits.log_softmax(-1), ids), said, 0.5),)

    @torch.no_grad()
    def ask() -> tuple[Tensor, ...]:
        return teacher(packs, partial(over_rows, likeliest))

    kept = ask() if cached else ()

    def step() -> None:
        known = kept or ask()
        apply(policy(packs, lambda h, w: over_rows(against, h, w, *known)[0].mean()))

    return step


def score(work: Work) -> Step:
    """First tokens; what the prompts share is computed once."""
    policy, asked, grades = wrap(work.lm()).eval(), work.asked(), _grades(work)

    @torch.no_grad()
    def step() -> None:
        policy(policy.pack([Item(p, [[0]]) for p in asked]), lambda h, w: read_grades(h, w, grades))

    return step


def _grades(work: Work) -> Tensor:
    return torch.tensor(GRADES, device=work.device)
