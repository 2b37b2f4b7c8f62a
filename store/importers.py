"""Rows of a file into samples and labels: checked, cleaned, given ids and splits, each counted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import polars as pl
from pydantic import Field

from store.db import Store, now, quote
from store.errors import UsageError
from store.readers import Rejection, Table, read, read_table
from store.settings import Settings
from store.splits import SplitSettings, assign
from store.task import Task

__all__ = ["ImportMapping", "ImportReport", "Rejection", "import_files", "read_table"]

_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-"})


class ImportMapping(Settings):
    """Which column holds what. `fields` names only those whose column is called otherwise."""

    fields: dict[str, str] = Field(default_factory=dict)
    gold: str | None = None
    raters: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    id: str | None = None
    inclusion: str | None = None
    source: str | None = None


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        read: rows that could be read.
        added: samples that are new.
        known: samples that the store had already.
        repeats: rows that repeat the (group, fields) of an earlier row: more votes on one sample.
        labels: labels that are new.
        rejected: rows left out, each with its line and reason.
        splits: samples of these rows by split.
    """

    read: int = 0
    added: int = 0
    known: int = 0
    repeats: int = 0
    labels: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)


def import_files(
    store: Store,
    paths: Sequence[Path],
    mapping: ImportMapping,
    run_id: str,
    seed: int = 0,
    splits: SplitSettings | None = None,
    report: ImportReport | None = None,
) -> ImportReport:
    """Read files into the store; importing the same rows again adds nothing.

    Args:
        report: counts of earlier files, to go on from.

    Raises:
        UsageError: a column that the mapping or the task names is missing.
        PiarError: a file cannot be read at all.
    """
    report = report or ImportReport()
    for path in paths:
        _import_table(store, read(path), mapping, path.stem, run_id, seed, splits or SplitSettings(), report)
    return report


def _import_table(
    store: Store,
    table: Table,
    mapping: ImportMapping,
    stem: str,
    run_id: str,
    seed: int,
    splits: SplitSettings,
    report: ImportReport,
) -> None:
    rows = prepare(table, store.task, mapping)
    report.read += len(table.frame)
    report.rejected += [*table.rejected, *rows.rejected]
    with store.write() as con:
        con.register("incoming", rows.frame.to_arrow())
        _stage(con, store.task)
        _deal(con, store, seed, splits)
        _insert(con, store.task, mapping.source or stem, run_id, rows.raters, report)
        con.unregister("incoming")


@dataclass(frozen=True, slots=True)
class Rows:
    """Checked rows: `line`, `group`, the task's fields, `external`, `gold` and one column for each rater."""

    frame: pl.DataFrame
    raters: dict[str, str]
    rejected: list[Rejection]


def prepare(table: Table, task: Task, mapping: ImportMapping) -> Rows:
    """Columns chosen by the mapping, texts cleaned, grades as the task's symbols; rows that fail are rejected."""
    frame = table.frame
    columns = {name: mapping.fields.get(name, name) for name in task.fields}
    group = mapping.group or columns.get(task.group_by, task.group_by)
    raters = {f"rater{i}": name for i, name in enumerate(mapping.raters)}
    named = [*columns.values(), group, *mapping.raters, *(c for c in (mapping.gold, mapping.id) if c)]
    missing = [name for name in dict.fromkeys(named) if name not in frame.columns]
    if missing:
        raise UsageError(
            f"No column {', '.join(map(repr, missing))}; the file has {', '.join(frame.columns)}.",
            "Name the columns with --map field=column, --gold, --raters, --group, --id.",
        )
    texts = {f"f{i}": columns[name] for i, name in enumerate(task.fields)} | {"group": group}
    grades = ({"gold": mapping.gold} if mapping.gold else {}) | raters
    symbols = {name: _symbols(frame[column], task) for name, column in grades.items()}
    clean = frame.select(
        table.lines.alias("line"),
        *(pl.col(c).str.replace_all(_CONTROL, " ").str.strip_chars().alias(name) for name, c in texts.items()),
        (pl.col(mapping.id) if mapping.id else pl.lit(None, pl.String)).alias("external"),
        *(
            pl.col(c).replace_strict(symbols[name], default="?", return_dtype=pl.String).alias(name)
            for name, c in grades.items()
        ),
        *([] if mapping.gold else [pl.lit(None, pl.String).alias("gold")]),
    )
    reasons = _reasons(clean, len(task.fields), grades)
    bad = clean.with_columns(reason=reasons).filter(pl.col("reason") != "")
    rejected = [Rejection(line, reason) for line, reason in bad.select("line", "reason").rows()]
    return Rows(clean.filter(reasons == ""), raters, rejected)


