"""What a run leaves to read: `metrics.jsonl`, TensorBoard where asked for, completions as Parquet, a progress bar."""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from store.clock import duration, pause
from store.errors import PiarError
from store.files import replacing

METRICS = "metrics.jsonl"


class RunLog:
    """The log of one run, written by its first process.

    Raises:
        PiarError: TensorBoard was asked for and is not installed.
    """

    def __init__(self, out: Path, *, tensorboard: bool = False) -> None:
        self.out = out
        self.board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise PiarError(
                    "TensorBoard is not installed.", "pip install tensorboard, or set tensorboard = false."
                ) from None
            self.board = SummaryWriter(out / "tensorboard")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Add a line of metrics."""
        record = {"step": step, **{name: round(value, 6) for name, value in metrics.items()}}
        with (self.out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self.board is not None:
            for name, value in metrics.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()

    def completions(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Write what was written at a step, one row a completion, as `completions/step-N.parquet`."""
        with replacing(self.out / "completions" / f"step-{step:06}.parquet") as draft:
            pq.write_table(pa.Table.from_pylist(list(rows)), draft)

    def forget_after(self, step: int) -> None:
        """Drop lines after a step that a resumed run will write again, and half lines."""
        path = self.out / METRICS
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            path.write_text("".join(kept), encoding="utf-8")


def memory_mb(device: torch.device) -> float:
    """Peak memory of this process, on the device that computes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@contextmanager
def progress(
    what: str, done: int, total: int, *, quiet: bool = False
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A bar on stderr, where that is a terminal, else a line now and then; yields what to tell a step and its metrics.

    Args:
        done: steps that were there before. The time left goes by the younger half of the steps after them: traces, and
            other work beside, make steps slower.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    if quiet or not console.is_terminal:
        yield (lambda step, metrics: None) if quiet else _lines(what, done, total)
        return
    with Progress(*columns, console=console) as bar:
        job = bar.add_task(what, total=total, completed=done, words="")

        def show(step: int, metrics: dict[str, float]) -> None:
            bar.update(job, completed=step, words=_words(metrics))

        yield show


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _lines(what: str, done: int, total: int) -> Callable[[int, dict[str, float]], None]:
    began = shown = time.monotonic()
    told = [(done, began)]  # each step that was told, and when

    def show(step: int, metrics: dict[str, float]) -> None:
        nonlocal shown
        now = time.monotonic()
        told.append((step, now))
        elapsed, (middle, then) = now - began, told[(len(told) - 1) // 2]
        if done < step < total and now - shown >= pause(elapsed):
            shown = now
            left = duration((now - then) / max(1, step - middle) * (total - step))
            parts = f"{what} {step:,} of {total:,}", duration(elapsed), f"{left} left", _words(metrics)
            say(" · ".join(filter(None, parts)))

    return show


def _words(metrics: dict[str, float]) -> str:
    figures = (("loss", "loss {:.3f}"), ("tokens_per_second", "{:,.0f} tok/s"), ("memory_mb", "{:,.0f} MB"))
    return " · ".join(words.format(metrics[name]) for name, words in figures if name in metrics)
