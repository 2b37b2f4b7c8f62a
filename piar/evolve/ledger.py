"""The ledger: which groups have decided how many tests and taught what; and worn ones leave the holdout for train.

A group that has decided several promotions proves less each time, and one that has taught the instruction in force
flatters it. Who labels every week gets fresh holdout groups every week; the worn ones serve better as material that the
reviser is shown. Groups that differ in spelling only leave together, so that train never tells what the holdout asks.
Nothing ever enters holdout or test this way.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.db import Store, now
from store.errors import PiarError
from store.ids import short_hash
from store.splits import with_forms

WORN_FROM = 3  # tests on the same holdout groups after which a warning is given
MOST_USES = 8  # ... after which no further one is made


@dataclass(frozen=True, slots=True)
class Ledger:
    """Earlier tests on these holdout groups: levels spent and how often they were used, by share of overlap."""

    spent: tuple[float, ...]
    uses: float


def fingerprints(groups: Sequence[str]) -> list[str]:
    """Holdout groups as short hashes: which were used, without their text."""
    return sorted({short_hash(g, 10) for g in groups})


def ledger(store: Store, groups: Sequence[str], run_id: str) -> Ledger:
    """Earlier tests on these holdout groups, this run's own apart (a resumed run makes the same test)."""
    mine = set(fingerprints(groups))
    with store.read() as con:
        rows = con.execute(
            "select detail from decisions where kind = 'promotion' and run_id <> ? order by created_at", [run_id]
        ).fetchall()
    overlaps = []
    for (detail,) in rows:
        data = json.loads(detail)
        shared = len(mine & set(data.get("holdout_groups", ()))) / max(1, len(mine))
        overlaps.append((shared, float(data.get("level", 0.0))))
    return Ledger(tuple(share * level for share, level in overlaps), sum(share for share, _ in overlaps))


def taught(store: Store, instruction: str) -> frozenset[str]:
    """Groups whose labels taught an instruction, or one that it was revised from, in a search by cross-fitting.

    Of other searches the rows that decided have taught nothing.
    """
    with store.read() as con:
        details = con.execute(
            """with recursive line(id) as (
                 select ? union select i.parent from instructions i join line on i.instruction_id = line.id
               )
               select detail from decisions join line on instruction = line.id
               where kind = 'promotion' and coalesce((detail->>'folds')::int, 0) > 0""",
            [instruction],
        ).fetchall()
        dealt = "select distinct group_key from samples where split <> 'pool'"
        known = con.execute(dealt).fetchall() if details else []
    names = {name for (detail,) in details for name in json.loads(detail)["holdout_groups"]}
    return frozenset(group for (group,) in known if fingerprints([group])[0] in names)


def taught_splits(store: Store, instruction: str) -> frozenset[str]:
    """Splits that hold such groups: a figure of the instruction there flatters it."""
    groups = taught(store, instruction)
    if not groups:
        return frozenset()
    found = store.frame("select distinct split, group_key from samples where split <> 'pool'").rows()
    return frozenset(split for split, group in found if group in groups)


def record(
    store: Store,
    kind: str,
    instruction: str,
    against: str | None,
    outcome: str,
    reason: str,
    detail: Mapping[str, Any],
    by: str,
    run_id: str,
) -> None:
    """One row of `decisions`; a resumed run that decides the same again adds nothing."""
    decision_id = short_hash([kind, instruction, against, outcome, by, run_id], 16)
    with store.write() as con:
        con.execute(
            "insert into decisions select ?, ?, ?, ?, ?, ?, ?, ?, ?, ? "
            "where not exists (select 1 from decisions where decision_id = ?)",
            [
                decision_id,
                kind,
                instruction,
                against,
                outcome,
                reason,
                json.dumps(detail),
                by,
                run_id,
                now(),
                decision_id,
            ],
        )


def check_uses(ledger: Ledger) -> str | None:
    """A warning when the holdout is worn, None while it is fresh.

    Raises:
        PiarError: it has been used too often to prove anything.
    """
    fix = "Import newly labelled groups: part of them becomes fresh holdout."
    if ledger.uses >= MOST_USES:
        raise PiarError(
            f"These holdout groups have been tested on {ledger.uses:.0f} times and prove nothing more.", fix
        )
    if ledger.uses >= WORN_FROM:
        return f"These holdout groups have been tested on {ledger.uses:.0f} times; each test gets stricter. {fix}"
    return None


def retire(store: Store) -> int:
    """Move groups that have decided `WORN_FROM` promotions, or taught the instruction in force, from holdout to train.

    Nothing moves while there are fewer labelled holdout groups that have decided less.

    Returns:
        how many groups moved.
    """
    import polars as pl

    uses = _uses(store)
    if not uses:
        return 0
    current = store.frame("select instruction from in_force order by since desc limit 1")
    lessons = taught(store, current.item()) if current.height else frozenset()
    groups = with_forms(
        store.frame(
            """select group_key as "group", count(truth.grade) > 0 as labelled from samples
               left join truth using (sample_id) where split = 'holdout' group by 1 order by 1"""
        )
    )
    worn = [group in lessons or uses[fingerprints([group])[0]] >= WORN_FROM for group in groups["group"].to_list()]
    groups = groups.with_columns(worn=pl.Series(worn, dtype=pl.Boolean))
    groups = groups.with_columns(leaves=pl.col("worn").any().over("form"))
    leaving, fresh = groups.filter("leaves")["group"].to_list(), groups.filter(~pl.col("leaves") & pl.col("labelled"))
    if not leaving or len(fresh) < len(leaving):
        return 0
    with store.write() as con:
        con.execute(
            "update samples set split = 'train' where split = 'holdout' and group_key in (select unnest(?::varchar[]))",
            [leaving],
        )
    return len(leaving)


def _uses(store: Store) -> Counter[str]:
    """Fingerprint of a group -> promotions that it has decided."""
    details = store.frame("select detail from decisions where kind = 'promotion'")["detail"].to_list()
    return Counter(name for detail in details for name in json.loads(detail).get("holdout_groups", ()))
