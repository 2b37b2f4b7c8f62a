"""From a file to a frame whose columns have roles: group, fields, truth, votes."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from piar.look.report import Columns
from store.agreement import vote_counts
from store.cells import MISSING
from store.columns import odd_grades
from store.errors import UsageError
from store.prepare import ImportMapping, as_the_file_says, prepare
from store.propose import MAX_GRADES, guess, propose_task, require_judged
from store.readers import Reading, read
from store.roles import bucketed
from store.shares import LIKELIEST, likeliest
from store.stats import Ints
from store.tables import Rejection, Table
from store.task import Task


@dataclass(frozen=True, slots=True)
class Material:
    """A file with its roles.

    Attributes:
        frame: `group`, `code` (a number for each group), the fields as `f0` …, `gold` (null when
            missing), `truth` (gold, else the majority of the raters), and a column for each rater.
        task: None when the file holds no grades.
        counts: (N, K) votes of the raters, None without raters.
        lead: (N,) position of the grade that more than half of two votes or more name, else -1.
        notes: how the file was read where that is not plain.
        fault: why the columns that should hold grades hold none, and what to do; or "".
    """

    frame: pl.DataFrame
    task: Task | None
    columns: Columns
    fields: tuple[str, ...]
    raters: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    counts: Ints | None
    lead: Ints | None
    notes: tuple[str, ...]
    fault: str = ""

    @property
    def mend(self) -> str:
        """The first option that the fault names, with its numbers; or ""."""
        found = re.search(r"--[a-z-]+(?: [\d.,]*\d)?", self.fault)
        return found[0] if found else ""


def load(
    path: Path,
    gold: str | None,
    raters: str | Sequence[str] | None,
    group: str | None,
    fields: Sequence[str] | None,
    reading: Reading | None = None,
    mapping: ImportMapping | None = None,
) -> Material:
    """Read a file and give its columns their roles; what is not said is guessed.

    Args:
        mapping: what else is said of the columns, as `init` takes it.

    Raises:
        UsageError: a named column is missing, or holds no grades.
    """
    table = replace(read(path, reading), votes=None, vote_columns=())  # votes of a Label Studio export are columns here
    said = as_the_file_says(_said(table.frame, gold, raters, group, fields, mapping or ImportMapping()), table)
    _check_grades(table.frame, said)
    found = guess(table.frame, said)
    mapping = found.mapping.model_copy(
        update={"fields": said.fields or {c: c for c in found.columns}, "annotator": None, "date": None}
    )
    if mapping.counts:  # of votes and probabilities the likeliest grade is looked at
        table, mapping = likeliest(table, mapping.counts), mapping.model_copy(update={"gold": LIKELIEST, "counts": ()})
    columns = Columns(
        gold=mapping.gold,
        raters=list(mapping.raters),
        group=mapping.group,
        fields=list(found.columns),
        guessed={role: reason for role, reason in found.reasons.items() if role != "fields" or not said.fields},
        unused=found.unused,
    )
    require_judged(table.frame, found)
    if not found.columns:
        return _without_grades(table, columns)
    try:
        task = propose_task(table.frame, mapping, name="look")
    except UsageError as error:
        odd = mapping.gold or mapping.raters or "gold" in found.unused
        return _without_grades(table, columns, f"{error.message} {error.fix}" if odd else "")
    if not (mapping.gold or mapping.raters):
        return _without_grades(table, columns)
    return _with_grades(table, task, mapping, columns)


def _said(
    frame: pl.DataFrame,
    gold: str | None,
    raters: str | Sequence[str] | None,
    group: str | None,
    fields: Sequence[str] | None,
    base: ImportMapping,
) -> ImportMapping:
    named = {f: f for f in fields} if fields else base.fields
    patterns = [raters] if isinstance(raters, str) else list(raters or ())
    patterns = [part.strip() for pattern in patterns for part in pattern.split(",") if part.strip()]
    chosen: list[str] = []
    for pattern in patterns:
        matches = [name for name in frame.columns if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise _no_column(pattern, frame)
        chosen += [name for name in matches if name not in chosen]
    for name in (gold, group, base.annotator, base.date, base.split, base.id, *base.counts, *named.values()):
        if name is not None and name not in frame.columns:
            raise _no_column(name, frame)
    raters_but_gold = tuple(n for n in chosen if n != gold)
    return base.model_copy(update={"gold": gold, "raters": raters_but_gold, "group": group, "fields": named})


def _no_column(name: str, frame: pl.DataFrame) -> UsageError:
    return UsageError(f"The file has no column {name!r}.", f"It has {', '.join(frame.columns)}.")


def _check_grades(frame: pl.DataFrame, said: ImportMapping) -> None:
    held = bucketed(frame, said)
    for name in (*([said.gold] if said.gold else []), *said.raters):
        values = {v.strip() for v in held[name].unique().to_list() if v.strip().lower() not in MISSING}
        if len(values) > MAX_GRADES:
            what, mend = odd_grades(held[name])
            raise UsageError(f"Column {name!r} {what}.", mend)


def _without_grades(table: Table, columns: Columns, fault: str = "") -> Material:
    frame = table.frame
    group = columns.group or (columns.fields[0] if columns.fields else None)
    keyed = frame.select(
        (pl.col(group) if group else pl.int_range(pl.len()).cast(pl.String)).alias("group"),
        *(pl.col(name).alias(f"f{i}") for i, name in enumerate(columns.fields)),
        pl.lit(None, pl.String).alias("gold"),
        pl.lit(None, pl.String).alias("truth"),
    )
    fields = tuple(f"f{i}" for i in range(len(columns.fields)))
    return Material(_coded(keyed), None, columns, fields, (), table.rejected, None, None, table.notes, fault)


def _with_grades(table: Table, task: Task, mapping: ImportMapping, columns: Columns) -> Material:
    named = mapping.model_copy(update={"fields": dict(zip(task.fields, columns.fields, strict=True))})
    rows = prepare(table, task, named)
    fields = tuple(f"f{i}" for i in range(len(task.fields)))
    frame = rows.frame.select("group", *fields, "gold", *rows.raters)
    place = {symbol: i for i, symbol in enumerate(task.symbols)}
    counts = lead = None
    truth = frame["gold"]
    if rows.raters:
        counts = _counts(frame, tuple(rows.raters), place)
        top = counts.max(axis=1)
        clear = (top * 2 > counts.sum(axis=1)) & (counts.sum(axis=1) >= 2)
        lead = np.where(clear, counts.argmax(axis=1), -1)
        majority = pl.Series(np.where(top > 0, np.array(task.symbols)[counts.argmax(axis=1)], ""))
        truth = pl.select(pl.coalesce(truth, majority.replace("", None))).to_series()
    inner = task.model_copy(update={"fields": fields, "group_by": _alias(task, fields)})
    return Material(
        _coded(frame.with_columns(truth=truth)).rename(rows.raters),
        inner,
        columns,
        fields,
        tuple(rows.raters.values()),
        tuple(rows.rejected) + table.rejected,
        counts,
        lead,
        table.notes,
    )


def _coded(frame: pl.DataFrame) -> pl.DataFrame:
    """With `code`: groups numbered as they come, so that the same file gives the same report."""
    names = frame.select("group").unique(maintain_order=True).with_columns(code=pl.int_range(pl.len()))
    return frame.join(names, on="group", how="left", maintain_order="left")


def _alias(task: Task, fields: tuple[str, ...]) -> str:
    return fields[task.fields.index(task.group_by)] if task.group_by in task.fields else task.group_by


def _counts(frame: pl.DataFrame, raters: tuple[str, ...], place: dict[str, int]) -> Ints:
    """(N, K) votes."""
    counts = np.zeros((len(frame), len(place)), dtype=np.int64)
    rows = np.arange(len(frame))
    for rater in raters:
        codes = codes_of(frame[rater], place)
        voted = codes >= 0
        counts += vote_counts(rows[voted], codes[voted], len(frame), len(place))
    return counts


def codes_of(column: pl.Series, place: dict[str, int]) -> Ints:
    """(N,) positions of symbols, -1 where there is none."""
    codes: Ints = column.replace_strict(place, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()
    return codes
