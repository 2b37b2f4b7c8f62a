"""What all trainers share around their loops: optimizer, schedule, saving, resuming, metrics, processes.

A `Run` makes every process under torchrun follow the same plan: each reads the whole batch, computes
its own share, and losses are divided by counts over the whole batch, so the update does not depend
on the number of processes or on how a batch is cut. Left out: gradient scaling for fp16, tensor and pipeline
parallelism, elastic restarts (resume does that).
"""

import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from store.errors import PiarError
from store.manifest import read_manifest
from trainers import checkpoint
from trainers.checkpoint import StudentCard
from trainers.config import StudentSettings, TrainSettings
from trainers.data import Corpus, Example, Sampler, micro_batches, read_corpus, texts
from trainers.model import Policy, end_id, grade_ids, load_policy, load_tokenizer, wrap
from trainers.scoring import measure
from trainers.tiny import phrases, tiny_model, tiny_tokenizer

METRICS = "metrics.jsonl"
Completion = Literal["trace", "grade"]


@dataclass(frozen=True)
class Trained:
    """What a training run left behind."""

    checkpoint: Path
    steps: int
    metrics: dict[str, float]
    stopped: bool
    left_out: dict[str, int] = field(default_factory=dict)


class Run:
    """One training run: its policy, data, optimizer, and everything that survives a crash.

    Args:
        trainer: `sft`, `grpo` or `distill`.
        shards: folder that `piar curriculum export` wrote.
        out: folder of the run; `checkpoint-N/` and `final/` go there.
        tokenizer_from: whose tokenizer a tiny student takes, instead of one of its own.
        resume: go on from the newest whole checkpoint of `out`.

    Raises:
        PiarError: unusable data or model, a run already there, or a resume with other data or settings.
    """

    def __init__(
        self, trainer: str, shards: Path, out: Path, student: StudentSettings, settings: TrainSettings,
        *, completion: Completion = "trace", tokenizer_from: str = "", resume: bool = False,
    ) -> None:  # fmt: skip
        self.out, self.settings, self.student = out, settings, student
        self.rank, self.world, self.device = _join()
        last = _previous(out, resume)
        self.policy, self.tokenizer, self.from_nothing = make_policy(
            student, shards, settings.seed, self.device, last=last, tokenizer_from=tokenizer_from
        )
        self.corpus: Corpus = read_corpus(shards, self.tokenizer, max_length=settings.max_length, completion=completion)
        self.task = self.corpus.manifest.task
        self.grade_ids = torch.tensor(grade_ids(self.tokenizer, self.task), device=self.device)
        self.card = StudentCard.of(self.corpus.manifest, completion=completion, trainer=trainer, base=student.model,
                                   shards=self.corpus.digest)  # fmt: skip
        epochs = settings.epochs or (8.0 if self.from_nothing else 1.0)
        self.total = settings.steps or math.ceil(len(self.corpus.train) * epochs / settings.batch_size)
        self.sampler = Sampler(self.corpus, self.total * settings.batch_size, seed=settings.seed, order=settings.order)
        self.generator = torch.Generator(self.device).manual_seed(settings.seed + self.rank)
        self._prepare()
        self.optimizer = _optimizer(self.policy, settings)
        self.step, self.tokens, self.stopped = 0, 0, False
        self.metrics: dict[str, float] = {}
        self.extra: dict[str, Any] = {}  # a trainer's own state; saved with the rest
        if last is not None:
            self._restore(last)
        self._started = time.perf_counter()

    def _prepare(self) -> None:
        torch.manual_seed(self.settings.seed)  # adapters start from random weights, the same in every process
        if self.student.lora:
            _add_lora(self.policy.lm, self.student.lora)
        if self.student.checkpointing:
            self.policy.lm.gradient_checkpointing_enable({"use_reentrant": False})
        self.sharded = self.student.shard and self.world > 1
        if self.sharded:
            from torch.distributed.fsdp import fully_shard

            for layer in self.policy.lm.get_decoder().layers:
                fully_shard(layer)
            fully_shard(self.policy)
        self.policy.train()

    # --- the loop's verbs ---

    def steps(self) -> Iterator[int]:
        """Step numbers still to do; ends early, after a whole step, on SIGTERM or SIGINT."""
        with _signals(self), _progress(self) as show:
            while self.step < self.total and not self.stopped:
                self._step_started = time.perf_counter()
                yield self.step
                show()

    def draw(self) -> list[Example]:
        """The examples of this step, the same in every process."""
        return self.sampler.draw(self.settings.batch_size)

    def parts(self, batch: Sequence[Example]) -> list[list[Example]]:
        """This process's share of a batch, cut into parts that fit `pack_tokens`.

        Sharded processes meet at every forward, so all get as many parts; the surplus weighs nothing.
        """
        found = self.cut(batch[self.rank :: self.world])
        if self.sharded:
            most = torch.tensor(len(found), device=self.device)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            found += [[replace(batch[0], weight=0.0)]] * (int(most) - len(found))
        return found

    def cut(self, examples: Sequence[Example]) -> list[list[Example]]:
        """Examples in parts that fit `pack_tokens`, common prefixes side by side."""
        groups = micro_batches([e.item for e in examples], self.settings.pack_tokens, self.policy.shares)
        return [[examples[i] for i in group] for group in groups]

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 where asked for, or where the machine multiplies it fast."""
        wanted = self.settings.precision == "bf16" or (self.settings.precision == "auto" and _fast_bf16(self.device))
        return torch.autocast(self.device.type, torch.bfloat16) if wanted else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one part of the batch; FSDP averages over processes, we sum."""
        (loss * self.world if self.sharded else loss).backward()  # type: ignore[no-untyped-call]

    def apply(self) -> tuple[float, float]:
        """Apply the gradients; returns their norm and the learning rate."""
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        if self.world > 1 and not self.sharded:
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dist.all_reduce(parameter.grad)
        norm = _whole(torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm))
        rate = self._rate()
        if not math.isfinite(norm):
            raise PiarError(
                f"The gradient of step {self.step + 1} is {norm}: nothing was updated.",
                "Lower learning_rate, or train with precision = fp32; --resume goes on from the last checkpoint.",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm, rate

    def update(self, tokens: int, **metrics: float) -> None:
        """Apply the gradients, count, log, save. Every step ends here, once."""
        norm, rate = self.apply()
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        seconds = time.perf_counter() - self._step_started
        self.metrics |= {
            **metrics, "grad_norm": norm, "learning_rate": rate, "num_tokens": self.tokens, "step_time": seconds,
            "tokens_per_second": tokens / seconds, "memory_mb": _memory_mb(self.device),
        }  # fmt: skip
        self._keep_up()

    def _rate(self) -> float:
        peak = self.settings.learning_rate or (3e-3 if self.from_nothing else 2e-4 if self.student.lora else 2e-5)
        return cosine(peak, self.step, self.total, warmup=self.settings.warmup)

    def _keep_up(self) -> None:
        settings, last = self.settings, self.step == self.total
        if settings.eval_every and self.step % settings.eval_every == 0 and not last:
            self.metrics |= self.evaluate()
        if self.step % settings.log_every == 0 or last:
            self._log()
        if settings.save_every and self.step % settings.save_every == 0 and not last:
            self.save()

    def _log(self) -> None:
        if self.rank == 0:
            record = {"step": self.step, **{k: round(v, 6) for k, v in self.metrics.items()}}
            with (self.out / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if self.settings.tensorboard:
                self._board(record)

    def _board(self, record: dict[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(self.out / "tensorboard") as writer:
            for name, value in record.items():
                writer.add_scalar(name, value, self.step)

    # --- measuring, saving, resuming ---

    def evaluate(self) -> dict[str, float]:
        """Headline metrics of the first token on every evaluation split, with intervals by group."""
        if self.sharded:
            return {}  # rank 0 would gather alone; score the checkpoint instead
        found: dict[str, float] = {}
        for split, examples in self.corpus.evaluation.items():
            if examples:
                found |= measure(self.policy, examples, self.grade_ids, self.task, prefix=f"{split}/")
        return found

    def save(self, name: str = "", *, state: bool = True) -> Path:
        """Write a checkpoint; `name` defaults to `checkpoint-STEP`."""
        folder = self.out / (name or f"checkpoint-{self.step}")
        weights, moments = _gather(self.policy, self.optimizer, self.sharded)
        generators = self._generators()
        if self.rank == 0:
            kept = {
                "step": self.step, "tokens": self.tokens, "optimizer": moments, "sampler": self.sampler.state_dict(),
                "generators": generators, "extra": self.extra, "settings": self._settings(),
                "shards": self.corpus.digest,
                "adapters": {k: v for k, v in weights.items() if "lora_" in k},
            }  # fmt: skip
            plain = _plain(weights, self.student.lora)
            checkpoint.save(folder, self.policy.lm, self.tokenizer, self.card, kept if state else None, weights=plain)
            if not name:
                checkpoint.prune(self.out, self.settings.keep)
        if self.world > 1:
            dist.barrier()
        return folder

    def _generators(self) -> list[list[Tensor]]:
        mine = [torch.get_rng_state(), self.generator.get_state()]
        if self.world == 1:
            return [mine]
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, mine)
        return everyone

    def _settings(self) -> dict[str, Any]:
        free = {"save_every", "eval_every", "log_every", "keep", "pack_tokens", "tensorboard"}
        network = {f"student.{name}": value for name, value in self.student.model_dump().items()}
        return {**self.settings.model_dump(exclude=free), **network}

    def _restore(self, folder: Path) -> None:
        state = checkpoint.load_state(folder)
        changed = [k for k, v in self._settings().items() if state["settings"].get(k) != v]
        if changed:
            raise PiarError(f"The run in {self.out} was started with other settings ({', '.join(changed)}).",
                            "Resume with the settings it started with, or train into another folder.")  # fmt: skip
        if state["shards"] != self.corpus.digest:
            raise PiarError(f"The shards changed since the run in {self.out} started.",
                            "Resume with the same shards, or train into another folder.")  # fmt: skip
        self.sampler.load_state_dict(state["sampler"])
        _scatter(self.policy, self.optimizer, state, self.sharded)
        self.step, self.tokens, self.extra = state["step"], state["tokens"], state["extra"]
        torch.set_rng_state(state["generators"][self.rank][0])
        self.generator.set_state(state["generators"][self.rank][1])
        if self.rank == 0 and (self.out / METRICS).exists():
            lines = (self.out / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.step]
            (self.out / METRICS).write_text("".join(kept), encoding="utf-8")

    def finish(self) -> Trained:
        """Measure and write `final/`; a run that was stopped leaves a checkpoint to resume from."""
        if self.stopped:
            return Trained(self.save(), self.step, self.metrics, True, self.corpus.left_out)
        self.metrics |= self.evaluate()
        self._log()
        return Trained(self.save("final", state=False), self.step, self.metrics, False, self.corpus.left_out)


def cosine(peak: float, step: int, total: int, *, warmup: float) -> float:
    """The learning rate of a step: rising over a share of all steps, then along a cosine to a tenth of the peak."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (0.55 + 0.45 * math.cos(math.pi * (step - rising) / max(1, total - rising)))


def make_policy(
    student: StudentSettings, shards: Path, seed: int, device: torch.device,
    *, last: Path | None = None, tokenizer_from: str = "",
) -> tuple[Policy, Any, bool]:  # fmt: skip
    """The policy to train, its tokenizer, and whether it was made from nothing.

    Args:
        last: a checkpoint to go on from.
        tokenizer_from: a folder whose tokenizer a tiny student takes.
    """
    tiny = student.model == "tiny"
    if not tiny or (last is not None and not student.lora):
        source = student.model if last is None or student.lora else str(last)
        policy, tokenizer = load_policy(source, device=str(device))
        return policy, tokenizer, tiny
    if tokenizer_from:
        tokenizer = load_tokenizer(tokenizer_from)
    else:
        manifest = read_manifest(shards, verify=False)
        repeated = phrases(manifest.task, [rule.id for rule in manifest.rules])
        tokenizer = tiny_tokenizer(texts(shards), manifest.task.symbols, student.vocab_size, repeated)
    words = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    lm = tiny_model(len(tokenizer), hidden=student.hidden, layers=student.layers, eos=end_id(tokenizer), seed=seed,
                    words=words)  # fmt: skip
    return wrap(lm.to(device)), tokenizer, True


def _previous(out: Path, resume: bool) -> Path | None:
    out.mkdir(parents=True, exist_ok=True)
    if not resume and any(out.glob("checkpoint-*")):
        raise PiarError(
            f"{out} already holds a run.", "Add --resume to go on with it, or choose another folder with -o."
        )
    return checkpoint.latest(out) if resume else None


def _optimizer(policy: Policy, settings: TrainSettings) -> torch.optim.Optimizer:
    trained = [p for p in policy.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=1e-3, betas=(0.9, 0.98))


def _add_lora(lm: Any, rank: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"), lm
    )


def _gather(policy: Policy, optimizer: torch.optim.Optimizer, sharded: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whole weights and optimizer state; sharded ones come together in rank 0."""
    if not sharded:
        return policy.state_dict(), optimizer.state_dict()
    from torch.distributed.checkpoint import state_dict as dcp  # slow to import

    return dcp.get_state_dict(policy, optimizer, options=dcp.StateDictOptions(full_state_dict=True, cpu_offload=True))


def _scatter(policy: Policy, optimizer: torch.optim.Optimizer, state: dict[str, Any], sharded: bool) -> None:
    if not sharded:
        policy.load_state_dict(state["adapters"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        return
    from torch.distributed.checkpoint import state_dict as dcp

    options = dcp.StateDictOptions(full_state_dict=True, strict=False)
    if state["adapters"]:
        dcp.set_model_state_dict(policy, state["adapters"], options=options)
    dcp.set_optimizer_state_dict(policy, optimizer, state["optimizer"], options=options)


def _plain(weights: dict[str, Any], lora: int) -> dict[str, Any]:
    """Weights by the stock model's names, adapters (whose scale is 2) merged in."""
    plain = {k.removeprefix("lm."): v for k, v in weights.items()}
    if not lora:
        return plain
    for name in [k for k in plain if k.endswith(".lora_A.default.weight")]:
        stem = name.removesuffix(".lora_A.default.weight")
        low = plain[f"{stem}.lora_B.default.weight"] @ plain[name]
        plain[f"{stem}.base_layer.weight"] = plain[f"{stem}.base_layer.weight"] + 2.0 * low
    return {k.replace(".base_layer", ""): v for k, v in plain.items() if "lora_" not in k}


def _join() -> tuple[int, int, torch.device]:
    """Rank, world size and device of this process; joins torchrun's group where there is one."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return int(os.environ.get("RANK", "0")), world, device


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())


def _whole(value: Tensor) -> float:
    return float(value.full_tensor() if hasattr(value, "full_tensor") else value)


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@contextmanager
def _signals(run: Run) -> Iterator[None]:
    """SIGTERM and SIGINT end the run after the step that is under way."""

    def stop(*_: Any) -> None:
        run.stopped = True

    try:
        before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread: signals are someone else's
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(run: Run) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[words]}"))  # fmt: skip
    with Progress(*columns, console=console, disable=run.rank > 0 or not console.is_terminal) as bar:
        job = bar.add_task(run.card.trainer, total=run.total, completed=run.step, words="")

        def show() -> None:
            m = run.metrics
            words = (
                f"loss {m.get('loss', math.nan):.3f} · {m['tokens_per_second']:,.0f} tok/s · {m['memory_mb']:,.0f} MB"
            )
            bar.update(job, completed=run.step, words=words)

        yield show
