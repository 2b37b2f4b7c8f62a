"""How often the 95 % interval on test holds the true gain of what the search prefers, promoted or not. Simulated.

Each world is searched in this process with the offline teacher and inducer. The candidate that dev prefers is then
measured against the seed on the untouched test split, and on a large fresh sample of the same world, whose gain
is taken for the true one. Run: `python -m benchmarks.gain_worlds [WORLDS] [FIRST] [OUT] [KIND …]`; it resumes where
`OUT` ends. With the kinds `harmful` or `null` nothing is there to find: every promotion is false.
`OUT` keeps what each test group gained, so that another interval can be tried without searching again.

The interval on the holdout *given* promotion cannot cover like this: only lucky holdouts promote.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.null_worlds import NoJournal, upper
from benchmarks.optimizers.arms import fill_store, says
from benchmarks.optimizers.texts import write_text
from benchmarks.optimizers.worlds import TASK, Row, World, make_world
from benchmarks.worlds import rows_of
from piar.evolve.resume import Event
from piar.evolve.run import EvolveSettings, Models, evolve
from piar.evolve.settings import AuditSettings, ReviserSettings, RevisionSettings
from piar.judging.session import Respondent
from piar.offline.teacher import RulebookClient
from store.db import Store
from store.stats import Floats, GroupBootstrap, group_codes, group_sums, ratio
from store.types import Instruction

SPLITS = {"train": 14, "dev": 6, "holdout": 14, "test": 30}  # groups
FRESH = 600  # its own sampling error costs the intervals half a point of coverage
KINDS = ("rules", "noisy")
OFFSET = 50_000  # worlds of its own
SETTINGS = EvolveSettings(rounds=1, revision=RevisionSettings(candidates=2), audit=AuditSettings(items=0, canary=0))


def one(number: int, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """One world: what each test group gains, and the true gain; or that the search prefers the seed."""
    world = make_world(kinds[number % len(kinds)], OFFSET + number, SPLITS, FRESH)
    preferred, promoted = _search(world, number)
    if preferred.id == world.seed.id:
        return {"world": number, "found": False, "promoted": False}
    rows = world.of("test")
    codes, count = group_codes([r.query for r in rows])
    before, after = (np.array(_right(i, rows), dtype=float) for i in (world.seed, preferred))
    true = float(np.mean(_right(preferred, world.fresh)) - np.mean(_right(world.seed, world.fresh)))
    sums = group_sums(np.stack([after - before, np.ones(len(rows))], axis=1), codes, count)
    return {"world": number, "found": True, "promoted": promoted, "sums": sums.tolist(), "true": true}


def _search(world: World, number: int) -> tuple[Instruction, bool]:
    preferred = world.seed.id

    def watch(event: Event) -> None:
        nonlocal preferred
        if event.kind == "searched":
            preferred = event.detail["best"]

    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "piar.duckdb", TASK)
        fill_store(store, [r for r in world.rows if r.split != "test"])
        client = RulebookClient()
        settings = SETTINGS.model_copy(update={"seed": number})
        with store.write():  # one connection for the whole run
            report, _ = evolve(
                store,
                Models(Respondent(client), Respondent(client, ReviserSettings())),
                world.seed,
                settings,
                journal=NoJournal(Path(folder)),
                on_event=watch,  # type: ignore[arg-type]
            )
            return store.instruction(preferred), report.proposal is not None


def _right(instruction: Instruction, rows: Sequence[Row]) -> list[bool]:
    """Whether the teacher says the gold grade, with all its noise: what a test split can measure."""
    return [said == row.gold for said, row in zip(says(write_text(instruction), rows), rows, strict=True)]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Coverage over all worlds with a candidate, and by whether it was promoted."""
    found = [r for r in rows if r["found"]]
    promoted = sum(r["promoted"] for r in rows)
    told: dict[str, Any] = {"worlds": len(rows), "with a candidate": len(found), "promotions": promoted,
                            "promotions, upper 95 %": round(upper(promoted, len(rows)), 4)}  # fmt: skip
    for name, part in (("all", found), ("promoted", [r for r in found if r["promoted"]]),
                       ("not promoted", [r for r in found if not r["promoted"]])):  # fmt: skip
        if part:
            told[name] = covered([r["true"] for r in part], [np.array(r["sums"]) for r in part])
    return told


def covered(true: Sequence[float], sums: Sequence[Floats]) -> dict[str, Any]:
    """How many intervals hold the true gain, with the exact 95 % interval of that share, and where the others miss."""
    ends = [GroupBootstrap(len(s)).interval(s, ratio) for s in sums]
    low, high = (np.array([getattr(i, end) for i in ends], dtype=float) for end in ("low", "high"))
    below, above, n = int(np.sum(true < low)), int(np.sum(true > high)), len(sums)
    held = n - below - above
    exact = binomtest(held, n).proportion_ci()  # Clopper-Pearson
    return {"n": n, "covers": round(held / n, 4), "exact": [round(exact.low, 4), round(exact.high, 4)],
            "true below": below, "true above": above,
            "points wide": round(100 * float(np.mean(high - low)), 1)}  # fmt: skip


def main(worlds: int = 500, first: int = 0, out: str = "gain-worlds.jsonl", *kinds: str) -> dict[str, Any]:
    """Run what is missing of the worlds, and sum up."""
    return summary(rows_of(partial(one, kinds=kinds or KINDS), worlds, first, out))


if __name__ == "__main__":
    numbers = [int(a) for a in sys.argv[1:3]]
    print(json.dumps(main(*numbers, *sys.argv[3:]), indent=1))
