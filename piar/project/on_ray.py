"""Pools on a cluster: Ray Data deals files to workers that load their judge once; the rest is as on one machine.

Needs the extra `ray`, piar in the environment of every machine, and folders that all of them see. A file is the unit:
its output is whole or not there. Ray starts a worker that dies again, and its file is judged again; a teacher goes on
at the slice that it was in, with what it has paid for. A job that died is run again, and leaves out what is there. The
store is read here, not by the workers. Left out: a cap over all workers; forecast what a pool asks on one machine.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piar.judging.parquet_files import Pool, PoolReport, by_name, score_files
from piar.judging.session import Respondent
from piar.judging.settings import LabelSettings
from piar.llm.settings import ModelSettings
from store.calibration import Calibration
from store.errors import PiarError, UsageError
from store.task import Task
from store.types import Instruction

if TYPE_CHECKING:
    from piar.project.workspace import Workspace

Judge = Callable[[Path, Path], PoolReport]  # a file, and the file of its grades


@dataclass(frozen=True)
class StudentJob:
    """What a worker needs to judge as a student."""

    student: Path
    name: str
    trace: bool

    def judge(self) -> Judge:
        """The student, loaded."""
        from trainers.checkpoint import fingerprint
        from trainers.students import load_student

        student, known = load_student(self.student), fingerprint(self.student)

        def judge(source: Path, target: Path) -> PoolReport:
            return score_files(student, [source], target.parent, name=self.name, fingerprint=known, trace=self.trace)

        return judge


@dataclass(frozen=True)
class TeacherJob:
    """What a worker needs to ask a teacher; keys stay in its own environment."""

    task: Task
    model: ModelSettings
    label: LabelSettings
    prompts: Path | None
    instruction: Instruction
    calibration: Calibration | None

    def judge(self) -> Judge:
        """The teacher, connected."""
        from piar.connect import connect

        respondent = Respondent(connect(self.model), self.model, self.label, self.prompts)
        return Pool(self.task, respondent, self.instruction, calibration=self.calibration).label


class Worker:
    """An actor of Ray Data."""

    def __init__(self, job: StudentJob | TeacherJob) -> None:
        self._judge = job.judge()

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Judge the file that a row names; why it could not be is told and stops no other."""
        try:
            return {"report": json.dumps(asdict(self._judge(Path(row["source"]), Path(row["target"])))), "error": ""}
        except PiarError as error:
            return {"report": "", "error": f"{row['source']}: {error}"}


def score_on_ray(
    student: Path, files: Sequence[Path], out: Path, *, trace: bool = False, workers: int = 2, **resources: float
) -> PoolReport:
    """Let a student judge Parquet files on a cluster, as `piar score --pool` does on one machine.

    Args:
        student: its folder. trace: also write the answer that follows the grade.
        out: gets a file of the same name for each.
        resources: of a worker, such as `num_gpus=1`; one CPU by default.

    Raises:
        PiarError: ray is missing, or files that could not be judged, when all others are.
        UsageError: two files of one name.
    """
    return _run(StudentJob(student.absolute(), f"student:{student}", trace), files, out, workers, resources)


def label_on_ray(
    project: "Workspace",
    files: Sequence[Path],
    out: Path,
    *,
    instruction: str | None = None,
    votes: int | None = None,
    sure: float | None = None,
    workers: int = 2,
    **resources: float,
) -> PoolReport:
    """Let the project's teacher judge Parquet files on a cluster, as `piar label POOL` does on one machine.

    Args and errors as of `score_on_ray` and `piar.project.labelling.label_pool`; `[label] neighbours` must be 0, since
    they are found in the store.
    """
    from piar.project.labelling import pool_of

    pool = pool_of(project, project.adopt_instruction(instruction), votes, sure)
    asked = pool.respondent
    if asked.neighbours is not None:
        raise UsageError("Neighbours are found in the store, which workers do not read.", "Set label.neighbours=0.")
    job = TeacherJob(pool.task, asked.model, asked.label, asked.prompts, pool.instruction, pool.calibration)
    return _run(job, files, out, workers, resources)


def _run(
    job: StudentJob | TeacherJob, files: Sequence[Path], out: Path, workers: int, resources: dict[str, float]
) -> PoolReport:
    try:
        import ray
    except ImportError:
        raise PiarError("This needs Ray Data.", "pip install 'piar[ray]' in the environment of the cluster.") from None
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    rows = [{"source": str(source.absolute()), "target": str(out / source.name)} for source in by_name(files)]
    dealt = ray.data.from_items(rows, override_num_blocks=len(rows)) if rows else ray.data.from_items([])
    how = {"num_cpus": 1.0} | resources
    told = dealt.map(Worker, fn_constructor_args=(job,), concurrency=workers, **how)
    report, errors = PoolReport(), []
    for row in told.iter_rows():
        if row["error"]:
            errors.append(row["error"])
        else:
            _add(report, json.loads(row["report"]))
    if errors:
        raise PiarError(
            f"{len(errors)} of {len(rows)} files could not be judged; the first: {errors[0]}",
            "Mend them and run it again: the others are done.",
        )
    return report


def _add(report: PoolReport, other: dict[str, Any]) -> None:
    """Count what one file came to."""
    for name in (field.name for field in fields(report)):
        mine, more = getattr(report, name), other[name]
        if isinstance(mine, bool):
            setattr(report, name, mine and more)
        elif isinstance(mine, str):
            setattr(report, name, more or mine)
        elif isinstance(mine, dict):
            mine.update(more)
        else:
            setattr(report, name, mine + more)
