"""How often the promotion test and its guards decide rightly, where what the candidate is worth is known. Simulated.

| kind | the instruction in force | the candidate | right |
|---|---|---|---|
| null | one grade for everything | grades at random, alike within a group | refused |
| harmful | knows a rare grade | gains overall, loses a third of that grade | refused |
| constant | a rare grade for everything | knows the others, never gives the rare one | promoted |

Run: `python -m benchmarks.guard_worlds [WORLDS]`; a second a world, no model.
"""

import json
import sys
from typing import Any

import numpy as np

from benchmarks.null_worlds import upper
from piar.evolve.guards import Paired
from piar.evolve.ledger import Ledger
from piar.evolve.promotion import confirm
from piar.evolve.settings import PromotionSettings
from store.task import Grade, Task

TASK = Task(
    name="guards", group_by="group", fields=("text",), grades=tuple(Grade(symbol=str(i), value=i) for i in range(3))
)
GROUPS, ROWS, RARE = 100, 8, 0.15
KINDS = ("null", "harmful", "constant")


def paired(kind: str, rng: np.random.Generator) -> Paired:
    """Both on a holdout whose groups lean each to some grades; grade 0 is the rare one."""
    n = GROUPS * ROWS
    group = np.repeat(np.arange(GROUPS), ROWS)
    shares = np.full(3, 1 / 3) if kind == "null" else np.array([RARE, 0.4, 0.45])
    leaning = rng.dirichlet(6 * shares, size=GROUPS)
    truth = np.array([rng.choice(3, p=leaning[g]) for g in group])
    if kind == "null":
        before, after = np.zeros(n, dtype=np.int64), rng.integers(0, 3, GROUPS)[group]
    elif kind == "harmful":
        before = _knows(truth, np.array([0.9, 0.6, 0.6]), rng)
        after = _knows(truth, np.array([0.6, 0.75, 0.75]), rng)
    else:
        before, after = np.zeros(n, dtype=np.int64), np.maximum(1, _knows(truth, np.full(3, 0.7), rng))
    return Paired(group, truth, before, after, (before == truth) * 1.0, (after == truth) * 1.0, {})


def _knows(truth: Any, right: Any, rng: np.random.Generator) -> Any:
    """Right with the chance of its grade, else one of the others."""
    return np.where(rng.random(len(truth)) < right[truth], truth, (truth + rng.integers(1, 3, len(truth))) % 3)


def _refused(data: Paired, seed: int) -> str:
    return confirm("b", "a", data, TASK, Ledger((), 0), PromotionSettings(), seed).refused_by


def main(worlds: int = 120) -> dict[str, Any]:
    """Promotions of each kind, by what refused the others, with the upper 95 % bound of the promoted share."""
    told: dict[str, Any] = {}
    for kind in KINDS:
        refused = [_refused(paired(kind, np.random.default_rng(n)), n) for n in range(worlds)]
        promoted = refused.count("")
        told[kind] = {"worlds": worlds, "promoted": promoted, "upper": round(upper(promoted, worlds), 4),
                      "refused by test": refused.count("test"), "refused by guard": refused.count("guard")}  # fmt: skip
    return told


if __name__ == "__main__":
    print(json.dumps(main(*[int(a) for a in sys.argv[1:2]]), indent=1))
