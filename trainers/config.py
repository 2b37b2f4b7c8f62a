"""Settings of the trainers: `[student]`, `[train.sft]`, `.grpo`, `.distill` and `.encoder` of `piar.toml`.

`docs/train.md` has the same in a table, with the names by which people ask for them.
"""

from typing import Literal

from pydantic import Field

from store.settings import Settings

Prompt = Literal["short", "rulebook"]
Completion = Literal["trace", "grade"]
Kind = Literal["language model", "encoder"]  # of a student
Reads = Literal["together", "apart", "prompted"]  # how an encoder meets the texts of a sample
Order = Literal["curriculum", "shuffled"]
Credit = Literal["local", "outcome"]
GradeReward = Literal["exact", "ordinal", "brier", "rps"]
Balance = Literal["constant", "none"]


class StudentSettings(Settings):
    """The student's network.

    Attributes:
        model: `tiny` (a small Qwen3 from nothing, its tokenizer trained on the shards' texts), a Hugging
            Face folder, a checkpoint of ours, or the name of a downloaded model.
    """

    model: str = "tiny"
    prompt: Prompt = "short"  # what exported prompts hold: the sample alone, or the rulebook in front of it
    hidden: int = Field(default=128, ge=64, multiple_of=64)  # this and the next two: the size of a tiny model
    layers: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=2048, ge=300)
    lora: int = Field(default=0, ge=0)  # rank of adapters, 0 to train all weights; merged in every checkpoint
    checkpointing: bool = False  # recompute activations in the backward pass, for large models
    shard: bool = False  # under torchrun, shard weights and optimizer (FSDP2) instead of repeating them


class TrainSettings(Settings):
    """What all trainers share.

    Attributes:
        epochs: draws from the schedule, as a multiple of the training rows; 0 for 6 on a tiny model, else 1.
        learning_rate: 0 for 3e-3 on a tiny model, 2e-5 on a pretrained one, 2e-4 with LoRA.
        warmup: share of the steps over which the rate rises; it then falls along a cosine to a tenth.
        precision: see `trainers.precision`; `PIAR_PRECISION` stands above it. Weights stay fp32.
        patience: above 0, the weights with the lowest loss of the grade on dev are kept, see `trainers.early`;
            `eval_every` 0 is then a tenth of the run.
        order: `shuffled` draws the same multiset of rows as the curriculum, in random order (its baseline).
    """

    steps: int = Field(default=0, ge=0)  # optimizer updates; 0 to follow `epochs`
    epochs: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=32, ge=1)  # examples (prompts) per update, over all processes
    learning_rate: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=2048, ge=8)  # tokens of prompt and completion; longer rows are left out and counted
    pack_tokens: int = Field(default=4096, ge=8)  # tokens computed at once: changes memory, never the update
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    order: Order = "curriculum"
    save_every: int = Field(default=0, ge=0)  # this and the next two in steps, 0 for only at the end
    eval_every: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)  # looks at dev without a lower loss that end the run; 0 for none
    log_every: int = Field(default=10, ge=1)
    keep: int = Field(default=2, ge=1)  # checkpoints
    tensorboard: bool = False
    seed: int = 0


class SftSettings(TrainSettings):
    """`[train.sft]`.

    Attributes:
        words_first: share of the steps, from the start, in which a student from nothing learns which words its fields
            share (see `trainers.tiny`); no other student, and no task with one field, has this lesson.
        grade_first: share of the steps, after that, that teach the grade alone: they are cheaper, and the trace is then
            learnt by a student that knows what it explains.
    """

    batch_size: int = Field(default=64, ge=1)
    completion: Completion = "trace"  # the grade alone, or the grade and the trace after it
    words_first: float = Field(default=0.15, ge=0, le=1)
    grade_first: float = Field(default=0.25, ge=0, le=1)
    grade_weight: float = Field(default=0.4, ge=0, le=1)  # share of the loss; a token mean gives the grade under 1 %
    soft_grades: float = Field(default=0.0, ge=0, le=1)  # share of the target that is the teacher's, where a row has it


