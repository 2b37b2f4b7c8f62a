"""One Parquet file judged: its rows in order with the verdicts beside its columns, memory bounded.

The output appears when it is whole. It says in its metadata what it was made of, so that grades of another judge or
file are not taken for those.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from piar.judging.votes import count
from store.errors import PiarError, UsageError
from store.files import replacing
from store.ids import sample_id
from store.task import Task
from store.types import Sample, Verdict

MADE = b"piar"  # key of an output's metadata: what it was made of
TIER = pa.field("piar_tier", pa.string())  # in the output of a cascade: who decided, `people` where nobody did
OUTPUT = pa.schema(
    [
        ("piar_grade", pa.string()),
        ("piar_probs", pa.list_(pa.float32())),
        ("piar_expected", pa.float64()),
        ("piar_votes", pa.int32()),
        ("piar_rules", pa.list_(pa.string())),
        ("piar_evidence", pa.list_(pa.string())),
        ("piar_failure", pa.string()),
    ]
)


@dataclass(frozen=True)
class Slice:
    """Some rows of a file: their place among its slices, and how many rows come after them."""

    number: int
    samples: list[Sample]
    rows_after: int


JudgeSlice = Callable[[Slice], list[list[Verdict]]]  # the votes on each sample


def judge_file(
    source: Path,
    target: Path,
    task: Task,
    judge: JudgeSlice,
    slice_rows: int,
    mark: str,
    more: Sequence[pa.Field] = (),
) -> tuple[int, int] | None:
    """Write `source` with the judge's verdicts beside its columns, unless `target` is there.

    Args:
        mark: a hash of all that shapes the judge's grades.
        more: columns beside those of `OUTPUT`: none, or `TIER`.

    Returns:
        How many rows were judged and how many of them have a grade; None where `target` is there.

    Raises:
        UsageError: no Parquet file, or one that lacks a field of the task.
        PiarError: `target` holds grades of another judge, or of another file.
    """
    file = _open(source, task)
    made = {"judge": mark, "rows": file.metadata.num_rows, "bytes": source.stat().st_size}
    if target.exists():
        _require(target, source, made)
        return None
    labelled, rows_after = 0, file.metadata.num_rows
    schema = file.schema_arrow
    schema = schema.with_metadata({**(schema.metadata or {}), MADE: json.dumps(made)})
    for column in (*OUTPUT, *more):
        schema = schema.append(column)
    with replacing(target) as draft, pq.ParquetWriter(draft, schema) as writer:
        for number, rows in enumerate(_slices(file, slice_rows)):
            rows_after -= rows.num_rows
            said = judge(Slice(number, list(_samples(rows, task)), rows_after))
            graded = _with_verdicts(rows, said, task)
            for column in more:
                tiers = [votes[0].judge.partition(":")[0] for votes in said]
                graded = graded.append_column(column, pa.array(tiers, column.type))
            writer.write_table(graded)
            labelled += rows.num_rows - graded["piar_grade"].null_count
    return file.metadata.num_rows, labelled


def _require(target: Path, source: Path, made: dict[str, Any]) -> None:
    """Make sure that grades which are there are those that would be made, as far as their file says it.

    Raises:
        PiarError: they are not.
    """
    try:
        earlier = json.loads((pq.read_schema(target).metadata or {})[MADE])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):  # of an earlier version, or of another program
        return
    changed = {key for key in made if earlier.get(key) != made[key]} if isinstance(earlier, dict) else {"judge"}
    if changed:
        what = "by another judge, or by this one before it changed" if "judge" in changed else f"of another {source}"
        raise PiarError(
            f"{target} holds grades that were made {what}.", "Choose another place with -o, or remove that file."
        )


def samples_of(source: Path, task: Task, slice_rows: int) -> Iterator[list[Sample]]:
    """The samples of a file, a slice at a time.

    Raises:
        UsageError: as `judge_file`.
    """
    for rows in _slices(_open(source, task), slice_rows):
        yield list(_samples(rows, task))


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
    taken = [column.name for column in (*OUTPUT, TIER) if column.name in names]
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
    worth = [grade.value for grade in task.grades]
    tallies = [count(said, task.symbols) for said in votes]
    first = [
        next((v for v in said if v.grade == tally.grade), said[0]) for said, tally in zip(votes, tallies, strict=True)
    ]
    values: list[list[Any]] = [
        [tally.grade for tally in tallies],
        [tally.probs if tally.told else None for tally in tallies],
        [sum(p * w for p, w in zip(tally.probs, worth, strict=True)) if tally.told else None for tally in tallies],
        [len(said) for said in votes],
        [verdict.trace and verdict.trace.rules for verdict in first],
        [verdict.trace and verdict.trace.evidence for verdict in first],
        [verdict.failure for verdict in first],
    ]
    for column, data in zip(OUTPUT, values, strict=True):
        rows = rows.append_column(column, pa.array(data, column.type))
    return rows
