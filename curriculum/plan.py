"""What an export would hold and in which order it would be learned, before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from curriculum.candidates import choose, set_anchor_rates
from curriculum.settings import CurriculumSettings
from store.db import Store
from store.errors import PiarError
from store.leaks import find_leaks
from store.manifest import Schedule, mixture_at
from store.types import BUCKETS

_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of an export.

    Attributes:
        rows: bucket -> training rows; rows without a difficulty count as `mid`.
        evals: split -> rows to measure on.
        left_out: reason -> samples of train and pool that are not exported.
        grades: grade -> training rows, in the task's order.
        rules: rule -> training rows that cite it.
        bases: where the grades come from (gold, majority, teacher, synthetic) -> training rows.
        unmined: training rows without a bucket of their own.
        anchors: training rows expected to anchor the mode balance, before their traces are verified.
        teacher: the judge whose probabilities and traces are used, "" for none.
        schedule: how draws move over the buckets; `shuffled` where all rows are in one bucket.
    """

    rows: dict[str, int]
    evals: dict[str, int]
    left_out: dict[str, int]
    grades: dict[str, int]
    rules: dict[str, int]
    bases: dict[str, int]
    unmined: int
    anchors: int
    teacher: str
    schedule: Schedule


def plan(store: Store, settings: CurriculumSettings, instruction: str) -> Plan:
    """Count what `export` would write, without writing.

    Args:
        instruction: id of the instruction whose verdicts are used.

    Raises:
        PiarError: there is nothing to learn from.
    """
    with store.read() as con:
        return prepare(con, store, settings, instruction)


def prepare(con: duckdb.DuckDBPyConnection, store: Store, settings: CurriculumSettings, instruction: str) -> Plan:
    """Choose rows and anchors in temporary tables of this connection, and count them."""
    con.execute("set memory_limit = ?", [settings.memory])
    find_leaks(con, store, settings.leak_similarity)
    teacher = choose(con, store, settings, instruction)
    set_anchor_rates(con, settings.to_schedule().anchor_share)
    rows = _counts(con, "coalesce(bucket, 'mid')", "fate = 'train'")
    grades = _counts(con, "grade", "fate = 'train'")
    left_out = _counts(con, "fate", "split in ('train', 'pool') and fate <> 'train'")
    _check(grades, left_out)
    unmined = sum(_counts(con, "'unmined'", "fate = 'train' and bucket is null").values())
    schedule = settings.to_schedule()
    if len(rows) < 2:
        schedule = schedule.model_copy(update={"kind": "shuffled"})
    return Plan(
        rows={bucket: rows.get(bucket, 0) for bucket in BUCKETS},
        evals=_counts(con, "fate", "split not in ('train', 'pool') and fate <> 'closed'"),
        left_out=left_out,
        grades={symbol: grades.get(symbol, 0) for symbol in store.task.symbols},
        rules=_counts(con, "rule", "fate = 'train' and rule is not null"),
        bases=_counts(con, "if(origin = 'synthetic', 'synthetic', basis)", "fate = 'train'"),
        unmined=unmined,
        anchors=_anchors(con),
        teacher=teacher,
        schedule=schedule,
    )


def _check(grades: Mapping[str, int], left_out: Mapping[str, int]) -> None:
    if not grades:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "the store has no train or pool rows"
        raise PiarError(
            f"There is nothing to learn from: {reasons}.",
            "Import gold, run `piar label`, or lower curriculum.teacher_confidence.",
        )
    if len(grades) == 1:
        raise PiarError(
            f"All {sum(grades.values())} training rows have grade {next(iter(grades))}.",
            "Import or label rows of other grades first.",
        )


def _counts(con: duckdb.DuckDBPyConnection, key: str, where: str) -> dict[str, int]:
    query = f"select {key} as k, count(*) from candidate where {where} group by k order by k"
    return dict(con.execute(query).fetchall())


def _anchors(con: duckdb.DuckDBPyConnection) -> int:
    row = con.execute(
        "select coalesce(sum(rate), 0) from candidate join anchor_rate using (rule) where fate = 'train' "
        "and basis in ('gold', 'majority') and origin <> 'synthetic' and bucket is distinct from 'suspect'"
    ).fetchone()
    return round(row[0]) if row else 0


def picture(the_plan: Plan, width: int = 40) -> list[tuple[str, str]]:
    """(bucket, bar over training time) for each bucket: the share of draws from start to end."""
    times = [i / width for i in range(width)]
    mixtures = [mixture_at(the_plan.schedule, t, the_plan.rows) for t in times]
    return [
        (b, "".join(_BARS[round(m.get(b, 0.0) * (len(_BARS) - 1))] for m in mixtures))
        for b in BUCKETS
        if the_plan.rows[b]
    ]
