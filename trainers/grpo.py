"""Stepwise-GRPO with mode balance: rewards by segment for traces, an exact gradient for the grade, SFT as anchor.

The loop is `train`. A step: draw prompts, write traces (after the gold grade, since the grade's
gradient needs no samples), reward each segment strictly, compare within the group, and add the loss on
rule-stratified anchor rows, which is `[train.sft]`'s. Old log-probabilities are the detached ones: rollouts come
from the policy that learns. What was measured of it: docs/experiments/claims.md.
Left out: a value network, asynchronous rollouts, sharded weights (a small student fits on every device).
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from store.calibration import CARD
from store.errors import UsageError
from store.ids import seed_of
from store.manifest import read_manifest
from trainers import losses
from trainers.budget import foresee
from trainers.checkpoint import read_card
from trainers.config import GrpoSettings, SftSettings, StudentSettings
from trainers.data import Example, micro_batches
from trainers.head import Head, read_labels
from trainers.layout import Item, Labels, labels
from trainers.loop import Run, Trained
from trainers.model import Policy, end_id
from trainers.rewards import GRADE_REWARDS, PROPER, RANKED, Case, case, judge, rulebook, trace_rewards
from trainers.rollout import generate
from trainers.sft import sft_step
from trainers.watch import Watch, long_tail
from trainers.weights import make_policy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """A prompt, its R rollouts and what they earned."""

    example: Example
    completions: list[list[int]]
    cases: list[Case]  # what was written
    rewards: Tensor  # [R, S], NaN where masked


def train(
    shards: Path,
    out: Path,
    *,
    student: StudentSettings | None = None,
    settings: GrpoSettings | None = None,
    anchor: SftSettings | None = None,
    resume: bool = False,
) -> Trained:
    """Improve a student that SFT has taught, by strict rewards.

    Args:
        anchor: of the loss on anchor rows, its `grade_weight` and `soft_grades` count.

    Raises:
        PiarError: see `trainers.loop.Run`.
        UsageError: a student from nothing, an encoder, sharded weights, or a reward by distance of grades without one.
    """
    student, settings = student or StudentSettings(), settings or GrpoSettings()
    anchor, mu = anchor or SftSettings(), settings.mu if settings.balance == "constant" else 0.0
    _require(shards, student, settings)
    run = Run("grpo", shards, out, student, settings, resume=resume)
    reference = _reference(run, shards, settings) if settings.kl else None
    watch = Watch(long_tail(next((e for e in run.corpus.evaluation.values() if e), run.corpus.train)), run.task)
    vars(watch).update(run.extra)
    for step in run.steps():
        with run.unmade():  # most of a step's time
            groups = roll(run, run.draw()[run.rank :: run.world], settings)
        if run.stopped:
            break
        metrics = group_metrics(groups, run) | {"mu": mu}
        old: dict[int, Tensor] = {}
        for turn in range(settings.passes):
            metrics |= reward_step(run, groups, settings, old, reference)
            metrics["loss_anchor"], more = anchor_step(run, anchors(run, settings, step) if mu else [], anchor, mu)
            if turn + 1 < settings.passes:
                run.apply()
        if run.shows and run.writes:
            run.writes.completions(step + 1, written(groups, run))
        if step % settings.watch_every == 0:
            metrics |= look(run, watch, groups, metrics["reward"], settings)
            run.extra = watch.state_dict()
        run.update(int(metrics.pop("tokens")) + more, **metrics)
    return run.finish()


def _require(shards: Path, student: StudentSettings, settings: GrpoSettings) -> None:
    """Refuse what rewards cannot improve."""
    if student.model == "tiny":
        raise UsageError(
            "GRPO improves a student that SFT has taught; one from nothing earns no reward.",
            "Pass --model with its checkpoint, e.g. students/sft/final.",
        )
    if (Path(student.model) / CARD).is_file() and read_card(Path(student.model)).kind == "encoder":
        raise UsageError(
            f"{student.model} is an encoder, which writes no trace that GRPO could reward.",
            "Pass --model with a checkpoint of `piar train sft`, e.g. students/sft/final.",
        )
    if student.shard:
        raise UsageError("GRPO needs whole weights in each process.", "Set student.shard = false.")
    if settings.grade_reward in RANKED and not read_manifest(shards, verify=False).task.ordered:
        raise UsageError(
            f"The reward {settings.grade_reward!r} counts how far a grade is from gold; this task's have no order.",
            "Set train.grpo.grade_reward to exact or brier.",
        )


def grade_probs(run: Run, examples: Sequence[Example]) -> Tensor:
    """[m, K] probabilities of the grades."""
    return run.policy.grades([e.prompt for e in examples], run.grade_ids).cpu()


def roll(run: Run, batch: Sequence[Example], settings: GrpoSettings) -> list[Group]:
    """Write and reward the rollouts of each prompt."""
    if not batch:
        return []
    end, ids, rules = end_id(run.tokenizer), run.grade_ids.tolist(), rulebook(run.corpus.manifest)
    with run.policy.judging(), run.autocast():
        found = generate(
            run.policy,
            [e.prompt for e in batch],
            end=end,
            limit=settings.max_tokens,
            copies=settings.rollouts,
            starts=[ids[e.grade] for e in batch],
            temperature=settings.temperature,
            generator=run.generator,
        )
    groups = []
    for example, completions in zip(batch, found, strict=True):
        texts = run.tokenizer.batch_decode([[t for t in c if t != end] for c in completions])
        cases = [case(t, c[-1] == end, example.row, run.task, rules) for t, c in zip(texts, completions, strict=True)]
        earned = [judge(one, run.task).values() for one in cases]
        rewards = torch.tensor([[math.nan if r is None else r for r in row] for row in earned])
        groups.append(Group(example, completions, cases, rewards))
    return groups


def _reference(run: Run, shards: Path, settings: GrpoSettings) -> Policy:
    """The student that training started from."""
    found = make_policy(run.student, shards, settings.seed, run.device)[0].eval()
    run.forecast = foresee(run)  # with both in memory
    return found


def reward_step(
    run: Run, groups: Sequence[Group], settings: GrpoSettings, old: dict[int, Tensor], reference: Policy | None
) -> dict[str, float]:
    """Gradients of the rewards' loss: the grade's, the segments', and KL, each over its own count."""
    items = [Item(g.example.prompt, g.completions) for g in groups]
    sums, tokens = Counter[str](), 0
    for number, part in enumerate(micro_batches(items, settings.pack_tokens, run.policy.window)):
        chosen = [groups[i] for i in part]
        packs = run.policy.pack([items[i] for i in part])
        rows = labels(packs, run.device)
        before = None
        if reference is not None:
            with torch.no_grad(), run.autocast():
                read = partial(read_labels, targets=rows.targets, grade_ids=run.grade_ids)
                before = reference(packs, read).logp
        terms_of = partial(
            _terms, groups=chosen, rows=rows, run=run, settings=settings, old=old.get(number), reference=before
        )
        with run.autocast():
            terms = run.policy(packs, terms_of)
        old.setdefault(number, terms.pop("logp").detach())
        weight = len(chosen) / settings.batch_size
        run.backward(weight * (terms["loss_grade"] + terms["loss_trace"] + settings.kl * terms["kl"]))
        sums.update({name: float(value.detach()) * len(chosen) for name, value in terms.items()})
        tokens += sum(len(one.tokens) for one in packs)
    means = {name: value / max(1, len(groups)) for name, value in sums.items()}
    return means | {"loss": means.get("loss_grade", 0.0) + means.get("loss_trace", 0.0), "tokens": float(tokens)}


