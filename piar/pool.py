"""Pools that never enter the store: Parquet in, Parquet out, rows in order, memory bounded.

A file is judged in slices. Each slice has a small store of its own in a work folder beside the output, so
that an answer is durable when it arrives; a run that was cut short goes on at the slice it was in, asking only
what it does not have. The output appears when it is whole; a file whose output is there is skipped.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from piar.label import Batch, Labeller, LabelReport, LabelSettings, OnProgress, Progress
from piar.llm.base import Client
from piar.llm.connect import ModelSettings
from piar.llm.cost import Budget
from piar.votes import count, rounds
from store.db import Store
from store.errors import PiarError, UsageError
from store.files import replacing
from store.ids import sample_id
from store.journal import Journal
from store.task import Task
from store.types import Instruction, Sample, Usage, Verdict

SLICE_ROWS = 20_000
OUTPUT = pa.schema(
    [
        ("piar_grade", pa.string()),
        ("piar_probs", pa.list_(pa.float32())),
        ("piar_votes", pa.int32()),
        ("piar_rules", pa.list_(pa.string())),
        ("piar_evidence", pa.list_(pa.string())),
        ("piar_failure", pa.string()),
    ]
)


@dataclass
class PoolReport:
    """What judging pools did.

    Attributes:
        rows: rows judged so far.
        cached: verdicts that an earlier run of the same command had paid for.
        labelled: requests that have a grade.
        failed: class of failure -> requests.
    """

    files: int = 0
    skipped: int = 0
    rows: int = 0
    asked: int = 0
    cached: int = 0
    labelled: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0

    def add(self, done: LabelReport, rows: int) -> None:
        """Count a slice of this many rows."""
        self.rows += rows
        self.failed.update(done.failed)
        for name in ("asked", "cached", "labelled", "cost_usd", "tokens_in", "tokens_cached", "tokens_out"):
            setattr(self, name, getattr(self, name) + getattr(done, name))

    def with_slice(self, now: Progress, rows_after: int, votes: int) -> Progress:
        """How far all is when the present slice is as far as `now`, with this many rows after it."""
        usage, done = now.usage, self.asked + self.cached
        return Progress(
            done + now.done,
            None if now.total is None else done + now.total + rows_after * votes,
            self.cost_usd + now.cost_usd,
            self.failed + Counter(now.failed),
            self.asked + now.asked,
            Usage(self.tokens_in + usage.prompt, self.tokens_cached + usage.cached, self.tokens_out + usage.completion),
        )


@dataclass(frozen=True)
class Pool:
    """How to judge the rows of Parquet files.

    Attributes:
        prompts: the project's folder of template overrides.
        slice_rows: rows judged, and held in memory, at a time.
    """

    task: Task
    client: Client
    instruction: Instruction
    model: ModelSettings
    settings: LabelSettings = field(default_factory=LabelSettings)
    budget: Budget | None = None
    prompts: Path | None = None
    slice_rows: int = SLICE_ROWS

    def label(self, source: Path, target: Path, on_progress: OnProgress = lambda progress: None) -> PoolReport:
        """Judge every row of a file; the output has its columns and those of `OUTPUT`.

        Raises:
            UsageError: no Parquet file, or one that lacks a field of the task.
            PiarError: the judge cannot be asked at all, or the budget is spent; what is paid for is kept.
        """
        report = PoolReport(files=1)
        if target.exists():
            report.skipped = 1
            return report
        file, work = _open(source, self.task), target.with_name(f"{target.name}.work")
        first_votes = len(rounds(self.settings.votes, self.settings.sure)[0])
        schema = file.schema_arrow
        for column in OUTPUT:
            schema = schema.append(column)
        with replacing(target) as draft, pq.ParquetWriter(draft, schema) as writer:
            for number, rows in enumerate(_slices(file, self.slice_rows)):
                rows_after = file.metadata.num_rows - report.rows - rows.num_rows

                def show(now: Progress, rows_after: int = rows_after) -> None:
                    on_progress(report.with_slice(now, rows_after, first_votes))

                writer.write_table(self._judge(rows, work / f"{number:05}", report, show))
            if report.failed["budget"]:
                raise PiarError(
                    f"The budget is spent: {report.failed['budget']:,} rows of {source.name} were not asked.",
                    "Run the same command with a larger --max-usd; what is answered is kept.",
                )
        shutil.rmtree(work)
        return report

    def _judge(self, rows: pa.Table, work: Path, report: PoolReport, show: OnProgress) -> pa.Table:
        samples = list(_samples(rows, self.task))
        said: dict[str, dict[int, Verdict]] = {sample.id: {} for sample in samples}
        work.mkdir(parents=True, exist_ok=True)
        journal = Journal(work / "journal")
        store = Store.create(work / "piar.duckdb", self.task)
        with Labeller(
            store, self.client, journal, run_id="pool", budget=self.budget, model=self.model, prompts=self.prompts,
            settings=self.settings, on_progress=show,
        ) as labeller:  # fmt: skip
            batch = Batch(self.instruction, samples, self.settings.votes, self.settings.sure)
            done = labeller.judge([batch], lambda verdict: said[verdict.sample_id].update({verdict.vote: verdict}))
        journal.close()
        report.add(done, len(samples))
        return _with_verdicts(rows, [list(said[sample.id].values()) for sample in samples], self.task)


def _open(source: Path, task: Task) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(source)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{source} cannot be read as Parquet: {error}", "Pass a .parquet file.") from None
    names = file.schema_arrow.names
    missing = [name for name in task.fields if name not in names]
    if missing:
        raise UsageError(
            f"{source.name} has no column {missing[0]!r}; it has {', '.join(names)}.",
            f"Rename its columns to the task's fields: {', '.join(task.fields)}.",
        )
    taken = [column.name for column in OUTPUT if column.name in names]
    if taken:
        raise UsageError(f"{source.name} has a column {taken[0]!r} already.", "Drop it, or pass the original file.")
    return file


def _slices(file: pq.ParquetFile, rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `rows` rows but the last, whatever the file's row groups are."""
    for batch in file.iter_batches(batch_size=rows):
        yield pa.Table.from_batches([batch])


def _samples(rows: pa.Table, task: Task) -> Iterator[Sample]:
    columns = [[_text(value) for value in rows[name].to_pylist()] for name in task.fields]
    groups = [_text(v) for v in rows[task.group_by].to_pylist()] if task.group_by in rows.column_names else None
    for place, values in enumerate(zip(*columns, strict=True)):
        group = groups[place] if groups else ""
        yield Sample(sample_id(group, values), group, dict(zip(task.fields, values, strict=True)))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _with_verdicts(rows: pa.Table, votes: list[list[Verdict]], task: Task) -> pa.Table:
    """The rows with what their votes come to; reasons are those of the first vote for the grade."""
    tallies = [count(said, task.symbols) for said in votes]
    first = [
        next((v for v in said if v.grade == tally.grade), said[0]) for said, tally in zip(votes, tallies, strict=True)
    ]
    values: list[list[Any]] = [
        [tally.grade for tally in tallies],
        [tally.probs if tally.told else None for tally in tallies],
        [len(said) for said in votes],
        [verdict.trace and verdict.trace.rules for verdict in first],
        [verdict.trace and verdict.trace.evidence for verdict in first],
        [verdict.failure for verdict in first],
    ]
    for column, data in zip(OUTPUT, values, strict=True):
        rows = rows.append_column(column, pa.array(data, column.type))
    return rows
