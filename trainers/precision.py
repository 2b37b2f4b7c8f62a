"""In which numbers a model computes: float32, or bf16 where that is faster. Weights stay float32 while they learn.

`PIAR_PRECISION` (`fp32`, `bf16` or `auto`) stands above the settings, so that either can be forced on any machine.
"""

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, get_args

import torch

from store.errors import UsageError

SWITCH = "PIAR_PRECISION"
TRIM_STEPS = 2  # of a bf16 run on a CPU between two times that freed memory is given back; with ten it still grows
WIDE = 512  # narrower matrices gain less from bf16 than its conversions cost

Name = Literal["fp32", "bf16"]
Asked = Literal["auto", "fp32", "bf16"]


class Precision(NamedTuple):
    """In which numbers to compute, and why, in words for people."""

    name: Name
    why: str

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Computing in these numbers, for a model whose weights are float32."""
        return torch.autocast(device.type, torch.bfloat16) if self.name == "bf16" else nullcontext()


def switch() -> Asked | None:
    """What `PIAR_PRECISION` says, None where it is not set.

    Raises:
        UsageError: it says something else.
    """
    said = os.environ.get(SWITCH)
    found: Asked | None = next((name for name in get_args(Asked) if name == said), None)
    if said and found is None:
        raise UsageError(f"{SWITCH} is {said!r}.", "Set it to fp32, bf16 or auto, or unset it.")
    return found


def for_training(asked: Asked, lm: Any, device: torch.device) -> Precision:
    """How to train this model here: as `PIAR_PRECISION` says, else as asked, else what is faster.

    The choice depends on the machine and the model's width alone, never on a measurement: a run can be repeated.
    """
    forced = switch()
    if forced in ("fp32", "bf16"):
        return Precision(forced, f"{SWITCH} says so")
    if asked != "auto" and forced is None:
        return Precision(asked, "as set")
    width = lm.get_input_embeddings().weight.shape[1]
    if not _fast_bf16(device):
        return Precision("fp32", "this machine has no fast bf16")
    if width < WIDE:
        return Precision("fp32", f"a model {width} wide is too narrow to gain from bf16")
    return Precision("bf16", "this machine multiplies it faster")


def for_judging() -> torch.dtype:
    """Of the weights of a model that only judges: float32, unless `PIAR_PRECISION` forces bf16."""
    return torch.bfloat16 if switch() == "bf16" else torch.float32


def for_reading() -> torch.dtype:
    """Of the weights of a language model that is only read: bf16 where the machine multiplies it faster."""
    if (forced := switch()) in ("fp32", "bf16"):
        return torch.bfloat16 if forced == "bf16" else torch.float32
    return torch.bfloat16 if _fast_bf16(torch.device("cuda" if torch.cuda.is_available() else "cpu")) else torch.float32


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and fast)


def give_back() -> None:
    """Let go of memory that the C library keeps between blocks in use.

    In bf16 on CPUs kernels are made for new shapes and freed again all the time; what lies between them is of no use to
    anybody, and a run would grow by it for hours. Elsewhere than with glibc this does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
