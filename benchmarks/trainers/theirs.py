"""The same steps by TRL's trainers and by plain transformers.

On a CPU, and not on CUDA, TRL 1.16 multiplies every position by the head instead of the labelled ones; `labelled`
patches it to do as on CUDA. TRL runs in a thread of its own, which does not inherit `torch.set_num_threads`.
"""

import atexit
import tempfile
import threading
from typing import Any

import torch
from torch import Tensor

from benchmarks.trainers.ours import GRADES, Step
from benchmarks.trainers.work import Work


class Stepper:
    """Lets a TRL trainer run some optimizer steps at a time, in a thread of its own.

    Args:
        labelled: score labelled positions only, as TRL does on CUDA.
    """

    def __init__(self, trainer: Any, *, labelled: bool, steps: int = 1) -> None:
        from transformers import TrainerCallback

        go, done = threading.Semaphore(0), threading.Semaphore(0)
        self.go, self.done, self.labelled, self.steps, self.over = go, done, labelled, steps, False
        self.error: Exception | None = None

        class Gate(TrainerCallback):
            def on_step_begin(*_: Any, **__: Any) -> None:
                go.acquire()
                if self.over:
                    raise SystemExit  # ends the thread, without a word

            def on_step_end(*_: Any, **__: Any) -> None:
                done.release()

        def work() -> None:
            torch.set_num_threads(1)
            try:
                trainer.train()
            except Exception as error:
                self.error = error

        trainer.add_callback(Gate())
        self.thread = threading.Thread(target=work, daemon=True)
        atexit.register(self.leave)

    def leave(self) -> None:
        """End the trainer that waits for a step that never comes; killed at the process's end it would abort it."""
        self.over = True
        self.go.release()
        if self.thread.is_alive():
            self.thread.join(10)

    def __call__(self) -> None:
        import trl.trainer.utils as inside

        if not self.thread.is_alive():  # not before every trainer is made: making one resets what they all share
            self.thread.start()
        inside._use_triton = lambda device: self.labelled  # read by the fused head at every call
        for _ in range(self.steps):
            self.go.release()
            while not self.done.acquire(timeout=5):
                if not self.thread.is_alive():
                    raise self.error or RuntimeError("TRL's trainer stopped")


def common(work: Work) -> dict[str, Any]:
    """Settings of all TRL trainers."""
    return {
        "output_dir": tempfile.mkdtemp(), "max_steps": 10_000, "use_cpu": work.device == "cpu", "report_to": [],
        "bf16": work.dtype == torch.bfloat16, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True,
        "gradient_checkpointing": False, "learning_rate": 1e-6, "max_grad_norm": 1.0,
        "gradient_accumulation_steps": work.parts,
    }  # fmt: skip


def grpo(work: Work, case: str, *, labelled: bool = True, vllm: bool = False) -> Step:
    """GRPOTrainer with transformers' generation, or with vLLM in the same process."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    vocabulary, model = work.tokenizer(), work.lm()
    asked, length = work.rollouts(case)
    fast: dict[str, Any] = {"generation_kwargs": {"min_tokens" if vllm else "min_new_tokens": length}}
    if vllm:
        fast |= {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3}
        model.name_or_path = tempfile.mkdtemp()  # vLLM loads the weights from there
        model.save_pretrained(model.name_or_path)
        vocabulary.save_pretrained(model.name_or_path)
    arguments = GRPOConfig(
        **common(work), **fast, per_device_train_batch_size=work.group * work.prompts // work.parts,
        num_generations=work.group,
        beta=0.0, max_completion_length=length, shuffle_dataset=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, args=arguments, processing_class=vocabulary,
        reward_funcs=lambda completions, **_: [float(len(c) % 7) for c in completions],
        train_dataset=Dataset.from_dict({"prompt": [vocabulary.decode(p) for p in asked] * 10}),
    )  # fmt: skip
    return Stepper(trainer, labelled=labelled)


def rows_of(work: Work, case: str) -> Any:
    """The pairs as TRL reads tokens."""
    from datasets import Dataset

    return Dataset.from_list([
        {"input_ids": p + c, "completion_mask": [0] * len(p) + [1] * len(c), "length": len(p) + len(c)}
        for p, c in work.pairs(case)
    ])  # fmt: skip


def labelled_rows(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of labelled positions [n, V] and their targets [n]."""
    out = model.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    targets = inputs["labels"][:, 1:]
    kept = targets != -100
    return model.lm_head(out.last_hidden_state[:, :-1][kept]).float(), targets[kept]


def sft(work: Work, case: str, *, labelled: bool = True, grouped: bool = False) -> Step:
    """SFTTrainer on tokens, loss on completions.

    Args:
        grouped: batches of like lengths. Its sampler sorts only within a quarter of the rows, so it gets four times
            as many, and a step reads as many batches as the others do.
    """
    from datasets import concatenate_datasets
    from torch.nn.functional import cross_entropy
    from trl import SFTConfig, SFTTrainer

    class Labelled(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
            return cross_entropy(*labelled_rows(model, inputs))

    sampling = {"train_sampling_strategy": "group_by_length"} if grouped else {}
    arguments = SFTConfig(
        **common(work), **sampling, per_device_train_batch_size=work.batch // work.parts, max_length=None
    )
    data = rows_of(work, case)
    steps = len(data) // work.batch
    data = concatenate_datasets([data] * 4) if grouped else data
    trainer = (Labelled if labelled else SFTTrainer)(
        model=work.lm(), args=arguments, processing_class=work.tokenizer(), train_dataset=data
    )
    return Stepper(trainer, labelled=labelled, steps=steps)


def distill(work: Work, *, labelled: bool = True) -> Step:
    """GKDTrainer on given completions (lmbda 0), generalised JSD over the whole vocabulary."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    class Labelled(GKDTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
            student, targets = labelled_rows(model, inputs)
            with torch.no_grad():
                teacher, _ = labelled_rows(self.teacher_model, inputs)
            return self.generalized_jsd_loss(student[None], teacher[None], targets[None], beta=0.5)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        own = torch.tensor([row["completion_mask"] for row in rows]) == 1
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.masked_fill(~own, -100)}

    arguments = GKDConfig(
        **common(work), per_device_train_batch_size=work.batch // work.parts, max_length=None, lmbda=0.0, beta=0.5,
        temperature=1.0, remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    trainer = (Labelled if labelled else GKDTrainer)(
        model=work.lm(), teacher_model=work.teacher().lm(), args=arguments,
        processing_class=work.tokenizer(), train_dataset=rows_of(work, "sft"), data_collator=collate,
    )  # fmt: skip
    return Stepper(trainer, labelled=labelled)


def plain_scores(work: Work, *, one_by_one: bool) -> Step:
    """A plain forward with the last position's logits alone: all prompts in one batch, or each alone."""
    model, ids = work.lm().eval(), torch.tensor(work.asked(), device=work.device)

    @torch.no_grad()
    def step() -> None:
        for part in ids.split(1 if one_by_one else len(ids)):
            model(input_ids=part, use_cache=False, logits_to_keep=1).logits[:, -1, GRADES].softmax(-1)

    return step


def written_scores(work: Work) -> Step:
    """What a user of `generate` pays for an answer of 48 tokens."""
    model, ids, length = work.lm().eval(), torch.tensor(work.asked(), device=work.device), 48 // work.shrink
    return lambda: model.generate(ids, max_new_tokens=length, min_new_tokens=length, do_sample=False, pad_token_id=1)
