"""`mine` and `curriculum export` over many samples, beside DuckDB scanning and writing the same bytes.

python -m benchmarks.scale                       100,000 samples of everything
python -m benchmarks.scale mine 1e6 3e6 1e7      three verdicts each, signals from verdicts; writes .benchmarks/mine.svg
python -m benchmarks.scale export 1e6 3e6 1e7    about 0.9 exported rows for each sample; writes .benchmarks/export.svg
python -m benchmarks.scale texts 1e6             near-duplicates and neighbours, apart

Each step runs in a process of its own, so that its memory is its own. A store of 10 M samples takes about 3 GB.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb

from benchmarks.process import Cost, alone, plot
from curriculum import CurriculumSettings, export
from mining import MiningSettings, mine
from mining.computed import Work, near_duplicate, neighbour_conflict
from mining.judged import Columns, Judges, make_judged
from store.db import Store
from store.fragments import literal
from store.judges import id_ranges
from tests import random_store

OUT = Path(".benchmarks")
_SAID = "select sample_id, judge, instruction, vote, grade, probs, rules from verdicts"


def _store(folder: Path) -> Store:
    return Store.open(folder / "scale.duckdb", random_store.TASK)


def fill(folder: Path, rows: int, votes: int) -> None:
    """A store; with three votes one sample in ten has gold, and the third verdict is a student's or an older one."""
    many = votes == 3
    random_store.make(folder / "scale.duckdb", rows, votes=votes, difficulty=not many, labelled=10 if many else 1,
                      others=many)  # fmt: skip


def mine_all(folder: Path) -> dict[str, float]:
    """Every signal that comes from verdicts, difficulty and the queue; returns seconds by part."""
    return mine(_store(folder), MiningSettings(texts=False), "mine-1", random_store.INSTRUCTION.id).seconds


def copy_mined(folder: Path) -> None:
    """DuckDB reading the verdicts' columns and writing them, the signals and the difficulty to another file."""
    with _store(folder).write() as con:
        con.execute(f"attach {literal(str(folder / 'copy.duckdb'))} as copied")
        for name, query in (("said", _SAID), ("signals", "from signals"), ("difficulty", "from difficulty")):
            con.execute(f"create table copied.{name} as {query}")


def export_all(folder: Path) -> int:
    """Every row with gold or a teacher's grade, suspects too; returns how many rows were written."""
    settings = CurriculumSettings(suspects="all", teacher_confidence=0)
    manifest = export(_store(folder), folder / "shards", random_store.INSTRUCTION, settings)
    return sum(shard.rows for shard in manifest.shards)


def copy_exported(folder: Path) -> None:
    """DuckDB reading the shards and writing one Parquet file of them."""
    with duckdb.connect() as con:
        con.execute(
            "set memory_limit = '1500MB'; set preserve_insertion_order = false; set enable_progress_bar = false"
        )
        shards, copy = literal(str(folder / "shards" / "*" / "*.parquet")), literal(str(folder / "copy.parquet"))
        con.execute(f"copy (from {shards}) to {copy} (format parquet, compression zstd, row_group_size 60000)")


def one_text_signal(folder: Path, name: str) -> None:
    """Near-duplicates or neighbours alone, over samples that were judged."""
    store = _store(folder)
    with store.read() as con:
        con.execute("set memory_limit = '3GB'")
        judges = Judges(random_store.JUDGE, "", random_store.INSTRUCTION.id)
        make_judged(con, store, judges, id_ranges(con, 1_000_000))
        work = Work(con, store, MiningSettings(), Columns(len(store.task.symbols)))
        {"near-duplicates": near_duplicate, "neighbours": neighbour_conflict}[name](work)


def judged_only(folder: Path) -> None:
    """What `one_text_signal` does before its signal, to be taken off."""
    store = _store(folder)
    with store.read() as con:
        make_judged(con, store, Judges(random_store.JUDGE, "", random_store.INSTRUCTION.id), id_ranges(con, 1_000_000))


def grow(sizes: list[int], votes: int, work: Callable[[Path], object], bare: Callable[[Path], object]) -> None:
    """Run a step and its bare counterpart at each size; print both and draw how they grow."""
    found: list[tuple[int, Cost, Cost]] = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            alone(fill, folder, rows, votes)
            ours, theirs = alone(work, folder), alone(bare, folder)
        found.append((rows, ours, theirs))
        ratio = ours.processor / theirs.processor
        print(f"{work.__name__} {rows:>11,}: {ours} · bare {theirs} · {ratio:.1f} × the processor time, "
              f"{ours.processor / rows * 1e6:.1f} s a million; {ours.result}", flush=True)  # fmt: skip
    lines = {
        "processor seconds": [(n, ours.processor) for n, ours, _ in found],
        "wall seconds": [(n, ours.seconds) for n, ours, _ in found],
        "DuckDB scanning and writing the same, processor": [(n, bare.processor) for n, _, bare in found],
    }
    name = work.__name__.removesuffix("_all")
    plot(OUT / f"{name}.svg", f"piar {name}: seconds over samples", lines)


def texts(sizes: list[int]) -> None:
    """Near-duplicates and neighbours, each alone, without what comes before them."""
    for rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            alone(fill, folder, rows, 1)
            before = alone(judged_only, folder)
            for signal in ("near-duplicates", "neighbours"):
                cost = alone(one_text_signal, folder, signal)
                took, used = cost.seconds - before.seconds, cost.processor - before.processor
                print(f"{signal} {rows:>11,}: {took:7.1f} s, {used:7.1f} s of processor, {cost.gigabytes:5.2f} GB",
                      flush=True)  # fmt: skip


def main() -> None:
    """Run what the command line names."""
    what, sizes = sys.argv[1:2], [int(float(size)) for size in sys.argv[2:]] or [100_000]
    if shutil.disk_usage(tempfile.gettempdir()).free < 1_000 * max(sizes):
        raise SystemExit("Not enough room for temporary files: a store needs up to a kilobyte a sample.")
    for name in what or ["mine", "export", "texts"]:
        if name == "mine":
            grow(sizes, 3, mine_all, copy_mined)
        elif name == "export":
            grow(sizes, 1, export_all, copy_exported)
        else:
            texts(sizes)


if __name__ == "__main__":
    main()
