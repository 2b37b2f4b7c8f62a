"""`piar mine --explain ID`: why a sample is in its bucket, and why it is in the queue or not."""

from dataclasses import dataclass

import duckdb

from mining.select import REASONS
from mining.settings import MiningSettings
from store.db import Store, quote
from store.errors import UsageError


@dataclass(frozen=True, slots=True)
class Standing:
    """One signal of one sample: its value and the share of samples with a lower one."""

    name: str
    value: float
    percentile: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where mining put a sample, and why, in words."""

    sample_id: str
    split: str
    fields: dict[str, str]
    truth: str | None
    bucket: str | None
    difficulty: float | None
    judge: str | None
    signals: tuple[Standing, ...]
    queued: str


def explain(store: Store, settings: MiningSettings, sample_id: str) -> Explanation:
    """Explain one sample by its id or the beginning of it.

    Raises:
        UsageError: no or several samples match, or nothing was mined yet.
    """
    with store.read() as con:
        cursor = con.execute(
            "select s.*, t.grade as truth, d.p, d.bucket, d.judge from samples s left join truth t using (sample_id) "
            "left join difficulty d using (sample_id) where starts_with(s.sample_id::varchar, ?) limit 2",
            [sample_id.lower()],
        )
        names = [column[0] for column in cursor.description or ()]
        rows = cursor.fetchall()
        if len(rows) != 1:
            raise UsageError(
                f"{'Several' if rows else 'No'} samples have an id that begins with {sample_id!r}.",
                '`piar sql "select sample_id from label_queue"` lists ids.',
            )
        row = dict(zip(names, rows[0], strict=True))
        standings = _standings(con, str(row["sample_id"]))
        queued = _queued(con, settings, row, {s.name: s.value for s in standings})
    return Explanation(
        sample_id=str(row["sample_id"]),
        split=row["split"],
        fields={name: row[name] or "" for name in store.task.fields},
        truth=row["truth"],
        bucket=row["bucket"],
        difficulty=row["p"],
        judge=row["judge"],
        signals=standings,
        queued=queued,
    )


def _standings(con: duckdb.DuckDBPyConnection, sample_id: str) -> tuple[Standing, ...]:
    cursor = con.execute("select * from signals where sample_id = ?", [sample_id])
    names = [column[0] for column in cursor.description or ()][1:]
    values = (cursor.fetchone() or (None,))[1:]
    if not values:
        raise UsageError("This sample was not mined yet.", "Run `piar mine`.")
    found = []
    for name, value in zip(names, values, strict=True):
        if value is not None:
            lower = con.execute(f"select avg(({quote(name)} < ?)::int) from signals", [value]).fetchone()
            found.append(Standing(name, float(value), float(lower[0] or 0) if lower else 0.0))
    return tuple(sorted(found, key=lambda s: -s.percentile))


def _queued(
    con: duckdb.DuckDBPyConnection, settings: MiningSettings, row: dict[str, object], signals: dict[str, float]
) -> str:
    found = con.execute("select rank, reason, score, inclusion from queue where sample_id = ?", [row["sample_id"]])
    if (place := found.fetchone()) is not None:
        rank, reason, score, inclusion = place
        why = f"drawn with probability {inclusion:.4g}" if reason == "random" else f"score {score:.3f}"
        return f"rank {rank}: {reason}, {why}"
    if row["split"] not in ("train", "pool"):
        return f"not queued: {row['split']} is closed, disagreement must not choose what measures"
    if "near_duplicate" in signals:
        return f"not queued: an earlier sample says nearly the same (similarity {signals['near_duplicate']:.2f})"
    reviewed = con.execute("select count(*) from reviewed where sample_id = ?", [row["sample_id"]]).fetchone()
    if reviewed and reviewed[0]:
        return "not queued: people have reviewed it"
    reasons = _reasons_that_hold(con, str(row["sample_id"]))
    if not reasons:
        return "not queued: no reason holds"
    return f"not queued: {', '.join(reasons)}, but the {settings.top} places went to samples that score or differ more"


def _reasons_that_hold(con: duckdb.DuckDBPyConnection, sample_id: str) -> list[str]:
    tests = ", ".join(f"coalesce({reason.holds}, false)" for reason in REASONS.values())
    row = con.execute(
        f"select {tests} from (select x.*, t.grade as truth from signals x left join truth t using (sample_id)) "
        "where sample_id = ?",
        [sample_id],
    ).fetchone()
    return [name for name, holds in zip(REASONS, row or (), strict=False) if holds]
