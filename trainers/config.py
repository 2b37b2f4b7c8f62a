"""Settings of the trainers: `[student]`, `[train.sft]`, `.grpo`, `.distill` and `.encoder` of `piar.toml`."""

from typing import Literal

from pydantic import Field

from store.settings import Settings


class StudentSettings(Settings):
    """The student's network.

    Attributes:
        model: `tiny` (a small Qwen3 from nothing, its tokenizer trained on the shards' texts), a Hugging
            Face folder, a checkpoint of ours, or the name of a downloaded model.
        prompt: what the exported prompts hold: the sample alone, or the rulebook in front of it.
        hidden, layers, vocab_size: size of a tiny model.
        lora: rank of LoRA adapters, 0 to train all weights; merged in every checkpoint.
        checkpointing: recompute activations in the backward pass, for large models.
        shard: under torchrun, shard weights and optimizer over processes (FSDP2) instead of repeating them.
    """

    model: str = "tiny"
    prompt: Literal["short", "rulebook"] = "short"
    hidden: int = Field(default=128, ge=64, multiple_of=64)
    layers: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=2048, ge=300)
    lora: int = Field(default=0, ge=0)
    checkpointing: bool = False
    shard: bool = False


class TrainSettings(Settings):
    """What all trainers share.

    Attributes:
        steps: optimizer updates; 0 to follow `epochs`.
        epochs: draws from the schedule, as a multiple of the training rows; 0 for 6 on a tiny model, else 1.
        batch_size: examples (prompts) per update, over all processes.
        learning_rate: 0 for 3e-3 on a tiny model, 2e-5 on a pretrained one, 2e-4 with LoRA.
        warmup: share of the steps over which the rate rises; it then falls along a cosine to a tenth.
        max_length: tokens of prompt and completion; longer rows are left out and counted.
        pack_tokens: tokens computed at once. Changes memory, never the update.
        precision: `auto` is bf16 where the machine multiplies it fast, else fp32. Weights stay fp32.
        order: `shuffled` draws the same multiset of rows as the curriculum, in random order (its baseline).
        save_every, eval_every, log_every: in steps; 0 for only at the end.
        keep: checkpoints kept.
    """

    steps: int = Field(default=0, ge=0)
    epochs: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=2048, ge=8)
    pack_tokens: int = Field(default=4096, ge=8)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    order: Literal["curriculum", "shuffled"] = "curriculum"
    save_every: int = Field(default=0, ge=0)
    eval_every: int = Field(default=0, ge=0)
    log_every: int = Field(default=10, ge=1)
    keep: int = Field(default=2, ge=1)
    tensorboard: bool = False
    seed: int = 0


class SftSettings(TrainSettings):
    """`[train.sft]`.

    Attributes:
        completion: teach the grade alone, or the grade and the trace after it.
        words_first: share of the steps, from the start, in which a student from nothing learns which words its fields
            share (see `trainers.tiny`); no other student, and no task with one field, has this lesson.
        grade_first: share of the steps, after that, that teach the grade alone: they are cheaper, and the trace is then
            learnt by a student that knows what it explains.
        grade_weight: share of the loss on the grade token (a plain token mean gives it under one percent).
        soft_grades: share of the grade's target that is the teacher's distribution, where a row has one.
    """

    batch_size: int = Field(default=64, ge=1)
    completion: Literal["trace", "grade"] = "trace"
    words_first: float = Field(default=0.15, ge=0, le=1)
    grade_first: float = Field(default=0.25, ge=0, le=1)
    grade_weight: float = Field(default=0.4, ge=0, le=1)
    soft_grades: float = Field(default=0.0, ge=0, le=1)


Credit = Literal["local", "outcome", "to_go", "masked"]
Balance = Literal["constant", "cosine", "chord", "chord_phi", "hpt", "srft", "none"]


