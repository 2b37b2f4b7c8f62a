"""What experiments with students on the *simulated* shop measure alike."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.trainers.shop import Rows
from piar.judging.parquet_files import Pool
from piar.judging.session import Respondent
from piar.offline.teacher import RulebookClient
from store.manifest import Manifest
from store.task import Task
from store.types import Instruction
from trainers.rewards import case, evidence_reward, rulebook
from trainers.scoring import Student


def by_field(task: Task, rows: Rows) -> list[dict[str, str]]:
    """Rows of shards as a student reads them."""
    return [dict(zip(task.fields, row["fields"], strict=True)) for row in rows]


def trace_hits(student: Student, rows: Rows, manifest: Manifest) -> NDArray[np.bool_]:
    """[rows, 4]: the grade is true, the trace parses, it cites exactly the right rule, and it quotes verbatim."""
    rules, hits = rulebook(manifest), []
    for one, row in zip(student.score(by_field(student.task, rows), trace=True), rows, strict=True):
        tried = case(one.text or "", True, row, student.task, rules)
        cites = tried.trace is not None and list(tried.trace.rules) == list(row["rules"])
        hits.append([one.grade == row["grade"], tried.trace is not None, cites, bool(evidence_reward(tried))])
    return np.array(hits, dtype=bool).reshape(len(rows), 4)


def teacher_grades(folder: Path, name: str, task: Task, rows: Rows, instruction: Instruction) -> list[str | None]:
    """The offline teacher's grades under an instruction, None where it left a row open; asked once for each `name`."""
    asked, answered = folder / f"{name}-asked.parquet", folder / f"{name}-said.parquet"
    columns = {field: [row["fields"][i] for row in rows] for i, field in enumerate(task.fields)}
    pq.write_table(pa.table(columns), asked)
    Pool(task, Respondent(RulebookClient()), instruction).label(asked, answered)
    said: list[str | None] = pq.read_table(answered)["piar_grade"].to_pylist()
    return said


def milliseconds(way: Callable[[list[Any]], object], inputs: Sequence[Any]) -> list[float]:
    """On the clock, for each input alone."""
    taken = []
    for one in inputs:
        began = time.perf_counter()
        way([one])
        taken.append(1e3 * (time.perf_counter() - began))
    return taken
