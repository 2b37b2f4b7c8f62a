"""How much of the hidden rulebook's gain the loop recovers on the simulated shop, measured on test.

`python -m benchmarks.shop_recovery [PAIRS] [SEEDS]` evolves from the rough seed instruction and judges test under the
seed, the champion and the oracle rulebook, against the true grades that only the simulation knows.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.judging import judge
from piar.offline.teacher import RulebookClient
from piar.project.facade import Project
from piar.shop.world import make_shop
from store.stats import paired_gain


def one(pairs: int, seed: int) -> dict[str, Any]:
    """One world: accuracy of seed, champion and oracle against truth, and the share of the gain recovered."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project.init(Path(folder) / "shop", example="shop", pairs=pairs, seed=seed)
        report = project.evolve(seed=seed)
        oracle = make_shop(pairs, seed).oracle
        samples = project.store.samples("test")
        answers = pl.read_parquet(Path(folder) / "shop" / "answers.parquet")
        keys = project.store.frame("select sample_id from samples where split = 'test'")
        truth = dict(keys.join(answers, on="sample_id").select("sample_id", "true_grade").rows())
        project.store.put_instruction(oracle, "oracle")
        with project.journal() as journal:
            judge(project.store, RulebookClient(), oracle, samples, journal=journal)
        named = {"seed": report.seed_instruction, "champion": report.champion, "oracle": oracle.id}
        right = {name: _right(project, instruction, truth) for name, instruction in named.items()}
    groups = [s.group for s in samples]
    gain, best = (paired_gain(right["seed"], right[name], groups) for name in ("champion", "oracle"))
    return {
        "world": seed,
        **{name: round(float(np.mean(r)), 3) for name, r in right.items()},
        "gain": [round(100 * float(g), 1) for g in (gain.mean, gain.low or 0, gain.high or 0)],
        "recovered": round(gain.mean / best.mean, 3),
    }


def _right(project: Project, instruction: str, truth: dict[str, str]) -> list[int]:
    sql = "select sample_id, grade from verdict where instruction = ? and vote = 0 and starts_with(judge, 'teacher:')"
    said = dict(project.store.frame(sql, [instruction]).rows())
    return [int(said.get(s.id) == truth[s.id]) for s in project.store.samples("test")]


if __name__ == "__main__":
    size, seeds = (int(a) for a in (sys.argv[1:] + ["3000", "3"][len(sys.argv) - 1 :]))
    for world in range(seeds):
        print(json.dumps(one(size, world)), flush=True)