def _reasons(frame: pl.DataFrame, fields: int, grades: dict[str, str]) -> pl.Series:
    empty = pl.all_horizontal(pl.col(f"f{i}") == "" for i in range(fields))
    reason = pl.when(pl.col("group") == "").then(pl.lit("no group")).when(empty).then(pl.lit("every field is empty"))
    for name, column in grades.items():
        reason = reason.when(pl.col(name) == "?").then(pl.lit(f"unknown grade in column {column!r}"))
    return frame.select(reason.otherwise(pl.lit(""))).to_series()


def _symbols(column: pl.Series, task: Task) -> dict[str, str | None]:
    """Cell -> grade symbol (by symbol, name or numeric value), None where missing; unknown cells are absent."""
    known: dict[str, str | None] = {}
    for cell in column.unique().to_list():
        text = cell.strip()
        if text in task.symbols:
            known[cell] = text
        elif text.lower() in MISSING:
            known[cell] = None
        elif (symbol := _by_name_or_value(text, task)) is not None:
            known[cell] = symbol
    return known


def _by_name_or_value(text: str, task: Task) -> str | None:
    for grade in task.grades:
        if text.lower() in (grade.name.lower(), grade.symbol.lower()):
            return grade.symbol
    try:
        value = float(text)
    except ValueError:
        return None
    return next((g.symbol for g in task.grades if _number(g.symbol) == value), None)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# -- the store's side -----------------------------------------------------------------------


def _stage(con: duckdb.DuckDBPyConnection, task: Task) -> None:
    fields = ", ".join(f"f{i}" for i in range(len(task.fields)))
    con.execute(
        f"""create or replace temp table staged as
        with hashed as (
            select *, sha256(concat_ws(chr(31), 'sample', "group", {fields}))[:32]::uuid as sample_id from incoming)
        select *, row_number() over (partition by sample_id order by line) - 1 as ordinal,
               exists (select 1 from samples s where s.sample_id = hashed.sample_id) as known
        from hashed"""
    )


def _deal(con: duckdb.DuckDBPyConnection, store: Store, seed: int, splits: SplitSettings) -> None:
    """Temp table `dealt`: the split of each group in `staged`."""
    values = ", ".join(f"({i}, ?)" for i in range(len(store.task.grades)))
    con.execute(f"create or replace temp table grade_value as select * from (values {values}) g(value, symbol)",
                list(store.task.symbols))  # fmt: skip
    groups = con.sql(
        """select "group", avg(value)::double as value, count(*) as rows
        from staged join grade_value on symbol = gold
        where "group" not in (select group_key from samples) group by "group" """
    ).pl()
    con.register("fresh", assign(groups, splits, seed).to_arrow())
    con.execute(
        """create or replace temp table dealt as
        select "group", split from fresh
        union all select group_key, any_value(split) from samples group by group_key"""
    )
    con.unregister("fresh")


def _insert(
    con: duckdb.DuckDBPyConnection, task: Task, source: str, run_id: str, raters: dict[str, str], report: ImportReport
) -> None:
    names = "".join(f", {quote(name)}" for name in task.fields)
    fields = "".join(f", f{i}" for i in range(len(task.fields)))
    at = now()
    con.execute(
        f"""insert into samples (sample_id, group_key, split, source, external_id, run_id, created_at{names})
        select sample_id, "group", coalesce(split, 'pool'), ?, external, ?, ?{fields}
        from staged left join dealt using ("group") where ordinal = 0 and not known""",
        [source, run_id, at],
    )
    for column, kind, annotator in [("gold", "gold", "gold"), *((c, "human", name) for c, name in raters.items())]:
        con.execute(
            f"""insert into labels
                (label_id, sample_id, source, annotator, grade, ordinal, batch, origin, run_id, created_at)
            select sha256(concat_ws(chr(31), 'label', sample_id, ?, ?, {column}, ordinal, ?))[:32]::uuid as id,
                   sample_id, ?, ?, {column}, ordinal, ?, ?, ?, ?
            from staged where {column} is not null and id not in (select label_id from labels)""",
            [kind, annotator, source, kind, annotator, source, source, run_id, at],
        )
    counts = con.execute(
        "select count(*) filter (ordinal = 0 and not known), count(*) filter (ordinal = 0 and known), "
        "count(*) filter (ordinal > 0) from staged"
    ).fetchall()[0]
    report.added += counts[0]
    report.known += counts[1]
    report.repeats += counts[2]
    for split, n in con.execute(
        "select coalesce(split, 'pool'), count(*) from staged left join dealt using (\"group\") "
        "where ordinal = 0 group by 1 order by 1"
    ).fetchall():
        report.splits[split] = report.splits.get(split, 0) + n
