"""Seconds of CPU time for the same work by TRL and by piar, interleaved in one process, on one thread.

    OMP_WAIT_POLICY=PASSIVE PYTHON_WITH_TRL -m benchmarks.trainers.speed [grpo grpo-long sft sft-varied score]

Run it from the repository's root, in an environment that has TRL beside piar's `train` extra. Both get the same
random Qwen3, the same tokens and fp32; CPU time of one thread is what a busy machine spoils least. TRL's head in SFT
is patched to labelled positions, as it is on CUDA. A step is: write completions (GRPO), loss, gradients, AdamW.
`--memory CASE WHO` prints what the peak grows by in one first step.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor

from trainers import losses
from trainers.head import read_grades, read_labels
from trainers.layout import Item, labels
from trainers.model import tiny_model, wrap
from trainers.rollout import generate

VOCAB, HIDDEN, LAYERS = 4096, 256, 4
GROUP, PROMPTS, ROUNDS = 8, 8, 3
SHAPES = {"grpo": (200, 120, 48), "grpo-long": (600, 480, 96)}  # prompt, of it rubric, completion
GRADES = torch.tensor([5, 6, 7, 8])

Step = Callable[[], Any]


def tokenizer() -> Any:
    """One word, one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0", pad_token="w1", eos_token="w2")


def prompts(total: int, rubric: int, count: int, seed: int = 0) -> list[list[int]]:
    """Random prompts behind one rubric."""
    draw = Random(seed)
    shared = [draw.randrange(10, VOCAB) for _ in range(rubric)]
    return [shared + [draw.randrange(10, VOCAB) for _ in range(total - rubric)] for _ in range(count)]


def ours_grpo(prompt: int, rubric: int, length: int) -> Step:
    """Shared-prefix rollouts, one tree, segment loss."""
    policy = wrap(tiny_model(VOCAB, hidden=HIDDEN, layers=LAYERS))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    asked, words = prompts(prompt, rubric, PROMPTS), tokenizer()

    def step() -> None:
        found = generate(policy, asked, end=-1, limit=length, copies=GROUP)
        texts = words.batch_decode([c for group in found for c in group])
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

        policy(packs, read).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


