"""Which holdout groups have decided how many promotions, and what of alpha they have spent."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.db import Store, now
from store.ids import short_hash


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
