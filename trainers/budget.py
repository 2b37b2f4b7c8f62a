"""What a run will take: memory by a formula before it starts, time by its second step; both are compared at its end.

Weights, gradients and AdamW's two moments are four bytes a number each. Activations are what a layer keeps for its
backward pass, counted by us in Llama-, Qwen- and Gemma-like layers (autograd's saved tensors, the largest of them, for
full training): `KEPT` bytes a token for each number of the hidden, the feed-forward and the heads' width. With
recomputed activations a layer keeps its input alone, and one layer is whole at a time.
"""

import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from store.clock import duration
from store.errors import PiarError
from store.figures import many
from trainers.config import GrpoSettings
from trainers.head import CHUNK, decoder
from trainers.logs import say

if TYPE_CHECKING:
    from trainers.loop import Run

KEPT = {"fp32": (40, 16, 28), "bf16": (52, 12, 28)}  # bytes: hidden, feed-forward, heads
LOGITS = 4  # copies of a chunk of logits in float32 that the loss and its gradient hold at once
SPARE = 1.25  # times what the formula says must be free where it is only near
MB = 1_000_000


@dataclass(frozen=True)
class Needs:
    """Bytes that a run takes beside what the process holds already."""

    held: int  # the process with its weights, before the first step
    learning: int  # gradients and moments
    activations: int
    logits: int

    @property
    def more(self) -> int:
        """What is still to be taken."""
        return self.learning + self.activations + self.logits

    @property
    def peak(self) -> int:
        """What the process will hold at most."""
        return self.held + self.more

    def __str__(self) -> str:
        parts = {
            "weights and libraries": self.held,
            "gradients and optimizer": self.learning,
            "activations": self.activations + self.logits,
        }
        return f"{self.peak / MB:,.0f} MB ({', '.join(f'{name} {size / MB:,.0f}' for name, size in parts.items())})"