def _terms(
    hidden: Tensor,
    head: Head,
    *,
    groups: Sequence[Group],
    rows: Labels,
    run: Run,
    settings: GrpoSettings,
    old: Tensor | None,
    reference: Tensor | None,
) -> dict[str, Tensor]:
    out = read_labels(hidden, head, rows.targets, run.grade_ids)
    device, r = hidden.device, settings.rollouts
    earned = torch.cat([g.rewards for g in groups]).to(device)
    gold = torch.tensor([g.example.grade for g in groups], device=device)
    prompt = torch.arange(len(groups), device=device).repeat_interleave(r)
    old = out.logp.detach() if old is None else old
    first = rows.place == 0
    grade_reward = GRADE_REWARDS[settings.grade_reward](out.grades[first][::r].softmax(-1), gold)
    better = losses.advantages(earned, prompt, credit=settings.credit)
    known = earned.isfinite().float()
    weight = settings.trace_weight * known / known.sum(1, keepdim=True).clamp(min=1)
    segment = segments(rows, run.tokenizer, earned.shape[1])
    per_rollout, clipped = losses.segment_loss(
        out.logp[~first],
        old[~first],
        better,
        weight,
        rows.owner[~first],
        segment[~first],
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
    )
    kl = losses.kl_estimate(out.logp, reference).mean() if reference is not None else out.logp.new_zeros(())
    return {
        "loss_grade": -grade_reward.mean(),
        "loss_trace": per_rollout.mean(),
        "kl": kl,
        "clip_ratio": clipped,
        "entropy": out.entropy[~first].mean() if (~first).any() else out.entropy.mean(),
        "entropy_grade": out.entropy[first].mean(),
        "logp": out.logp,
    }


