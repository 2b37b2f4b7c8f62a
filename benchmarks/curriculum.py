"""Export beside DuckDB scanning and writing the same bytes.

python -m benchmarks.curriculum [ROWS] [rulebook]
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from curriculum import CurriculumSettings, export
from store.fragments import literal
from tests import random_store


def run(rows: int, prompt: str) -> None:
    """Print wall clock, processor time and memory of one export, and of copying what it wrote."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = random_store.make(folder / "scale.duckdb", rows)
        settings = CurriculumSettings(suspects="all", teacher_confidence=0)
        began, cpu = time.monotonic(), time.process_time()
        manifest = export(store, folder / "out", random_store.INSTRUCTION, settings, prompt=prompt)  # type: ignore[arg-type]
        wall, used = time.monotonic() - began, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        files = literal(str(folder / "out" / "*" / "*.parquet"))
        began, cpu = time.monotonic(), time.process_time()
        with duckdb.connect() as con:
            con.execute("set memory_limit = '1500MB'; set preserve_insertion_order = false")
            con.execute(f"copy (from {files}) to {literal(str(folder / 'copy.parquet'))} (compression zstd)")
        copy, copy_cpu = time.monotonic() - began, time.process_time() - cpu
        total = sum(shard.rows for shard in manifest.shards)
        size = sum(shard.bytes for shard in manifest.shards) / 1e6
        print(f"export of {total:,} rows ({prompt}), {size:.0f} MB, {memory:.2f} GB of memory")
        print(f"  {wall:.0f} s, {used:.0f} s of processor; DuckDB reading and writing the same")
        print(f"  {copy:.0f} s, {copy_cpu:.0f} s of processor: {used / copy_cpu:.1f} ×")


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2] if len(sys.argv) > 2 else "short")