class Stepper:
    """Lets a TRL trainer run one optimizer step at a time, in a thread of its own."""

    def __init__(self, trainer: Any) -> None:
        import threading

        from transformers import TrainerCallback

        go, done = threading.Semaphore(0), threading.Semaphore(0)
        self.go, self.done = go, done

        class Gate(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                go.acquire()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                done.release()

        trainer.add_callback(Gate())
        threading.Thread(target=trainer.train, daemon=True).start()

    def __call__(self) -> None:
        self.go.release()
        self.done.acquire()


def common(folder: str) -> dict[str, Any]:
    """Settings of both TRL trainers."""
    return {
        "output_dir": folder, "max_steps": 10_000, "use_cpu": True, "bf16": False, "report_to": [],
        "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "gradient_checkpointing": False,
        "learning_rate": 1e-6,
    }  # fmt: skip


def trl_grpo(prompt: int, rubric: int, length: int) -> Step:
    """GRPOTrainer with transformers' generation, as it comes."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    words = tokenizer()
    texts = [words.decode(p) for p in prompts(prompt, rubric, PROMPTS)]
    arguments = GRPOConfig(
        **common(tempfile.mkdtemp()), per_device_train_batch_size=GROUP * PROMPTS, num_generations=GROUP, beta=0.0,
        max_completion_length=length, generation_kwargs={"min_new_tokens": length}, shuffle_dataset=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=tiny_model(VOCAB, hidden=HIDDEN, layers=LAYERS), args=arguments, processing_class=words,
        reward_funcs=lambda completions, **_: [float(len(c) % 7) for c in completions],
        train_dataset=Dataset.from_dict({"prompt": texts * 10}),
    )  # fmt: skip
    return Stepper(trainer)


def sft_rows(varied: bool) -> list[tuple[list[int], list[int]]]:
    """32 sequences: 120 tokens of rubric, 32 of sample, 48 of completion, or spread around that."""
    draw = Random(1)
    rows = []
    for prompt in prompts(152, 120, 32):
        own, answer = (draw.randrange(8, 57), draw.randrange(12, 85)) if varied else (32, 48)
        tail = [draw.randrange(10, VOCAB) for _ in range(own + answer)]
        rows.append((prompt[:120] + tail[:own], tail[own:]))
    return rows


def ours_sft(varied: bool) -> Step:
    """One tree, loss on completions."""
    policy = wrap(tiny_model(VOCAB, hidden=HIDDEN, layers=LAYERS))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    items = [Item(p, [c]) for p, c in sft_rows(varied)]

    def step() -> None:
        packs = policy.pack(items)
        rows = labels(packs, policy.device)
        policy(packs, lambda h, w: -read_labels(h, w, rows.targets, GRADES).logp.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def trl_sft(varied: bool) -> Step:
    """SFTTrainer on tokens, completion-only loss; its head patched to labelled positions."""
    from datasets import Dataset
    from torch.nn.functional import cross_entropy
    from trl import SFTConfig, SFTTrainer

    rows = sft_rows(varied)
    lm = tiny_model(VOCAB, hidden=HIDDEN, layers=LAYERS)

    class Patched(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
            hidden = model.model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state
            targets = inputs["labels"][:, 1:]
            kept = targets != -100
            return cross_entropy(model.lm_head(hidden[:, :-1][kept]).float(), targets[kept])

    arguments = SFTConfig(**common(tempfile.mkdtemp()), per_device_train_batch_size=len(rows), max_length=None)
    trainer = Patched(
        model=lm, args=arguments, processing_class=tokenizer(),
        train_dataset=Dataset.from_list([
            {"input_ids": p + c, "completion_mask": [0] * len(p) + [1] * len(c)} for p, c in rows]),
    )  # fmt: skip
    return Stepper(trainer)


def scoring() -> dict[str, Step]:
    """First token of 64 pairs (prompt 200, of it rubric 120): three ways."""
    lm = tiny_model(VOCAB, hidden=HIDDEN, layers=LAYERS).eval()
    policy = wrap(tiny_model(VOCAB, hidden=HIDDEN, layers=LAYERS)).eval()
    asked = prompts(200, 120, 64)
    ids = torch.tensor(asked)

    @torch.no_grad()
    def ours() -> None:
        policy(policy.pack([Item(p, [[0]]) for p in asked]), lambda h, w: read_grades(h, w, GRADES))

    @torch.no_grad()
    def plain() -> None:
        lm(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1, GRADES].softmax(-1)

    def generated() -> None:
        lm.generate(ids, max_new_tokens=48, min_new_tokens=48, do_sample=False, pad_token_id=1)

    return {"piar": ours, "plain forward": plain, "generate 48": generated}


def contestants(case: str) -> dict[str, Step]:
    """Who takes part in a case."""
    if case in SHAPES:
        return {"piar": ours_grpo(*SHAPES[case]), "trl": trl_grpo(*SHAPES[case])}
    if case.startswith("sft"):
        return {"piar": ours_sft(case == "sft-varied"), "trl": trl_sft(case == "sft-varied")}
    return scoring()


def cpu_seconds(step: Step) -> float:
    """CPU time of all threads of this process during one step; only one of them works at a time."""
    before = time.process_time()
    step()
    return time.process_time() - before


def main() -> None:
    """Print one JSON line per case: median seconds, and how many times longer the others take."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--memory"]:
        step = {"piar": ours_grpo, "trl": trl_grpo}[sys.argv[3]](*SHAPES[sys.argv[2]])
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step()
        print(
            json.dumps(
                {"who": sys.argv[3], "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1e3}
            )
        )
        return
    for case in sys.argv[1:] or [*SHAPES, "sft", "sft-varied", "score"]:
        who = contestants(case)
        for step in who.values():
            step()
        seconds: dict[str, list[float]] = {name: [] for name in who}
        for _ in range(ROUNDS):
            for name, step in who.items():
                seconds[name].append(cpu_seconds(step))
        median = {name: statistics.median(found) for name, found in seconds.items()}
        ratios = {name: round(value / median["piar"], 2) for name, value in median.items() if name != "piar"}
        print(
            json.dumps({"case": case, "cpu_seconds": {n: round(v, 3) for n, v in median.items()}, "ratio": ratios}),
            flush=True,
        )


if __name__ == "__main__":
    main()
