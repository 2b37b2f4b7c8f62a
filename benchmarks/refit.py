"""A search in rounds beside one whose labels all teach, on real labels and with the whole loop: guards, audit, ledger.

For each of the four real sets and each seed of the splits, `piar evolve` with the offline models, once by each strategy
of `[evolve] search`, each in a project of its own with the same rows and splits. What stands after it is told on the
untouched test split beside the instruction that each began with. The same in simulated worlds: the arms "ours" and
"ours, cross-fitted" of `benchmarks.optimizers`.

Run: `python -m benchmarks.refit [SEEDS] [OUT]`; it resumes where `OUT` ends. At most 4,000 rows a set, in whole groups.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from benchmarks.real.sets import SETS, rows_of
from benchmarks.worlds import rows_of as resumed
from piar.evolve.run import EvolveReport
from piar.evolve.settings import SearchName
from piar.project.facade import Project
from store.importers import ImportMapping

ROWS = 4_000


def one(number: int) -> dict[str, Any]:
    """One set under one seed; the set is the number modulo four."""
    name, seed = list(SETS)[number % len(SETS)], number // len(SETS)
    real = SETS[name]
    row: dict[str, Any] = {"world": number, "set": name, "seed": seed}
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / "rows.csv"
        whole_groups(rows_of(name)[0], real.group, seed).write_csv(file)
        fields = {field: field for field in real.fields}
        mapping = ImportMapping(fields=fields, gold="gold", group=real.group, grades=real.grades)
        for search in get_args(SearchName):
            project = Project.init(Path(made) / search, from_=file, mapping=mapping, seed=seed)
            row[search] = told(project.evolve(search=search))
    return row


def whole_groups(frame: pl.DataFrame, group: str, seed: int) -> pl.DataFrame:
    """At most `ROWS` rows of a set, none of its groups cut."""
    groups = np.random.default_rng(seed).permutation(np.array(frame[group].unique().sort().to_list(), dtype=object))
    sizes = dict(frame.group_by(group).len().iter_rows())
    kept = groups[np.cumsum([sizes[g] for g in groups]) <= ROWS]
    return frame.filter(pl.col(group).is_in(kept.tolist()))


def told(report: EvolveReport) -> dict[str, Any]:
    """How a search ended, and what stands after it on test: accuracies in percent, the gain in points."""
    test = report.test["gold"]
    assert not isinstance(test, str)  # no cap
    gain = test["gain"]
    return {
        "ending": report.ending,
        "decided": [t["reason"] for t in report.promotions],
        "calls": report.calls,
        "seed %": round(100 * test["seed"]["accuracy"], 1),
        "stands %": round(100 * test["champion"]["accuracy"], 1),
        "gain": [None if end is None else round(100 * end, 1) for end in (gain["mean"], gain["low"], gain["high"])],
    }


if __name__ == "__main__":
    seeds, out = int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2] if len(sys.argv) > 2 else "refit.jsonl"
    print(json.dumps(resumed(one, len(SETS) * seeds, 0, out), indent=1))
