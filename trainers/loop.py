"""What all trainers share around their loops: optimizer, schedule, saving, resuming, metrics, processes.

A `Run` makes every process under torchrun follow the same plan: each reads the whole batch, computes
its own share, and losses are divided by counts over the whole batch, so the update does not depend
on the number of processes or on how a batch is cut. Left out: gradient scaling for fp16, tensor and pipeline
parallelism, elastic restarts (resume does that).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from store.calibration import Fit
from store.errors import PiarError
from store.figures import many
from trainers import budget, checkpoint, early, resuming
from trainers.checkpoint import StudentCard
from trainers.config import Completion, StudentSettings, TrainSettings
from trainers.data import Corpus, Example, Sampler, micro_batches, read_corpus
from trainers.early import DEV
from trainers.head import decoder
from trainers.layout import labels
from trainers.logs import RunLog, memory_mb, progress, say
from trainers.model import beginnings, context, symbol_ids
from trainers.precision import TRIM_STEPS, for_training, give_back
from trainers.processes import Interrupted, interrupt, join, signals
from trainers.scoring import calibration, headline, opinions
from trainers.weights import (
    add_lora,
    cosine,
    gather,
    make_optimizer,
    make_policy,
    plain_weights,
    sum_gradients,
    transposed,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """What a training run left behind."""

    checkpoint: Path
    steps: int
    metrics: dict[str, float]
    stopped: bool = False
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> rows
    precision: str = "fp32"
    calibration: Fit | None = None  # of the grade's probabilities on dev; kept in the card where it helps
    kept: int | None = None  # the step whose weights were kept


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
        self,
        trainer: str,
        shards: Path,
        out: Path,
        student: StudentSettings,
        settings: TrainSettings,
        *,
        completion: Completion = "trace",
        tokenizer_from: str = "",
        resume: bool = False,
    ) -> None:
        self.out, self.settings, self.student = out, settings, student
        self.rank, self.world, self.device = join()
        last = resuming.previous(out, resume)
        if resume and last is None and self.rank == 0:
            say(f"{trainer}: {out} holds no whole checkpoint to go on from, so this run begins")
        self.policy, self.tokenizer, self.from_nothing = make_policy(
            student, shards, settings.seed, self.device, last=last, tokenizer_from=tokenizer_from
        )
        self.precision = self._told(for_training(settings.precision, self.policy.lm, self.device))[0]
        longest = min(settings.max_length, context(self.policy.lm) or settings.max_length)
        self.corpus: Corpus = read_corpus(shards, self.tokenizer, max_length=longest, completion=completion)
        self.task = self.corpus.manifest.task
        self.grade_ids = torch.tensor(symbol_ids(self.tokenizer, self.task.symbols), device=self.device)
        self.card = StudentCard.of(
            self.corpus.manifest, completion=completion, trainer=trainer, base=student.model, shards=self.corpus.digest
        )
        epochs = settings.epochs or (6.0 if self.from_nothing else 1.0)
        self.total = settings.steps or math.ceil(len(self.corpus.train) * epochs / settings.batch_size)
        self.peak = settings.learning_rate or (3e-3 if self.from_nothing else 2e-4 if student.lora else 2e-5)
        self.sampler = Sampler(self.corpus, self.total * settings.batch_size, seed=settings.seed, order=settings.order)
        self.generator = torch.Generator(self.device).manual_seed(settings.seed + self.rank)
        self._prepare()
        self.optimizer = make_optimizer(self.policy, settings)
        self.step, self.tokens, self.stopped, self._signalled = 0, 0, False, False
        self.metrics: dict[str, float] = {}  # the newest of each; `_unlogged`: since the log's last line
        self._unlogged: dict[str, float] = {}
        self.opinions: dict[str, NDArray[np.float64]] = {}  # evaluation split -> [rows, K] when it was last measured
        self.extra: dict[str, Any] = {}  # a trainer's own state; saved with the rest
        self.best = early.Best(out, settings.patience) if settings.patience else None
        if self.best:
            early.refuse_without(self.corpus.evaluation, sharded=self.sharded)
        self.eval_every = settings.eval_every or (math.ceil(self.total / early.LOOKS) if self.best else 0)
        self.writes = RunLog(out, tensorboard=settings.tensorboard) if self.rank == 0 else None
        if last is not None:
            resuming.restore(self, last)
        if self.writes:
            self.writes.forget_after(self.step)
        self.forecast = budget.foresee(self)

    def _prepare(self) -> None:
        torch.manual_seed(self.settings.seed)  # adapters start from random weights, the same in every process
        if self.student.lora:
            add_lora(self.policy.lm, self.student.lora)
        if self.student.checkpointing:
            self.policy.lm.activation_checkpointing_enable({"use_reentrant": False})
        self.sharded = self.student.shard and self.world > 1
        if self.sharded:
            from torch.distributed.fsdp import fully_shard

            for layer in decoder(self.policy.lm).layers:
                fully_shard(layer)
            fully_shard(self.policy)
        self.policy.train()

    def steps(self) -> Iterator[int]:
        """Step numbers still to do; ends early, after a whole step, on SIGTERM or SIGINT."""
        if self.writes:
            say(f"{self.card.trainer}: {many(self.total, 'step')} in {self.precision.name} ({self.precision.why})")
            say(f"{self.card.trainer}: up to {self.forecast.needs}")
            if long := beginnings(self.tokenizer, self.task.symbols):
                read = ", ".join(f"{symbol} at {start!r}" for symbol, start in long.items())
                say(f"{self.card.trainer}: grades of several tokens are read at their first: {read}")
        with signals(self._stop), progress(self.card.trainer, self.step, self.total, quiet=self.rank > 0) as show:
            while self.step < self.total and not (self.stopped or self.enough):
                self._step_started = time.perf_counter()
                self._before = self.sampler.position, torch.get_rng_state(), self.generator.get_state()
                yield self.step
                show(self.step, self.metrics)

    @contextmanager
    def unmade(self) -> Iterator[None]:
        """A part of a step that changes no weights: a signal ends it at once, and the run is as it was before the step.

        Of several processes each would wait for the others, so they go on to the end of the step.
        """
        if self.world > 1:
            yield
            return
        try:
            with signals(interrupt):
                yield
        except Interrupted:
            self.stopped = True
            self.sampler.position, drawn, rollouts = self._before
            torch.set_rng_state(drawn)
            self.generator.set_state(rollouts)

    def _stop(self) -> None:
        self._signalled = True

    @property
    def enough(self) -> bool:
        """Whether dev has not become better for long enough, see `trainers.early`."""
        return self.best is not None and self.best.enough

    def draw(self) -> list[Example]:
        """The examples of this step, the same in every process."""
        return self.sampler.draw(self.settings.batch_size)

    def parts(self, batch: Sequence[Example]) -> list[list[Example]]:
        """This process's share of a batch, cut into parts that fit `pack_tokens`.

        Sharded processes meet at every forward, so all get as many parts; the surplus weighs nothing.
        """
        found = self.cut(batch[self.rank :: self.world])
        if self.sharded:
            found += [[replace(batch[0], weight=0.0)]] * (max(self._told(len(found))) - len(found))
        return found

    def cut(self, examples: Sequence[Example]) -> list[list[Example]]:
        """Examples in parts that fit `pack_tokens`, common prefixes side by side."""
        groups = micro_batches([e.item for e in examples], self.settings.pack_tokens, self.policy.window)
        return [[examples[i] for i in group] for group in groups]

    def autocast(self) -> AbstractContextManager[Any]:
        """Computing in the run's precision."""
        return self.precision.autocast(self.device)

    def learn(
        self,
        batch: Sequence[Example],
        terms_of: Callable[..., tuple[Tensor, ...]],
        count: int,
        *,
        scale: float = 1.0,
    ) -> tuple[list[float], int]:
        """Add the gradients of a loss that is a sum of terms, in parts that fit `pack_tokens`.

        Args:
            terms_of: the `count` terms of a part from `(hidden [n, h], head [V, h], part=, rows=)`, each divided by
                a count over the whole batch.
            scale: multiplies the gradients, not what is returned.

        Returns:
            The terms, their mean over processes being the batch's, and the tokens computed in this process.
        """
        sums, tokens = torch.zeros(count), 0
        for part in self.parts(batch):
            packs = self.policy.pack([e.item for e in part])
            with self.autocast():
                terms = torch.stack(self.policy(packs, partial(terms_of, part=part, rows=labels(packs, self.device))))
            self.backward(scale * terms.sum())
            sums += terms.detach().cpu()
            tokens += sum(len(one.tokens) for one in packs)
        return (sums * self.world).tolist(), tokens

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one part of the batch; FSDP averages over processes, we sum."""
        (loss * self.world if self.sharded else loss).backward()  # type: ignore[no-untyped-call]

    def apply(self) -> tuple[float, float]:
        """Apply the gradients; returns their norm and the learning rate."""
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        if self.world > 1 and not self.sharded:
            sum_gradients(parameters)
        total = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        norm = float(total.full_tensor() if hasattr(total, "full_tensor") else total)  # whole, where it is sharded
        rate = cosine(self.peak, self.step, self.total, warmup=self.settings.warmup)
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
        """Apply the gradients, count, log, save. Every step ends here, once.

        Args:
            tokens: computed in this process.
            metrics: of this process; what is logged is the mean over processes.
        """
        norm, rate = self.apply()
        tokens, metrics = self._together(tokens, metrics)
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        if self.precision.name == "bf16" and self.device.type == "cpu" and self.step % TRIM_STEPS == 0:
            give_back()
        seconds = time.perf_counter() - self._step_started
        if (words := self.forecast.after_step(seconds)) and self.writes:
            say(f"{self.card.trainer}: {words}")
        self._note(
            {
                **metrics,
                "grad_norm": norm,
                "learning_rate": rate,
                "num_tokens": self.tokens,
                "step_time": seconds,
                "tokens_per_second": tokens / seconds,
                "memory_mb": memory_mb(self.device),
            }
        )
        settings = self.settings
        if self.step == self.total:  # `finish` does the rest
            return
        measures = self.eval_every and self.step % self.eval_every == 0
        if measures:
            self._look()
        if measures or self.step % settings.log_every == 0:
            self._log()
        if settings.save_every and self.step % settings.save_every == 0:
            self.save()

    def _look(self) -> None:
        """Measure, and see whether dev became better; all processes go by what the first one found."""
        self._note(self.evaluate())
        if self.best:
            [loss, *_] = self._told(self.metrics.get(early.LOSS, math.nan))
            self.best.look(self.step, loss, self.policy, writes=self.writes is not None)

    def _together(self, tokens: int, metrics: dict[str, float]) -> tuple[int, dict[str, float]]:
        """Tokens of all processes and the mean of their metrics; they also agree here whether to stop."""
        told = self._told((tokens, metrics, self._signalled))
        self.stopped = self.stopped or any(signalled for *_, signalled in told)
        by_name: dict[str, list[float]] = {}
        for _, found, _ in told:
            for name, value in found.items():
                by_name.setdefault(name, []).append(value)
        return sum(count for count, *_ in told), {name: sum(v) / len(v) for name, v in by_name.items()}

    def _told(self, mine: T) -> list[T]:
        """What every process says here, by rank."""
        told = [mine] * self.world
        if self.world > 1:
            dist.all_gather_object(told, mine)
        return told

    def _note(self, found: dict[str, float]) -> None:
        self.metrics |= found
        self._unlogged |= found

    def _log(self) -> None:
        if self.writes and self._unlogged:
            self.writes.write(self.step, self._unlogged)
        self._unlogged = {}

    @property
    def shows(self) -> bool:
        """Whether the step under way will be logged, and this process writes the log."""
        after = self.step + 1
        return self.writes is not None and (after % self.settings.log_every == 0 or after == self.total)

    def evaluate(self) -> dict[str, float]:
        """Headline metrics of the first token on every evaluation split, with intervals by group."""
        if self.sharded:
            return {}  # rank 0 would gather alone; score the checkpoint instead
        found: dict[str, float] = {}
        for split, examples in self.corpus.evaluation.items():
            if not examples:
                continue
            with progress(f"measuring {split}", 0, len(examples), quiet=self.rank > 0) as show:
                probs = opinions(self.policy, examples, self.grade_ids, on_progress=show)
            groups, gold = [e.group for e in examples], [e.grade for e in examples]
            found |= headline(groups, gold, probs, self.task, prefix=f"{split}/")
            self.opinions[split] = probs
        return found

    def save(self, *, final: bool = False) -> Path:
        """Write `checkpoint-STEP` with what a resume needs, or `final` without it."""
        folder = self.out / ("final" if final else f"checkpoint-{self.step}")
        weights, moments = gather(self.policy, self.optimizer, self.sharded)
        generators = self._told([torch.get_rng_state(), self.generator.get_state()])
        if self.rank == 0:
            state = resuming.state_of(self, weights, moments, generators)
            plain = plain_weights(weights, self.student.lora, transposed=transposed(self.policy.lm))
            checkpoint.save(folder, self.policy.lm, self.tokenizer, self.card, None if final else state, weights=plain)
            checkpoint.prune(self.out, self.settings.keep)
        if self.world > 1:
            dist.barrier()
        return folder

    def finish(self) -> Trained:
        """Measure, calibrate and write `final/`; a run that was stopped leaves a checkpoint to resume from."""
        found: Fit | None = None
        kept = self.step
        if self.writes:
            say(f"{self.card.trainer}: {self.forecast.compared(memory_mb(self.device))}")
        if not self.stopped:
            try:
                with signals(interrupt) if self.world == 1 else nullcontext():  # others would wait for this process
                    kept = self._measured()
            except Interrupted:  # the steps are made: a resume measures alone
                self.stopped = True
        if not self.stopped:
            measured = {name: value for name, value in self.metrics.items() if "/" in name}
            if DEV in self.opinions:
                found = calibration(self.corpus.evaluation[DEV], self.opinions[DEV])
            self.card = self.card.model_copy(update={"metrics": measured, "calibration": found and found.kept})
        self._log()
        folder = self.save(final=not self.stopped)
        if self.best and not self.stopped and self.writes:
            self.best.file.unlink(missing_ok=True)
        return Trained(
            folder, self.step, self.metrics, self.stopped, self.corpus.left_out, self.precision.name, found, kept
        )

    def _measured(self) -> int:
        """Measure what will be kept; the step that it is of, with a word where it is not the last one."""
        if not self.enough:
            self._look()
        if not self.best or not self.best.recall(self.step, self.policy):
            return self.step
        last, state = self.metrics.get(early.LOSS, math.nan), self.best.state
        why = f"{self.best.patience} looks at dev found nothing better" if self.enough else "it has made all its steps"
        if self.writes:
            say(
                f"{self.card.trainer}: ends at step {self.step:,} of {self.total:,}, since {why}; keeps step "
                f"{state['step']:,}, whose loss on dev was {state['loss']:.3f} ({last:.3f} at the end)"
            )
        self._note(self.evaluate())
        return int(state["step"])
