r"""Seconds of CPU time for the same work by TRL and by piar, interleaved in one process, on one thread.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 PYTHON_WITH_TRL \
        -m benchmarks.trainers.speed [--memory | --parts | --once] [CASE …]

Run it from the repository's root, in an environment that has TRL beside piar's `train` extra. All get the same
random Qwen3, the same tokens and fp32; CPU time of one thread is what a busy machine spoils least. A step is: write
completions (GRPO), loss, gradients, clipping, AdamW. `--memory` prints how far each arm's peak rises above what it
holds before its first step, in a process of its own; `--parts` shows where a GRPO step of each spends its time,
`--once` times one round instead of three.

On a CPU, and not on CUDA, TRL 1.16 multiplies every position by the head instead of the labelled ones. The arms called
"trl, labelled rows" are patched to do as on CUDA; quote these ratios. TRL runs in a thread of its own, which
does not inherit `torch.set_num_threads`: without OMP_NUM_THREADS=1 its second thread would be counted too.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from trainers import losses
from trainers.head import over_rows, read_grades, read_labels
from trainers.layout import Item, labels
from trainers.model import Policy, wrap
from trainers.rollout import generate
from trainers.tiny import tiny_model

VOCAB, HIDDEN, LAYERS = 4096, 256, 4
GROUP, PROMPTS, BATCH, TOP = 8, 8, 32, 32
GRPO = {"grpo": (200, 120, 48), "grpo-long": (600, 480, 96)}  # prompt, of it rubric, completion
SFT = ("sft", "sft-varied", "sft-unshared")
GRADES = torch.tensor([5, 6, 7, 8])

Step = Callable[[], Any]
Pair = tuple[list[int], list[int]]


def lm() -> Any:
    """The same random weights for everyone."""
    return tiny_model(VOCAB, hidden=HIDDEN, layers=LAYERS)


def tokenizer() -> Any:
    """One word, one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0", pad_token="w1", eos_token="w2")


def words(draw: Random, count: int) -> list[int]:
    """Random tokens."""
    return [draw.randrange(10, VOCAB) for _ in range(count)]


def prompts(total: int, rubric: int, count: int) -> list[list[int]]:
    """Random prompts behind one rubric."""
    draw = Random(0)
    shared = words(draw, rubric)
    return [shared + words(draw, total - rubric) for _ in range(count)]


def pairs(case: str) -> list[Pair]:
    """Prompts and completions of 200 tokens: 120 of rubric, 32 of sample, 48 of completion, or spread around that."""
    draw = Random(1)
    rubric, found = words(draw, 120), list[Pair]()
    for _ in range(4 * BATCH if case == "sft-varied" else BATCH):
        own, answer = (draw.randrange(8, 57), draw.randrange(12, 85)) if case == "sft-varied" else (32, 48)
        shared = words(draw, 120) if case == "sft-unshared" else rubric
        found.append((shared + words(draw, own), words(draw, answer)))
    return found


# --- piar -----------------------------------------------------------------------------------------


