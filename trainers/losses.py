"""Losses as pure functions of log-probabilities. Shapes: n labelled rows, m completions, K grades."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.head import Readout
from trainers.layout import Labels

EPSILON = 1e-4
TOKEN_SHARE = 0.05  # of the loss that one token after the grade can make up


class Totals(NamedTuple):
    """What each loss is divided by: counts over the whole batch, whatever it is cut into; above 0."""

    grades: float
    tokens: float


def sft_loss(
    out: Readout,
    rows: Labels,
    gold: Tensor,
    soft: Tensor,
    weight: Tensor,
    totals: Totals,
    *,
    grade_weight: float,
    soft_share: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy on the grade and on the rest, each its own mean, mixed by `grade_weight`; the sum is the loss.

    The rest's share is 1 - `grade_weight`, but at most `TOKEN_SHARE` for each token that it has a row: where a grade
    stands alone, the end of turn behind it would outweigh the grade, and a pretrained model that ends otherwise would
    spend its first steps on that (our choice).

    Args:
        out, rows: log-probabilities and labels of n rows.
        gold: [m] grade indices.
        soft: [m, K] teacher distributions, rows of NaN where there is none.
        weight: [m] of each completion.
        soft_share: share of the grade's target that the teacher's distribution makes up.
    """
    first = rows.place == 0
    who, per_grade = rows.owner[first], out.grades[first]
    grade = -per_grade.gather(1, gold[who][:, None])[:, 0]
    if soft_share > 0:
        known = soft[who].isfinite().all(1)
        softened = -(soft[who].nan_to_num() * per_grade).sum(1)
        grade = torch.where(known, (1 - soft_share) * grade + soft_share * softened, grade)
    grade_term = (grade * weight[who]).sum() / totals.grades
    rest = -out.logp * weight[rows.owner]
    rest_term = rest[~first].sum() / totals.tokens
    rest_share = min(1 - grade_weight, TOKEN_SHARE * totals.tokens / totals.grades)
    return grade_weight * grade_term, rest_share * rest_term


def advantages(rewards: Tensor, group: Tensor, *, credit: str) -> Tensor:
    """[m, S] how much better each segment did than its group, in its deviations: clamped to ±2, 0 where masked.

    `local` looks at the segment's own reward; `outcome` at the mean over all. A group whose rewards are equal, or that
    has one member, has no advantage.

    Args:
        rewards: [m, S], NaN where masked; group: [m], equal for rollouts that are compared.
    """
    known = rewards.isfinite()
    filled = rewards.nan_to_num()
    outcome = (filled.sum(1) / known.sum(1).clamp(min=1))[:, None].expand_as(rewards)
    centred, spread = _centre({"local": rewards, "outcome": outcome}[credit], group)
    scaled = (centred / (spread + EPSILON)).clamp(-2, 2)
    return torch.where(known & (spread > 0), scaled, torch.zeros_like(filled))


def _centre(value: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Value minus its group's mean, and the group's deviation, over the entries that are not NaN; [m, S] each."""
    same = (group[:, None] == group[None, :])[:, :, None]  # [m, m, 1]

    def total(of: Tensor) -> Tensor:  # over each one's group; autocast would round a matrix product
        return torch.where(same, of, torch.zeros_like(of)).sum(1)

    known = value.isfinite()
    count = total(known.to(value.dtype)).clamp(min=1)
    centred = torch.where(known, value - total(value.nan_to_num()) / count, torch.zeros_like(value))
    deviation = (total(centred.square()) / count).sqrt()
    return centred, torch.where(deviation > 1e-6, deviation, torch.zeros_like(deviation))


def segment_loss(
    logp: Tensor,
    old: Tensor,
    advantage: Tensor,
    weight: Tensor,
    owner: Tensor,
    segment: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, Tensor]:
    """[m] PPO's clipped objective, a mean over each segment's tokens, then the weighted sum of segments; share clipped.

    Args:
        logp, old: [n]; owner, segment: [n], the rollout and segment of each token.
        advantage, weight: [m, S]; a segment with weight 0 does not count.
    """
    m, s = advantage.shape
    a = advantage[owner, segment]
    ratio = (logp - old).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    per_token = -torch.minimum(ratio * a, clipped * a)
    place = owner * s + segment
    total = per_token.new_zeros(m * s).index_add(0, place, per_token)
    count = torch.bincount(place, minlength=m * s).clamp(min=1)
    share = ((ratio * a > clipped * a) & (a != 0)).float().mean() if len(logp) else logp.new_zeros(())
    return ((total / count).view(m, s) * weight).sum(1), share.detach()


def kl_estimate(logp: Tensor, reference: Tensor) -> Tensor:
    """[n] unbiased, never negative estimate of KL(policy ‖ reference) at sampled tokens (Schulman's k3)."""
    gap = reference - logp
    return gap.exp() - gap - 1


def generalised_jsd(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """[...] generalised Jensen–Shannon divergence of log-probabilities [..., V] (GKD, arXiv 2306.13649).

    The mixture is taken in probability space: M = β·T + (1 - β)·S; β·KL(T‖M) + (1 - β)·KL(S‖M). β = 0 is defined as
    KL(T‖S), β = 1 as KL(S‖T).
    """
    if beta == 0:
        return _kl(teacher, student)
    if beta == 1:
        return _kl(student, teacher)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    told = (p.exp() * (p - q)).nan_to_num(nan=math.nan, posinf=0.0)  # what is no number stays none, and is noticed
    return told.masked_fill(p == -math.inf, 0.0).sum(-1)


def with_tail(logp: Tensor) -> Tensor:
    """[n, k] log-probabilities of some tokens, and one bucket for all the rest: [n, k + 1]."""
    rest = (1 - logp.exp().sum(-1, keepdim=True)).clamp(min=1e-8)
    return torch.cat([logp, rest.log()], -1)
