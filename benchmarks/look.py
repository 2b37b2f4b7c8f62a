"""`piar look` on a CSV of a million rows, beside DuckDB reading the same file; alpha beside the krippendorff library.

Run: python -m benchmarks.look [ROWS]
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import krippendorff
import numpy as np
import polars as pl

from piar.look import look
from store.agreement import dawid_skene, krippendorff_alpha, vote_counts


def generate(path: Path, rows: int) -> np.ndarray:
    """A file of judgements with three raters around a truth; returns the votes (rows, 3)."""
    rng = np.random.default_rng(0)
    words = np.array(
        [a + b + c for a in "bcdfgklmnprst" for b in ("ako", "eli", "ora", "uti") for c in ("", "ne", "st")]
    )
    queries = np.array([" ".join(rng.choice(words, 2)) for _ in range(max(2, rows // 25))])
    titles = [" ".join(row) for row in words[rng.integers(0, len(words), (rows, 5))]]
    truth = rng.choice(4, rows, p=[0.45, 0.1, 0.05, 0.4])
    votes = np.stack([np.where(rng.random(rows) < 0.8, truth, rng.integers(0, 4, rows)) for _ in range(3)], axis=1)
    columns = {"query": queries[rng.integers(0, len(queries), rows)], "title": titles}
    raters = {f"rater_{i + 1}": votes[:, i] for i in range(3)}
    pl.DataFrame(columns | raters | {"grade": truth}).write_csv(path)
    return votes


def seconds(action: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(rows: int) -> dict[str, float]:
    """All figures of one run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "judgements.csv"
        votes = generate(path, rows)
        bare = seconds(lambda: duckdb.sql(f"create or replace temp table t as from read_csv('{path}')"))
        ours = seconds(lambda: look(path))
    items, raters = np.divmod(np.arange(votes.size), 3)
    counts = vote_counts(items, votes.reshape(-1), rows, 4)
    alpha = seconds(lambda: krippendorff_alpha(counts))
    library = seconds(lambda: krippendorff.alpha(votes.T.astype(float), level_of_measurement="nominal"))
    skene = seconds(lambda: dawid_skene(items, raters, votes.reshape(-1), n_items=rows, n_raters=3, k=4))
    return {
        "rows": rows,
        "look_seconds": ours[0],
        "look_cpu_seconds": ours[1],
        "duckdb_read_seconds": bare[0],
        "look_over_read": ours[0] / bare[0],
        "alpha_with_interval_seconds": alpha[0],
        "alpha_library_seconds": library[0],
        "dawid_skene_seconds": skene[0],
        "votes": votes.size,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000), indent=1))
