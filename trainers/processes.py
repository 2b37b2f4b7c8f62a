"""The processes of a run under torchrun, and the signals that end it after a whole step."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist


def join() -> tuple[int, int, torch.device]:
    """Rank, world size and device of this process; joins torchrun's group where there is one."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return int(os.environ.get("RANK", "0")), world, device


class Interrupted(Exception):
    """A signal came while something was done that can be done again."""


def interrupt() -> None:
    """What `signals` calls there."""
    raise Interrupted


@contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop` for as long as the block runs."""

    def handle(*_: Any) -> None:
        stop()

    try:
        before = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread: signals are someone else's
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