def segments(rows: Labels, tokenizer: Any, count: int) -> Tensor:
    """[n] segment of each token: its line after the grade; line ends, end of turn, surplus lines are `format`."""
    targets, owner, place = (column.cpu() for column in rows)
    breaks = _line_breaks(tokenizer, int(targets.max()))[targets]
    before = breaks.cumsum(0) - breaks
    line = before - before[place == 0][owner] - 1  # the grade's own line has none
    is_format = (breaks > 0) | (targets == end_id(tokenizer)) | (line < 0) | (line >= count - 1)
    return torch.where(is_format, count - 1, line).to(rows.owner.device)


def _line_breaks(tokenizer: Any, most: int) -> Tensor:
    """[vocabulary] line breaks in each token's text, up to token `most` at least, which may be a row that pads a
    model's table and has none; kept with the tokenizer."""
    if len(getattr(tokenizer, "piar_line_breaks", ())) <= most:
        texts = tokenizer.batch_decode([[i] for i in range(max(len(tokenizer), most + 1))])
        tokenizer.piar_line_breaks = torch.tensor([text.count("\n") for text in texts])
    found: Tensor = tokenizer.piar_line_breaks
    return found


def anchor_step(run: Run, rows: Sequence[Example], settings: SftSettings, mu: float) -> tuple[float, int]:
    """Gradients of the SFT loss on anchor rows, times `mu`; the loss and the tokens computed."""
    if not rows:
        return 0.0, 0
    grade, trace, tokens = sft_step(run, rows, settings, scale=mu)
    return grade + trace, tokens


def anchors(run: Run, settings: GrpoSettings, step: int) -> list[Example]:
    """Anchor rows of a step: a rule at random, then a row of it, so that rare rules come as often as common ones."""
    by_rule: dict[str, list[Example]] = {}
    for example in run.corpus.anchors:
        by_rule.setdefault((example.row["rules"] or [f"grade {example.grade}"])[0], []).append(example)
    rng, names = np.random.default_rng(seed_of(settings.seed, "anchor", step)), sorted(by_rule)
    chosen = [by_rule[names[i]] for i in rng.integers(len(names), size=settings.anchor_size)]
    return [rows[int(rng.integers(len(rows)))] for rows in chosen]


def group_metrics(groups: Sequence[Group], run: Run) -> dict[str, float]:
    """Rewards by name, dead groups, lengths: of this process."""
    if not groups:
        return {"reward": 0.0, "frac_reward_zero_std": 1.0}
    rewards = torch.cat([g.rewards for g in groups])
    lengths = [len(c) for g in groups for c in g.completions]
    dead = [bool((g.rewards.nan_to_num() == g.rewards.nan_to_num()[0]).all()) for g in groups]
    found = {
        "reward": float(rewards.nanmean(1).nan_to_num().mean()),
        "frac_reward_zero_std": sum(dead) / len(dead),
        "completions/mean_length": sum(lengths) / len(lengths),
        "completions/empty": float(sum(n <= 2 for n in lengths)),
        "frac_reward_masked": float(rewards.isnan().float().mean()),
        "completions/clipped_ratio": sum(not c.ended for g in groups for c in g.cases) / len(lengths),
    }
    names = trace_rewards(run.task)
    return found | {f"rewards/{n}/mean": float(rewards[:, i].nanmean().nan_to_num()) for i, n in enumerate(names)}


def written(groups: Sequence[Group], run: Run) -> list[dict[str, Any]]:
    """What this process's rollouts wrote and earned, one row each; a reward is null where it was masked."""
    names, rows = list(trace_rewards(run.task)), list[dict[str, Any]]()
    for group in groups:
        about = {"sample_id": group.example.row["sample_id"], "gold": group.example.row["grade"]}
        for one, rewards in zip(group.cases, group.rewards.tolist(), strict=True):
            earned = [None if math.isnan(value) else value for value in rewards]
            named = {f"reward_{name}": value for name, value in zip(names, earned, strict=True)}
            rows.append({**about, "completion": one.text, "ended": one.ended, **named})
    return rows


def look(run: Run, watch: Watch, groups: Sequence[Group], reward: float, settings: GrpoSettings) -> dict[str, float]:
    """Collapse diagnostics on the long-tail slice, with a warning when something begins to fall."""
    cited = [rule for g in groups for c in g.cases if c.trace for rule in c.trace.rules]
    figures = watch.measure(grade_probs(run, watch.examples).double().numpy(), reward, cited)
    if fell := watch.news(figures):
        proper = PROPER.get(settings.grade_reward) if "tail/entropy" in fell else None
        mend = f" (a proper reward keeps more of it: --set train.grpo.grade_reward={proper})" if proper else ""
        log.warning("step %d: the reward holds, yet on the rarest rows: %s%s", run.step, ", ".join(fell.values()), mend)
    return figures
