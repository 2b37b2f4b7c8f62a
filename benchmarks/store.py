"""What the store costs beside the bare operation: importing a CSV of 1 M rows, recording 1 M verdicts."""

import tempfile
from itertools import count
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.timing import compare
from store.db import Store
from store.ids import content_id
from store.importers import ImportMapping, import_files
from store.task import Task
from store.types import Verdict

ROWS = 1_000_000
TASK = Task.model_validate(
    {
        "name": "bench",
        "group_by": "query",
        "fields": ["query", "title"],
        "grades": [{"symbol": str(i), "value": i} for i in range(4)],
    }
)


def run(rows: int = ROWS, rounds: int = 5) -> None:
    """Print both comparisons."""
    with tempfile.TemporaryDirectory() as folder:
        _imports(Path(folder), rows, rounds)
        _verdicts(Path(folder), rows, rounds)


def _imports(folder: Path, rows: int, rounds: int) -> None:
    path = folder / "rows.csv"
    _write_csv(path, rows)
    number = count()

    def bare() -> None:
        with duckdb.connect(str(folder / f"bare{next(number)}.duckdb")) as con:
            con.execute("set enable_progress_bar = false")
            con.execute("create table t as select * from read_csv(?)", [str(path)])

    def ours(raters: tuple[str, ...] = ()) -> None:
        store = Store.create(folder / f"ours{next(number)}.duckdb", TASK)
        report = import_files(store, [path], ImportMapping(gold="grade", raters=raters, id="id"), "run")
        assert report.added == rows, report

    print(f"import of {rows:,} rows, {path.stat().st_size / 1e6:.0f} MB, median of {rounds} interleaved rounds")
    ways = {
        "read_csv into a table": bare,
        "piar import, gold": ours,
        "piar import, gold and three raters": lambda: ours(("rater_1", "rater_2", "rater_3")),
    }
    for ratio in compare(ways, rounds):
        print(ratio)


def _write_csv(path: Path, rows: int) -> None:
    with duckdb.connect() as con:
        con.execute(
            f"""copy (
                select 'item-' || i as id, 'query about ' || (i % 25000) as query,
                       'a product title of usual length, in black, model ' || i as title,
                       i % 4 as rater_1, (i + i % 3) % 4 as rater_2, (i + i % 5) % 4 as rater_3, i % 4 as grade
                from range({rows}) t(i)) to '{path}' (header)"""
        )


def _verdicts(folder: Path, rows: int, rounds: int) -> None:
    verdicts = [
        Verdict("", content_id(str(i)), "baseline:tfidf", "", 0, str(i % 4), (0.1, 0.2, 0.3, 0.4)) for i in range(rows)
    ]
    arrow = pa.table(
        {
            "sample_id": [v.sample_id for v in verdicts],
            "judge": [v.judge for v in verdicts],
            "grade": [v.grade for v in verdicts],
            "probs": [v.probs for v in verdicts],
        }
    )
    store = Store.create(folder / "verdicts.duckdb", TASK)
    number = count()

    def bare() -> None:
        with duckdb.connect(str(folder / f"verdicts{next(number)}.duckdb")) as con:
            con.register("incoming", arrow)
            con.execute("create table t (sample_id uuid, judge varchar, grade varchar, probs float[])")
            con.execute("insert into t select * from incoming")

    print(f"recording {rows:,} verdicts, median of {rounds} interleaved rounds")
    ways = {"insert of an Arrow table": bare, "record_verdicts": lambda: store.record_verdicts(verdicts, "run")}
    for ratio in compare(ways, rounds):
        print(ratio)


if __name__ == "__main__":
    run()
