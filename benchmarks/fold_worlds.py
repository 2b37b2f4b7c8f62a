"""How often cross-fitting promotes a mere guess, with and without its correction for shared labels. Simulated.

All grades are equally frequent and lean by group. The instruction in force gives one of them to everything; each fold's
draft gives the one that the rows of the other folds have most. No draft is better, so every promotion is false; but a
grade that is frequent by luck is so in all folds, and all of them choose it.

Run: `python -m benchmarks.fold_worlds [WORLDS]`; no model.
"""

import json
import sys
from typing import Any

import numpy as np

from benchmarks.null_worlds import upper
from piar.evolve.promotion import over_folds, shown
from piar.evolve.purse import CROSS_FOLDS
from store.stats import Gain, paired_gain

LEVEL, ROWS, CONCENTRATION = 0.03, 6, 0.5
GRADES, GROUPS = (2, 3, 5, 10), (48, 100)


def guessed(grades: int, groups: int, seed: int) -> tuple[Any, Any]:
    """One world: (G, ROWS) whether the instruction in force is right, and whether the folds' drafts are."""
    rng = np.random.default_rng(seed)
    truth = np.array([rng.choice(grades, ROWS, p=rng.dirichlet([CONCENTRATION] * grades)) for _ in range(groups)])
    fold, said = rng.permutation(groups) % CROSS_FOLDS, np.zeros_like(truth)
    for k in range(CROSS_FOLDS):
        said[fold == k] = np.bincount(truth[fold != k].ravel(), minlength=grades).argmax()
    return truth == 0, said == truth


def gain(grades: int, groups: int, seed: int) -> Gain:
    """What its folds gain together, uncorrected."""
    before, after = guessed(grades, groups, seed)
    return paired_gain(before.ravel(), after.ravel(), np.repeat(np.arange(groups), ROWS))


def main(worlds: int = 2000) -> dict[str, Any]:
    """Shares that pass, with and without the correction, and the upper 95 % bound of the corrected one."""
    told: dict[str, Any] = {}
    for grades in GRADES:
        for groups in GROUPS:
            found = [gain(grades, groups, seed) for seed in range(worlds)]
            bare, kept = (sum(shown(over_folds(g, folds), LEVEL) for g in found) for folds in (0, CROSS_FOLDS))
            told[f"{grades} grades, {groups} groups"] = {
                "uncorrected": bare / worlds, "corrected": kept / worlds, "upper": round(upper(kept, worlds), 4)
            }  # fmt: skip
    return told


if __name__ == "__main__":
    print(json.dumps(main(*[int(a) for a in sys.argv[1:2]]), indent=1))
