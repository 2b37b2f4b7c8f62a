"""A million samples end to end with the offline teacher: rate and memory from the first to the last.

Samples are those of a simulated shop, made distinct. Two roads: `store` (rows of the project, verdicts in DuckDB) and
`pool` (Parquet in, Parquet out). Rates are samples a second of processor time, in ten equal stretches, so that a busy
machine does not matter; memory is what the system counts as resident.

    python -m benchmarks.teachers.million [store|pool] [SAMPLES]
"""

import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from piar.llm.cost import Budget
from piar.project.facade import Project
from piar.shop.world import make_shop
from store.ids import sample_id

BASE = 20_000


def texts(count):
    """Distinct pairs, as long as a shop's."""
    pairs = make_shop(BASE, 0).pairs.select("query", "title")
    copies = [
        pairs.with_columns(title=pl.col("title") + f" no. {n}", query=pl.col("query") + f" {n}")
        for n in range(-(-count // BASE))
    ]
    return pl.concat(copies).head(count)


def fill(project, pairs):
    """Put the pairs into the store as pool rows."""
    ids = [sample_id(query, (query, title)) for query, title in pairs.rows()]
    rows = pairs.with_columns(
        sample_id=pl.Series(ids), group_key="query", split=pl.lit("pool"), source=pl.lit("benchmark"),
        run_id=pl.lit("benchmark"), created_at=pl.lit("2026-01-01").str.to_datetime(),
    )  # fmt: skip
    project.store.insert("samples", rows.to_arrow())


class Watch:
    """Notes processor seconds and resident bytes as labelling goes on."""

    def __init__(self, count):
        self.count, self.seen = count, [(0, time.process_time(), resident())]

    def note(self, done):
        if done >= len(self.seen) * self.count / 10:
            self.seen.append((done, time.process_time(), resident()))
            (d0, t0, _), (d1, t1, memory) = self.seen[-2:]
            print(
                f"{d1:>10,} samples  {(d1 - d0) / (t1 - t0):>7,.0f} a CPU second  {memory / 1e6:>7,.0f} MB", flush=True
            )

    def report(self):
        rates = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in zip(self.seen, self.seen[1:], strict=False)]
        peak = max(memory for *_, memory in self.seen)
        print(f"last stretch at {rates[-1] / rates[0]:.0%} of the first, at most {peak / 1e9:.2f} GB")


def resident():
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main(road="store", count=1_000_000):
    with tempfile.TemporaryDirectory() as folder:
        project = Project.init(Path(folder) / "p", example="shop", pairs=300)
        if road == "pool":
            source = Path(folder) / "pool.parquet"
            texts(count).write_parquet(source)
            watch = Watch(count)
            project.label_pool(source, Path(folder) / "out.parquet", on_progress=lambda seen: watch.note(seen.done))
        else:
            fill(project, texts(count))
            watch = Watch(count)
            report, _ = project.label("split = 'pool'", budget=Budget(), on_progress=lambda seen: watch.note(seen.done))
            assert report.labelled >= count, report
        watch.report()


if __name__ == "__main__":
    main(*sys.argv[1:2], *(int(argument) for argument in sys.argv[2:3]))