class GrpoSettings(TrainSettings):
    """`[train.grpo]`: Stepwise-GRPO with mode balance.

    Attributes:
        batch_size: prompts per update, each with `rollouts` completions.
        max_tokens: longest completion.
        credit: how rewards reach segments, see `trainers.losses.advantages`.
        grade_gradient: `exact` sums over the grades; `sampled` draws them, and skips prompts whose
            rollouts would most likely agree before decoding.
        grade_reward: 1 if right and -1 if not, or falling with the distance.
        grade_scale, trace_scale: advantages divided by the group's deviation, or not (Dr.GRPO).
        trace_weight: weight of all segments after the grade together; the grade has 1.
        clip_low, clip_high: PPO's clip; used from the second pass over the rollouts on.
        passes: updates per batch of rollouts.
        kl: weight of KL(policy ‖ where training started); 0 needs no second model.
        balance: how the loss on the anchor is weighted against the rewards', see `trainers.losses.balance`.
        mu: its weight where it is constant, or where it starts.
        pass_rate: HPT's threshold.
        anchor_size: anchor rows beside each batch.
        skip_above: with sampled grades, a prompt is skipped when its rollouts agree with this probability.
        watch_every: steps between measurements of collapse on the long tail.
    """

    batch_size: int = Field(default=8, ge=1)
    rollouts: int = Field(default=8, ge=2)
    max_tokens: int = Field(default=160, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    credit: Credit = "local"
    grade_gradient: Literal["exact", "sampled"] = "exact"
    grade_reward: Literal["exact", "ordinal"] = "exact"
    grade_scale: Literal["none", "std"] = "none"
    trace_scale: Literal["std", "none", "batch"] = "std"
    trace_weight: float = Field(default=0.5, ge=0)
    clip_low: float = Field(default=0.2, gt=0)
    clip_high: float = Field(default=0.28, gt=0)
    passes: int = Field(default=1, ge=1)
    kl: float = Field(default=0.0, ge=0)
    balance: Balance = "constant"
    mu: float = Field(default=0.1, ge=0, le=1)
    pass_rate: float = Field(default=0.5, ge=0, le=1)
    anchor_size: int = Field(default=8, ge=0)
    skip_above: float = Field(default=0.9, gt=0, le=1)
    watch_every: int = Field(default=20, ge=1)


class DistillSettings(TrainSettings):
    """`[train.distill]`.

    Attributes:
        teacher: a Hugging Face folder whose tokenizer the student shares; empty: the grade
            probabilities that the shards carry, and no trace term.
        top_k: tokens kept per position of the teacher's distribution; the rest is one tail bucket.
        beta: 0 forward KL, 1 reverse KL, between them the generalised JSD.
        grade_weight: weight of the grade's term, beside 1 for the trace's.
        gold_weight: weight of cross-entropy on the gold grade.
        on_policy: share of the last steps in which the student writes the traces itself (needs `teacher`).
    """

    teacher: str = ""
    top_k: int = Field(default=32, ge=1)
    beta: float = Field(default=0.0, ge=0, le=1)
    grade_weight: float = Field(default=1.0, ge=0)
    gold_weight: float = Field(default=0.3, ge=0)
    on_policy: float = Field(default=0.0, ge=0, le=1)
    max_tokens: int = Field(default=160, ge=2)


class EncoderSettings(Settings):
    """`[train.encoder]`: a baseline beside the students.

    Attributes:
        model: `tiny` (a small BERT from nothing), or a Hugging Face encoder.
        hidden, layers, vocab_size: size of a tiny encoder.
        learning_rate: 0 for 1e-3 on a tiny encoder, 3e-5 on a pretrained one.
    """

    model: str = "tiny"
    hidden: int = Field(default=128, ge=64, multiple_of=64)
    layers: int = Field(default=3, ge=1)
    vocab_size: int = Field(default=2048, ge=300)
    epochs: float = Field(default=4.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=256, ge=8)
    seed: int = 0


class AllTrainSettings(Settings):
    """`[train]`: one table for each trainer."""

    sft: SftSettings = SftSettings()
    grpo: GrpoSettings = GrpoSettings()
    distill: DistillSettings = DistillSettings()
    encoder: EncoderSettings = EncoderSettings()