def learner() -> tuple[Policy, Callable[[Tensor], None]]:
    """A policy, and what applies a loss to it."""
    policy = wrap(lm())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)

    def apply(loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return policy, apply


def ours_grpo(prompt: int, rubric: int, length: int) -> Step:
    """Shared-prefix rollouts, one tree, segment loss."""
    policy, apply = learner()
    asked, vocabulary = prompts(prompt, rubric, PROMPTS), tokenizer()

    def step() -> None:
        found = generate(policy, asked, end=-1, limit=length, copies=GROUP)
        texts = vocabulary.batch_decode([c for group in found for c in group])
        rewards = torch.tensor([float(len(text) % 7) for text in texts])[:, None]
        zero = torch.zeros(PROMPTS * GROUP * length, dtype=torch.long)
        group = torch.arange(PROMPTS).repeat_interleave(GROUP)
        better = losses.advantages(rewards, group, credit="local", scale="std")
        packs = policy.pack([Item(p, c) for p, c in zip(asked, found, strict=True)])
        rows = labels(packs, policy.device)

        def read(hidden: Tensor, head: Tensor) -> Tensor:
            out = read_labels(hidden, head, rows.targets, GRADES)
            old = out.logp.detach()
            return losses.segment_loss(out.logp, old, better, torch.ones_like(better), rows.owner, zero,
                                       clip_low=0.2, clip_high=0.28)[0].mean()  # fmt: skip

        apply(policy(packs, read))

    return step


def ours_sft(case: str) -> Step:
    """One tree, loss on completions; one step a batch."""
    policy, apply = learner()
    items = [Item(prompt, [completion]) for prompt, completion in pairs(case)]

    def step() -> None:
        for start in range(0, len(items), BATCH):
            packs = policy.pack(items[start : start + BATCH])
            rows = labels(packs, policy.device)
            apply(policy(packs, lambda h, w, t=rows.targets: -read_labels(h, w, t, GRADES).logp.mean()))

    return step


def ours_distill(*, cached: bool) -> Step:
    """Generalised JSD with the teacher's likeliest tokens; the teacher is asked in every step, or once."""
    (policy, apply), teacher = learner(), wrap(tiny_model(VOCAB, hidden=2 * HIDDEN, layers=LAYERS)).eval()
    packs = policy.pack([Item(prompt, [completion]) for prompt, completion in pairs("sft")])

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


# --- TRL ------------------------------------------------------------------------------------------


class Stepper:
    """Lets a TRL trainer run some optimizer steps at a time, in a thread of its own.

    Args:
        labelled: score labelled positions only, as TRL does on CUDA.
    """

    def __init__(self, trainer: Any, *, labelled: bool = True, steps: int = 1) -> None:
        from transformers import TrainerCallback

        go, done = threading.Semaphore(0), threading.Semaphore(0)
        self.go, self.done, self.labelled, self.steps = go, done, labelled, steps

        class Gate(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                go.acquire()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                done.release()

        def work() -> None:
            torch.set_num_threads(1)
            trainer.train()

        trainer.add_callback(Gate())
        self.thread = threading.Thread(target=work, daemon=True)

    def __call__(self) -> None:
        import trl.trainer.utils as inside

        if not self.thread.is_alive():  # not before every trainer is made: making one resets what they all share
            self.thread.start()
        inside._use_triton = lambda device: self.labelled  # read by the fused head at every call
        for _ in range(self.steps):
            self.go.release()
            while not self.done.acquire(timeout=5):
                if not self.thread.is_alive():
                    raise SystemExit("TRL's trainer stopped; its error is above.")


def common() -> dict[str, Any]:
    """Settings of all TRL trainers."""
    return {
        "output_dir": tempfile.mkdtemp(), "max_steps": 10_000, "use_cpu": True, "bf16": False, "report_to": [],
        "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "gradient_checkpointing": False,
        "learning_rate": 1e-6, "max_grad_norm": 1.0,
    }  # fmt: skip


def trl_grpo(prompt: int, rubric: int, length: int, *, labelled: bool) -> Step:
    """GRPOTrainer with transformers' generation."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    vocabulary = tokenizer()
    texts = [vocabulary.decode(p) for p in prompts(prompt, rubric, PROMPTS)]
    arguments = GRPOConfig(
        **common(), per_device_train_batch_size=GROUP * PROMPTS, num_generations=GROUP, beta=0.0,
        max_completion_length=length, generation_kwargs={"min_new_tokens": length}, shuffle_dataset=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=lm(), args=arguments, processing_class=vocabulary,
        reward_funcs=lambda completions, **_: [float(len(c) % 7) for c in completions],
        train_dataset=Dataset.from_dict({"prompt": texts * 10}),
    )  # fmt: skip
    return Stepper(trainer, labelled=labelled)


def rows_of(case: str) -> Any:
    """The pairs as TRL reads tokens."""
    from datasets import Dataset

    return Dataset.from_list([
        {"input_ids": p + c, "completion_mask": [0] * len(p) + [1] * len(c), "length": len(p) + len(c)}
        for p, c in pairs(case)
    ])  # fmt: skip


def labelled_rows(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of labelled positions [n, V] and their targets [n]."""
    out = model.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    targets = inputs["labels"][:, 1:]
    kept = targets != -100
    return model.lm_head(out.last_hidden_state[:, :-1][kept]).float(), targets[kept]


def trl_sft(case: str, *, labelled: bool, grouped: bool = False) -> Step:
    """SFTTrainer on tokens, loss on completions."""
    from torch.nn.functional import cross_entropy
    from trl import SFTConfig, SFTTrainer

    class Labelled(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
            return cross_entropy(*labelled_rows(model, inputs))

    sampling = {"train_sampling_strategy": "group_by_length"} if grouped else {}
    arguments = SFTConfig(**common(), **sampling, per_device_train_batch_size=BATCH, max_length=None)
    data = rows_of(case)
    trainer = (Labelled if labelled else SFTTrainer)(
        model=lm(), args=arguments, processing_class=tokenizer(), train_dataset=data
    )
    return Stepper(trainer, steps=len(data) // BATCH)


def trl_distill(*, labelled: bool) -> Step:
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
        **common(), per_device_train_batch_size=BATCH, max_length=None, lmbda=0.0, beta=0.5, temperature=1.0,
        remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    trainer = (Labelled if labelled else GKDTrainer)(
        model=lm(), teacher_model=tiny_model(VOCAB, hidden=2 * HIDDEN, layers=LAYERS), args=arguments,
        processing_class=tokenizer(), train_dataset=rows_of("sft"), data_collator=collate,
    )  # fmt: skip
    return Stepper(trainer)


# --- scoring --------------------------------------------------------------------------------------


def ours_scoring() -> Step:
    """First token of 64 pairs (prompt 200, of it rubric 120), shared prefixes computed once."""
    policy, asked = wrap(lm()).eval(), prompts(200, 120, 64)

    @torch.no_grad()
    def step() -> None:
        policy(policy.pack([Item(p, [[0]]) for p in asked]), lambda h, w: read_grades(h, w, GRADES))

    return step


def plain_scoring(*, one_by_one: bool) -> Step:
    """A plain forward with the last position's logits alone: all prompts in one batch, or each alone."""
    model, ids = lm().eval(), torch.tensor(prompts(200, 120, 64))

    @torch.no_grad()
    def step() -> None:
        for part in ids.split(1 if one_by_one else len(ids)):
            model(input_ids=part, use_cache=False, logits_to_keep=1).logits[:, -1, GRADES].softmax(-1)

    return step


def generated_scoring() -> Step:
    """What a user of `generate` pays for an answer of 48 tokens."""
    model, ids = lm().eval(), torch.tensor(prompts(200, 120, 64))
    return lambda: model.generate(ids, max_new_tokens=48, min_new_tokens=48, do_sample=False, pad_token_id=1)


def arms(case: str) -> dict[str, Callable[[], Step]]:
    """Who takes part in a case; ours first."""
    if case in GRPO:
        shape = GRPO[case]
        return {
            "piar": lambda: ours_grpo(*shape),
            "trl, labelled rows": lambda: trl_grpo(*shape, labelled=True),
            "trl as it comes": lambda: trl_grpo(*shape, labelled=False),
        }
    if case in SFT:
        grouped = {"trl, labelled rows, by length": lambda: trl_sft(case, labelled=True, grouped=True)}
        return {
            "piar": lambda: ours_sft(case),
            "trl, labelled rows": lambda: trl_sft(case, labelled=True),
            "trl as it comes": lambda: trl_sft(case, labelled=False),
            **(grouped if case == "sft-varied" else {}),
        }
    if case == "distill":
        return {
            "piar": lambda: ours_distill(cached=True),
            "piar, teacher asked in each step": lambda: ours_distill(cached=False),
            "trl, labelled rows": lambda: trl_distill(labelled=True),
            "trl as it comes": lambda: trl_distill(labelled=False),
        }
    return {
        "piar": ours_scoring,
        "plain forward, one batch": lambda: plain_scoring(one_by_one=False),
        "plain forward, one by one": lambda: plain_scoring(one_by_one=True),
        "generate 48": generated_scoring,
    }


def cpu_seconds(step: Step) -> float:
    """CPU time of all threads of this process during one step; only one of them works at a time."""
    before = time.process_time()
    step()
    return time.process_time() - before


def time_case(case: str, rounds: int = 3) -> dict[str, Any]:
    """Median seconds of each arm after a step of warming up, and how many times longer than ours."""
    who = {name: make() for name, make in arms(case).items()}
    seconds: dict[str, list[float]] = {name: [] for name in who}
    for turn in range(rounds + 1):
        for name, step in who.items():
            spent = cpu_seconds(step)
            seconds[name] += [spent] if turn else []
    median = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "case": case,
        "cpu_seconds": {name: round(value, 3) for name, value in median.items()},
        "ratio": {name: round(value / median["piar"], 2) for name, value in median.items() if name != "piar"},
        "all": {name: [round(s, 3) for s in found] for name, found in seconds.items()},
    }


def peak_of(case: str, name: str) -> float:
    """MB by which the peak of one arm's first two steps exceeds what it held before (Linux)."""
    step, own = arms(case)[name](), Path("/proc/self")
    (own / "clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status(own, "VmRSS")
    step()
    step()
    return (_status(own, "VmHWM") - before) / 1e3


def _status(own: Path, field: str) -> float:
    return float(next(line.split()[1] for line in (own / "status").read_text().splitlines() if line.startswith(field)))


def memory_case(case: str) -> dict[str, Any]:
    """Peaks of all arms, a process for each."""
    peaks = {}
    for name in arms(case):
        line = [sys.executable, "-m", "benchmarks.trainers.speed", "--peak", case, name]
        peaks[name] = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return {"case": case, "peak_mb": peaks}


def clocked(owner: Any, name: str, spent: dict[str, float]) -> None:
    """Count the CPU seconds that `owner.name(…)` takes."""
    whole = getattr(owner, name)

    def timed(*given: Any, **named: Any) -> Any:
        before = time.process_time()
        try:
            return whole(*given, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - before

    setattr(owner, name, timed)


def parts_of(case: str) -> dict[str, Any]:
    """CPU seconds of one GRPO step of TRL and of ours: in all, writing completions, and the backward pass."""
    import transformers

    ours, theirs = ours_grpo(*GRPO[case]), trl_grpo(*GRPO[case], labelled=True)
    found: dict[str, Any] = {"case": case}
    for name, step in (("piar", ours), ("trl, labelled rows", theirs)):
        step()
        spent: dict[str, float] = {}
        clocked(sys.modules[__name__], "generate", spent)
        clocked(transformers.Qwen3ForCausalLM, "generate", spent)
        clocked(torch.Tensor, "backward", spent)
        clocked(torch.optim.AdamW, "step", spent)
        whole = cpu_seconds(step)
        found[name] = {"all": round(whole, 2), **{part: round(value, 2) for part, value in spent.items()}}
    return found


def main(arguments: Sequence[str]) -> None:
    """Print one JSON line per case."""
    torch.set_num_threads(1)
    if arguments[:1] == ["--peak"]:
        print(round(peak_of(*arguments[1:])))
        return
    ways = {"--memory": memory_case, "--parts": parts_of, "--once": partial(time_case, rounds=1)}
    measure = next((ways[word] for word in arguments if word in ways), time_case)
    everything = GRPO if "--parts" in arguments else [*GRPO, *SFT, "distill", "score"]
    for case in [a for a in arguments if not a.startswith("--")] or everything:
        print(json.dumps(measure(case)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