class GrpoSettings(TrainSettings):
    """`[train.grpo]`: Stepwise-GRPO with mode balance.

    Attributes:
        trace_weight: weight of all segments after the grade together; the grade has 1.
        kl: weight of KL(policy ‖ where training started); 0 needs no second model.
        balance: the anchor's loss counts `mu` beside the rewards', or with `none` not at all.
    """

    batch_size: int = Field(default=8, ge=1)  # prompts per update, each with `rollouts` completions
    rollouts: int = Field(default=8, ge=2)
    max_tokens: int = Field(default=160, ge=2)  # of a completion
    temperature: float = Field(default=1.0, gt=0)
    credit: Credit = "local"  # how rewards reach segments, see `trainers.losses.advantages`
    grade_reward: GradeReward = "exact"  # `trainers.rewards.GRADE_REWARDS`: of a drawn grade, or of all probabilities
    trace_weight: float = Field(default=0.5, ge=0)
    clip_low: float = Field(default=0.2, gt=0)  # PPO's clip; used from the second pass over the rollouts on
    clip_high: float = Field(default=0.28, gt=0)
    passes: int = Field(default=1, ge=1)  # updates per batch of rollouts
    kl: float = Field(default=0.0, ge=0)
    balance: Balance = "constant"
    mu: float = Field(default=0.1, ge=0, le=1)
    anchor_size: int = Field(default=8, ge=0)  # anchor rows beside each batch
    watch_every: int = Field(default=20, ge=1)  # steps between measurements of collapse on the long tail


class DistillSettings(TrainSettings):
    """`[train.distill]`.

    Attributes:
        teacher: a Hugging Face folder whose tokenizer the student shares; empty: the grade
            probabilities that the shards carry, and no trace term.
        beta: 0 forward KL, 1 reverse KL, between them the generalised JSD.
        on_policy: share of the last steps in which the student writes the traces itself (needs `teacher`).
    """

    teacher: str = ""
    top_k: int = Field(default=32, ge=1)  # tokens kept of the teacher at each position; the rest is one tail bucket
    beta: float = Field(default=0.0, ge=0, le=1)
    grade_weight: float = Field(default=1.0, ge=0)  # of the grade's term, beside 1 for the trace's
    gold_weight: float = Field(default=0.3, ge=0)  # of cross-entropy on the gold grade
    on_policy: float = Field(default=0.0, ge=0, le=1)
    max_tokens: int = Field(default=160, ge=2)


class EncoderSettings(Settings):
    """`[train.encoder]`: an encoder as a student.

    Attributes:
        epochs: passes over the rows; at 0 an encoder that reads apart keeps the head that it begins with, in seconds; a
            language model that is prompted always does.
        reads: two texts `together`, in one sequence, each field `apart` under a fitted head (`trainers.apart`), or
            `prompted`, by a language model under one (`trainers.prompted`); `auto`: apart where the folder is a
            sentence encoder's, with a `modules.json` whose steps are known here, prompted where it writes text.
        beside: folder of a sentence encoder that is read beside a language model that is prompted; `auto`: the
            project's `[baselines] encoder`, where it has one that helps on unseen groups of train; `none`.
        learning_rate: 0 for 1e-3 (tiny), 3e-5 (apart, or 512 wide and more), else 2e-4.
        keeps: which end of a text stays where it is cut; `auto`: the start, but for an encoder whose folder has a
            tokenizer that cuts on the left.
    """

    model: str = "tiny"  # a small BERT from nothing, or a Hugging Face encoder
    hidden: int = Field(default=128, ge=64, multiple_of=64)  # this and the next two: the size of a tiny encoder
    layers: int = Field(default=3, ge=1)
    vocab_size: int = Field(default=2048, ge=300)
    epochs: float = Field(default=4.0, ge=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.0, ge=0)
    reads: Reads | Literal["auto"] = "auto"
    beside: str = "auto"
    max_length: int = Field(default=256, ge=8)  # tokens of a sample, or of each text apart; longer ones are cut
    keeps: Literal["auto", "start", "end"] = "auto"
    seed: int = 0


class AllTrainSettings(Settings):
    """`[train]`: one table for each trainer."""

    sft: SftSettings = SftSettings()
    grpo: GrpoSettings = GrpoSettings()
    distill: DistillSettings = DistillSettings()
    encoder: EncoderSettings = EncoderSettings()