def needs(
    lm: Any, *, tokens: int, rows: int, precision: str, recomputed: bool, device: torch.device, world: int = 1
) -> Needs:
    """What training a model takes.

    Args:
        tokens: computed at once.
        rows: labelled ones among them.
        recomputed: whether activations are recomputed.
        world: processes that share gradients and moments.
    """
    layers, layer, hidden = _layer(lm, precision)
    learnt = sum(p.numel() for p in lm.parameters() if p.requires_grad)
    kept = 4 * hidden * layers + layer if recomputed else layers * layer
    logits = min(rows * lm.get_output_embeddings().weight.shape[0], CHUNK)
    return Needs(held(device), 12 * learnt // world, tokens * kept, 4 * LOGITS * logits)


def mends(found: Needs, lm: Any, *, lora: int, recomputed: bool, precision: str) -> list[tuple[str, Needs]]:
    """Settings that lower what a run takes, in words, and what it takes with them."""
    layers, layer, hidden = _layer(lm, precision)
    lower = []
    if not lora:
        sides = sum(sum(p.shape) for p in decoder(lm).parameters() if p.ndim == 2)
        lower.append(("student.lora=16", replace(found, learning=12 * 16 * sides)))
    if not recomputed:
        kept = found.activations * (4 * hidden * layers + layer) // (layers * layer)
        lower.append(("student.checkpointing=true", replace(found, activations=kept)))
    if len(lower) == 2:
        both = replace(lower[0][1], activations=lower[1][1].activations)
        lower.append(("student.lora=16 and student.checkpointing=true", both))
    return lower


def _layer(lm: Any, precision: str) -> tuple[int, int, int]:
    """The number of layers, the bytes that one keeps of a token, and the hidden width."""
    text = lm.config.get_text_config()
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    inner, count = _widest(text, "intermediate_size") or 4 * hidden, _widest(text, "num_attention_heads") or 1
    heads = count * (_widest(text, "head_dim") or hidden // count)
    return layers, sum(a * width for a, width in zip(KEPT[precision], (hidden, inner, heads), strict=True)), hidden


def _widest(text: Any, name: str) -> int | None:
    """A size of a configuration, of layers that differ in it the largest; None where it says nothing."""
    try:
        found = getattr(text, name, None)
    except RuntimeError:  # as transformers refuses where it is no size of the whole
        found = max(getattr(one, name) for one in text.per_layer_config)
    return int(found) if isinstance(found, int) else None


def refuse_too_large(parameters: int, dtype: torch.dtype, model: str) -> None:
    """Make sure that a model's weights fit in memory before they are loaded.

    Raises:
        PiarError: they do not.
    """
    wanted, free = parameters * dtype.itemsize, available(torch.device("cpu"))
    if free is not None and wanted > free:
        raise PiarError(
            f"The weights of {model!r} take {wanted / MB:,.0f} MB in {str(dtype).removeprefix('torch.')}; "
            f"{free / MB:,.0f} MB of memory are free.",
            f"Use a model of at most {free / dtype.itemsize / 1e9:.1f} billion parameters here, or a machine with more "
            "memory.",
        )


def refuse_to_learn(model: torch.nn.Module, device: torch.device, mend: str) -> None:
    """Make sure that gradients and AdamW's moments of all weights fit in memory before the first step.

    Raises:
        PiarError: they do not.
    """
    wanted, free = 12 * sum(p.numel() for p in model.parameters()), available(device)
    if free is not None and wanted > free:
        raise PiarError(
            f"Training takes about {wanted / MB:,.0f} MB more, and {free / MB:,.0f} MB of memory are free.", mend
        )


def warning(found: Needs, lower: list[tuple[str, Needs]], free: int | None) -> str | None:
    """Words where a run might not fit in memory, with settings that help; None where it does.

    Args:
        lower: see `mends`.

    Raises:
        PiarError: gradients and optimizer alone do not fit, which is no estimate.
    """
    if free is None or found.more * SPARE <= free:
        return None
    helping = [f"{words} ({other.peak / MB:,.0f} MB)" for words, other in lower if other.more * SPARE <= free]
    mend = f"Set {', or '.join(helping)}." if helping else "Use a smaller model, or a machine with more memory."
    says = f"Training takes about {found.more / MB:,.0f} MB more, and {free / MB:,.0f} MB of memory are free"
    if found.learning > free:
        raise PiarError(f"{says}.", mend)
    return f"{says}: it may be ended by the system. {mend}"


class Forecast:
    """What is said of a run's memory and time before, during and after it.

    Args:
        left: steps to be made.
    """

    def __init__(self, found: Needs, left: int) -> None:
        self.needs, self.left, self.done = found, left, 0
        self.stage, self.warm = "", 0  # what is taught now, and the steps that taught it
        self.seconds = 0.0  # of all steps so far and of the rest of this stage, foreseen; 0 before it is
        self.began = time.monotonic()

    def begin(self, stage: str, left: int) -> None:
        """A trainer's word before a step: what it teaches. Steps that teach something else take another time.

        Args:
            left: steps of this stage still to be made.
        """
        if stage != self.stage:
            self.stage, self.left, self.warm = stage, left, 0

    def after_step(self, seconds: float) -> str | None:
        """Words after the second step of a stage, which is warm; None after others, and where few are left.

        Args:
            seconds: that the step took.
        """
        self.done, self.warm = self.done + 1, self.warm + 1
        if self.warm != 2 or self.left < 4:
            return None
        rest = (self.left - 2) * seconds
        self.seconds = time.monotonic() - self.began + rest
        what = many(self.left, "step") + (f" of {self.stage}" if self.stage else "")
        return f"about {duration(rest + 2 * seconds)} for {what}, by the second one ({seconds:,.2f} s)"

    def compared(self, peak_mb: float) -> str:
        """Words at the end."""
        took = duration(time.monotonic() - self.began)
        foreseen = f" ({duration(self.seconds)} foreseen)" if self.seconds else ""
        return (
            f"{many(self.done, 'step')} took {took} with measuring{foreseen}; peak {peak_mb:,.0f} MB "
            f"({self.needs.peak / MB:,.0f} foreseen)"
        )


def foresee(run: "Run") -> Forecast:
    """The forecast of a run that is ready to start; a word where its memory may not do.

    Raises:
        PiarError: its memory cannot do.
    """
    lm, student, settings, trainer = run.policy.lm, run.student, run.settings, run.card.trainer
    longest = sorted(e.item.depth for e in run.corpus.train)[-settings.batch_size :]
    written = 0  # tokens of rollouts
    if isinstance(settings, GrpoSettings):
        written = settings.batch_size * settings.rollouts * settings.max_tokens
    tokens = min(max(settings.pack_tokens, longest[-1]), sum(longest) + written)
    how: dict[str, Any] = {"precision": run.precision.name, "recomputed": student.checkpointing}
    found = needs(
        lm,
        tokens=tokens,
        rows=len(longest) if run.card.completion == "grade" and not written else tokens,
        device=run.device,
        world=run.world if run.sharded else 1,
        **how,
    )
    words = warning(found, mends(found, lm, lora=student.lora, **how), available(run.device))
    if words and run.writes:
        say(f"{trainer}: {words}")
    return Forecast(found, run.total - run.step)


def available(device: torch.device) -> int | None:
    """Free bytes on a device; None where the system does not say. A container's limit counts."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    system = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text(encoding="utf-8").strip() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        own = [int(limit) - int(used) + int(stat.get("inactive_file", 0))]
    except (OSError, ValueError):  # no such group, or one without a limit ("max")
        own = []
    return min([*own, *([system] if system is not None else [])], default=None)


def held(device: torch.device) -> int:
    """Bytes that this process holds on a device now; on CPUs 0 where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()
