"""A cheap student, taught out of fold by group, that says how hard a sample is where votes are missing.

One vote of one judge, or a grade with nothing beside it, does not tell one row from another. There a simple model
learns the training split's truth (a probe on a frozen encoder, else TF-IDF), and each sample is judged by one that saw
no row of its group. Its probabilities are the columns q0 … qk of `judged`. Source: out-of-sample probabilities, as
confident learning asks for them (Northcutt, Jiang and Chuang 2021); that they stand in for votes is our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from mining.judged import Columns
from store.db import Store, quote

PREFIX = "out-of-fold "
FOLDS = 5
ENOUGH, ENOUGH_GROUPS = 50, 5  # labelled rows, and groups of them, from which it is worth a try
_LEARNT = 20_000  # rows that it learns from at most: the first by id, which is a hash
_SLICE = 20_000  # rows that it judges at a time
_MUTE = 20  # rows on which one and the same distribution is no accident
_SAME = 0.98  # of the rows with it; the instruction may know a few by a word

Predict = Callable[[pl.DataFrame], Any]


@dataclass(frozen=True, slots=True)
class Stand:
    """Who stands in where votes are missing.

    Attributes:
        name: what it is, such as `probe`.
        teach: rows with the task's fields, `group_key` and `gold` (symbols) -> rows with the fields to (N, K)
            probabilities in the task's order of grades.
    """

    name: str
    teach: Callable[[pl.DataFrame], Predict]


def stand_in(con: duckdb.DuckDBPyConnection, store: Store, columns: Columns, student: Stand | None) -> str:
    """Give `judged` the columns q0 … qk, and fill them where votes are missing.

    A teacher that gives all rows but a few the same probabilities counts as one that gives none.

    Returns:
        Its name, "" if nobody stood in.

    """
    for name in columns("q"):
        con.execute(f"alter table judged add column {name} double")
    if student is None:
        return ""
    _silence_a_mute_teacher(con, columns)
    learnt = _learnable(con, store)
    if learnt is None or not _needed(con, columns):
        return ""
    for fold in range(FOLDS):
        rows = learnt.filter(pl.col("fold") != fold)
        if rows["gold"].n_unique() > 1:
            _judge(con, store, columns, fold, student.teach(rows.drop("fold")))
    [[filled]] = con.execute("select count(q0) from judged").fetchall()
    return f"{PREFIX}{student.name}" if filled else ""


def _silence_a_mute_teacher(con: duckdb.DuckDBPyConnection, columns: Columns) -> None:
    rounded = ", ".join(f"round({t}, 6)" for t in columns("t"))
    alike = f"select count(*) as n from judged where t0 is not null group by {rounded}"
    [(rows, most)] = con.execute(f"select coalesce(sum(n), 0), coalesce(max(n), 0) from ({alike})").fetchall()
    if rows >= _MUTE and most >= _SAME * rows:
        con.execute(f"update judged set {', '.join(f'{t} = null' for t in columns('t'))}")


def _needed(con: duckdb.DuckDBPyConnection, columns: Columns) -> bool:
    """Fill the temporary table `voteless` (sample_id, fold, part); False where it stays empty."""
    told = {prefix: " + ".join(f"coalesce({name}, 0)::int" for name in columns(prefix)) for prefix in "vhg"}
    few = " and ".join(f"{votes} < 2" for votes in told.values())
    con.execute(
        f"create or replace temp table voteless as select sample_id, (hash(group_key) % {FOLDS})::tinyint as fold, "
        f"row_number() over (partition by hash(group_key) % {FOLDS} order by sample_id) // {_SLICE} as part "
        "from judged join samples using (sample_id) "
        f"where t0 is null and {few} and (truth is not null or {told['v']} > 0)"
    )
    [[rows]] = con.execute("select count(*) from voteless").fetchall()
    return bool(rows)


def _learnable(con: duckdb.DuckDBPyConnection, store: Store) -> pl.DataFrame | None:
    """Labelled training rows with their fold; None for too few."""
    rows = _frame(
        con,
        f"select {_fields(store)}, s.group_key, h.symbol as gold, (hash(s.group_key) % {FOLDS})::tinyint as fold "
        f"from held h join samples s using (sample_id) where s.split = 'train' order by sample_id limit {_LEARNT}",
    )
    return rows if len(rows) >= ENOUGH and rows["group_key"].n_unique() >= ENOUGH_GROUPS else None


def _judge(con: duckdb.DuckDBPyConnection, store: Store, columns: Columns, fold: int, predict: Predict) -> None:
    assigned = ", ".join(f"{name} = f.{name}" for name in columns("q"))
    parts = con.execute("select distinct part from voteless where fold = ? order by 1", [fold]).fetchall()
    for (part,) in parts:
        rows = _frame(
            con,
            f"select sample_id::varchar as sample_id, {_fields(store)} from voteless v "
            "join samples s using (sample_id) where v.fold = ? and v.part = ? order by sample_id",
            fold,
            part,
        )
        probs = np.asarray(predict(rows.drop("sample_id")), dtype=np.float64)
        found = {"sample_id": rows["sample_id"].to_arrow(), **dict(zip(columns("q"), probs.T, strict=True))}
        con.register("found", pa.table(found))
        con.execute(f"update judged set {assigned} from found f where judged.sample_id = f.sample_id::uuid")
        con.unregister("found")


def _frame(con: duckdb.DuckDBPyConnection, query: str, *values: int) -> pl.DataFrame:
    relation = con.sql(query, params=list(values)) if values else con.sql(query)
    found: pl.DataFrame = relation.pl()
    return found


def _fields(store: Store) -> str:
    return ", ".join(f"coalesce(s.{quote(field)}, '') as {quote(field)}" for field in store.task.fields)
