"""A student's verdicts, on samples of the store or of a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from piar.judging.outcome import OnProgress, counted
from store.calibrated import student_folder
from store.db import Store
from store.errors import PiarError
from store.ids import content_id
from store.judges import Judge
from store.types import Sample, Verdict
from store.vectors import FOLDER

if TYPE_CHECKING:
    import polars as pl

    from trainers.students import AnyStudent


def student_of(store: Store, path: str, keep: Path | None = None) -> "AnyStudent":
    """A student that judges the store's samples: its grades are the task's, in the same order.

    Args:
        keep: see `trainers.students.load_student`.

    Raises:
        PiarError: no student there, or one that was taught other grades, or these in another order.
    """
    from trainers.students import load_student

    folder, own = student_folder(store, path), store.task.symbols
    student = load_student(folder, keep=keep)
    if (taught := student.task.symbols) != own:
        raise PiarError(
            f"The student in {folder} was taught the grades {', '.join(taught)}; this project has {', '.join(own)}.",
            "Train one on this project's shards, or give the grades of task.toml their order from then.",
        )
    return student


def let_student_judge(
    store: Store, path: str, asked: "pl.DataFrame", run_id: str, on_progress: OnProgress | None = None
) -> Judge:
    """Let a student judge samples (sample_id and the task's fields) by its first token.

    Its verdicts are recorded as its network has them; who reads them calibrates (`store.calibrated`).

    Raises:
        PiarError: see `student_of`.
    """
    judge, student = Judge(f"student:{path}"), student_of(store, path, keep=store.path.parent / FOLDER)
    done, symbols = counted(len(asked), on_progress), store.task.symbols

    def likeliest(probs: Sequence[float]) -> str:
        return symbols[max(range(len(probs)), key=probs.__getitem__)]

    found = student.score(asked.select(store.task.fields).to_dicts(), on_progress=done)
    verdicts = [
        Verdict(content_id(judge.name, sample_id), sample_id, judge.name, "", 0, likeliest(said.raw), said.raw)
        for sample_id, said in zip(asked["sample_id"], found, strict=True)
    ]
    store.record_verdicts(verdicts, run_id)
    return judge


def student_verdicts(
    student: "AnyStudent",
    name: str,
    samples: Sequence[Sample],
    *,
    trace: bool = False,
    on_progress: Callable[[int], None] = lambda n: None,
) -> list[Verdict]:
    """What a student says of samples."""
    found = student.score([sample.fields for sample in samples], trace=trace, on_progress=on_progress)
    return [
        Verdict(
            content_id(name, sample.id),
            sample.id,
            name,
            "",
            0,
            said.grade,
            tuple(said.probs),
            said.trace.trace if said.trace else None,
        )
        for sample, said in zip(samples, found, strict=True)
    ]
