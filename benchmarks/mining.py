"""Mining beside others: confident learning against cleanlab, and what two raters' signals say of a third on Chorus.

python -m benchmarks.mining                  both
python -m benchmarks.mining confident        1 M rows × 4 grades, both cleanlab settings of n_jobs, three rounds
python -m benchmarks.mining chorus
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.timing import compare
from mining import MiningSettings, mine
from mining.confident import find_issues
from store.db import Store
from store.importers import ImportMapping, import_files
from tests import random_store
from tests.data import shared


def chorus(folder: Path) -> None:
    """Average precision of each signal from two raters for the rows where the third disagrees with the first."""
    from sklearn.metrics import average_precision_score

    frame = pl.read_csv(shared("chorus/chorus.csv"), infer_schema=False)
    print("Chorus: average precision for rows where the third rater disagrees with the first (base rate beside it)")
    for third in (1, 2, 3):
        a, b = (f"rater_{n}" for n in (1, 2, 3) if n != third)
        path = folder / f"chorus{third}.csv"
        frame.write_csv(path)
        task = random_store.TASK.model_copy(update={"fields": ("query", "name"), "steps": ()})
        store = Store.create(folder / f"chorus{third}.duckdb", task)
        mapping = ImportMapping(fields={"query": "query", "name": "name"}, raters=(a, b), group="query", id="item_id")
        import_files(store, [path], mapping, "import-1", 0)
        with store.write() as con:
            con.execute("update samples set split = 'train'")
        report = mine(store, MiningSettings(), "mine-1", "")
        found = store.frame("select external_id as item_id, x.* from samples join signals x using (sample_id)")
        joined = found.join(frame, on="item_id")
        truth = (joined[f"rater_{third}"] != joined[a]).to_numpy()
        scores = {
            name: round(float(average_precision_score(truth, joined[name].fill_null(-1.0).to_numpy())), 3)
            for name, n in report.signals.items()
            if n
        }
        print(f"  third = rater_{third}: base {truth.mean():.3f}; {scores}")


def confident(rows: int = 1_000_000, rounds: int = 3) -> None:
    """Sets must equal cleanlab's on the same labels and probabilities; then their times, in turn."""
    from cleanlab.filter import find_label_issues

    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=rows)
    logits = rng.normal(size=(rows, 4))
    logits[np.arange(rows), truth] += 1.5
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(rng.random(rows) < 0.2, rng.integers(4, size=rows), truth)
    ours, theirs = find_issues(labels, probs), find_label_issues(labels, probs, n_jobs=1)
    ways: dict[str, Callable[[], Any]] = {
        "mining.confident": lambda: find_issues(labels, probs),
        "cleanlab 2.9.0, n_jobs=1": lambda: find_label_issues(labels, probs, n_jobs=1),
        "cleanlab 2.9.0, n_jobs left alone": lambda: find_label_issues(labels, probs),
    }
    print(f"{rows:,} × 4: {ours.sum():,} issues, symmetric difference {(ours != theirs).sum()}", flush=True)
    for ratio in compare(ways, rounds):
        print(f"  {ratio}", flush=True)


def main() -> None:
    """Run what the command line names."""
    with tempfile.TemporaryDirectory() as name:
        parts = {"chorus": lambda: chorus(Path(name)), "confident": confident}
        for part in sys.argv[1:] or parts:
            parts[part]()


if __name__ == "__main__":
    main()
