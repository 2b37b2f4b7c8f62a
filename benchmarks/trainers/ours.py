"""What piar does in a timed step: shared-prefix rollouts, one tree, losses on labelled rows, clipping, AdamW."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.trainers.work import Work
from trainers import losses
from trainers.head import Head, log_probs, over_rows, read_grades, read_labels
from trainers.layout import Item, Pack, labels
from trainers.loading import wrap
from trainers.model import Policy
from trainers.rollout import generate

GRADES = (5, 6, 7, 8)
TOP = 32  # tokens kept of a teacher's distribution

Step = Callable[[], Any]


def sharing(lm: Any) -> Policy:
    """A policy that shares prefixes.

    Raises:
        RuntimeError: it cannot, here (the log says by how much it failed the parity check): nothing to be timed.
    """
    policy = wrap(lm)
    if not policy.shares:
        raise RuntimeError("this model shares no prefixes here")
    return policy


def learner(work: Work) -> tuple[Policy, Callable[[Iterable[Tensor]], None]]:
    """A policy, and what applies the losses of a step's parts to it."""
    policy = sharing(work.lm())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)

    def apply(parts: Iterable[Tensor]) -> None:
        for loss in parts:
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return policy, apply


def portions(count: int, parts: int) -> list[slice]:
    """`count` things in `parts` runs."""
    size = -(-count // parts)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def grpo(work: Work, case: str) -> Step:
    """Shared-prefix rollouts, one tree, segment loss."""
    policy, apply = learner(work)
    (asked, length), vocabulary, grades = work.rollouts(case), work.tokenizer(), _grades(work)
    every = work.prompts * work.group

    def step() -> None:
        found = generate(policy, asked, end=-1, limit=length, copies=work.group)
        texts = vocabulary.batch_decode([c for group in found for c in group])
        rewards = torch.tensor([float(len(text) % 7) for text in texts], device=work.device)[:, None]
        group = torch.arange(work.prompts, device=work.device).repeat_interleave(work.group)
        better = losses.advantages(rewards, group, credit="local")
        items = [Item(p, c) for p, c in zip(asked, found, strict=True)]

        def loss_of(some: slice) -> Tensor:
            packs, mine = policy.pack(items[some]), better[some.start * work.group : some.stop * work.group]
            rows = labels(packs, policy.device)

            def read(hidden: Tensor, head: Head) -> Tensor:
                out = read_labels(hidden, head, rows.targets, grades)
                old, zero = out.logp.detach(), torch.zeros_like(rows.owner)
                return losses.segment_loss(out.logp, old, mine, torch.ones_like(mine), rows.owner, zero,
                                           clip_low=0.2, clip_high=0.28)[0].sum() / every  # fmt: skip

            return policy(packs, read)

        apply(loss_of(some) for some in portions(work.prompts, work.parts))

    return step


def sft(work: Work, case: str) -> Step:
    """One tree, loss on completions; one update a batch."""
    (policy, apply), grades = learner(work), _grades(work)
    items = [Item(prompt, [completion]) for prompt, completion in work.pairs(case)]

    def loss_of(some: list[Item], tokens: int) -> Tensor:
        packs = policy.pack(some)
        rows = labels(packs, policy.device)
        return policy(packs, lambda h, w: -read_labels(h, w, rows.targets, grades).logp.sum() / tokens)

    def step() -> None:
        for start in range(0, len(items), work.batch):
            batch = items[start : start + work.batch]
            tokens = sum(len(item.completions[0]) for item in batch)
            apply(loss_of(batch[some], tokens) for some in portions(len(batch), work.parts))

    return step


def distill(work: Work, *, cached: bool) -> Step:
    """Generalised JSD with the teacher's likeliest tokens; the teacher is asked in every step, or once."""
    (policy, apply), teacher = learner(work), sharing(work.teacher().lm()).eval()
    pairs = work.pairs("sft")
    items = [Item(prompt, [completion]) for prompt, completion in pairs]
    tokens = sum(len(completion) for _, completion in pairs)
    parts = [policy.pack(items[some]) for some in portions(len(items), work.parts)]

    def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
        logp = logits.log_softmax(-1)
        most, ids = logp.topk(TOP)
        return ids, losses.with_tail(most)

    def against(hidden: Tensor, head: Head, ids: Tensor, said: Tensor) -> Tensor:
        return losses.generalised_jsd(losses.with_tail(log_probs(hidden, head, ids)[0]), said, 0.5)

    @torch.no_grad()
    def ask(packs: list[Pack]) -> tuple[Tensor, ...]:
        return teacher(packs, partial(over_rows, likeliest))

    kept = [ask(packs) for packs in parts] if cached else []

    def loss_of(number: int) -> Tensor:
        known = kept[number] if cached else ask(parts[number])
        return policy(parts[number], lambda h, w: against(h, w, *known).sum() / tokens)

    return lambda: apply(loss_of(number) for number in range(len(parts)))


def score(work: Work) -> Step:
    """First tokens; what the prompts share is computed once."""
    policy, asked, grades = sharing(work.lm()).eval(), work.asked(), _grades(work)

    @torch.no_grad()
    def step() -> None:
        policy(policy.pack([Item(p, [[0]]) for p in asked]), lambda h, w: read_grades(h, w, grades))

    return step


def _grades(work: Work) -> Tensor:
    return torch.tensor(GRADES, device=work.device)
