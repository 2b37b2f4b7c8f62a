"""Mining: what each signal finds on a simulated shop and on Chorus, confident learning beside cleanlab, and scale.

python -m benchmarks.mining                  quality, Chorus, confident learning, 100,000 samples
python -m benchmarks.mining scale 1000000    `mine` over that many samples, three verdicts each
python -m benchmarks.mining texts 1000000    near-duplicates and neighbours alone
"""

import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl

from benchmarks.timing import compare
from mining import MiningSettings, mine
from mining.confident import find_issues
from piar.label import judge
from piar.llm.rulebook import RulebookClient
from piar.shop import make_shop
from store.db import Store
from store.importers import ImportMapping, import_files
from store.journal import Journal
from tests import random_store
from tests.data import shared

Frame = pl.DataFrame


def quality(folder: Path, pairs: int = 3000) -> None:
    """Average precision of every signal, and of the queue's first rows, on planted faults; a simulated world."""
    world, rng = make_shop(pairs, 0), Random(0)
    rows = world.pairs.to_dicts()
    ambiguous = {row["pair"] for row in rows if rng.random() < 0.05}
    for row in rows:
        if row["pair"] in ambiguous:
            row |= {name: rng.choice("0123") for name in ("rater_1", "rater_2", "rater_3")}
    copies = [row | {"pair": f"copy-{i}", "title": _retyped(row["title"], rng)}
              for i, row in enumerate(rng.sample(rows, pairs // 30))]  # fmt: skip
    pl.DataFrame(rows + copies).write_csv(folder / "shop.csv")
    store = Store.create(folder / "shop.duckdb", world.task)
    mapping = ImportMapping(fields={"query": "query", "title": "title"}, gold="grade", group="query", id="pair",
                            raters=("rater_1", "rater_2", "rater_3"))  # fmt: skip
    import_files(store, [folder / "shop.csv"], mapping, "import-1", 0)
    with store.write() as con:
        con.execute("update samples set split = 'train'")  # nothing is held out here: every planted fault can be found
    client = RulebookClient(noise=0.1, seed=1)
    journal = Journal(folder / "journal")
    judge(store, client, world.oracle, store.samples(), journal=journal, votes=3)
    judge(store, client, world.seed, store.samples(), journal=journal)
    journal.close()
    top = pairs // 10
    report = mine(store, MiningSettings(top=top), "mine-1", world.oracle.id)
    wrong = set(world.answers.filter(pl.col("gold_wrong") != "")["pair"])
    frame = store.frame("select s.external_id as pair, x.*, q.reason from samples s join signals x using (sample_id) "
                        "left join queue q using (sample_id)")  # fmt: skip
    own = frame.filter(~pl.col("pair").str.starts_with("copy"))
    labels = {"wrong gold": own["pair"].is_in(list(wrong)), "ambiguous": own["pair"].is_in(list(ambiguous))}
    print(f"shop (simulated), {pairs} pairs: {report.queue}")
    for name, truth in labels.items():
        print(f"average precision for {name}; base rate {truth.mean():.3f}")
        for signal in report.signals:
            print(f"  {signal:24} {_ap(truth, own[signal]):.3f}")
        if name == "wrong gold":
            print(f"  {'cleanlab 2.9.0 ranking':24} {_ap(truth, _cleanlab(store, own)):.3f}")
        print(f"  {'random':24} {_ap(truth, pl.Series(np.random.default_rng(0).random(len(own)))):.3f}")
    suspects = own.filter(pl.col("reason") == "suspect gold")["pair"].is_in(list(wrong))
    whole = own.filter(pl.col("reason").is_not_null())["pair"]
    faults = wrong | ambiguous
    print(f"queue of {top}: suspect gold precision {suspects.mean():.2f} of {len(suspects)}")
    print(f"  all: precision {whole.is_in(list(faults)).mean():.2f}")
    for name, planted in (("wrong gold", wrong), ("ambiguous", ambiguous)):
        print(f"  recall of {name} {len(set(whole) & planted) / len(planted):.2f}")
    near = store.frame("select external_id, query from signals join samples using (sample_id) where near_duplicate > 0")
    found = set(near["query"])
    hit = sum(copy["query"] in found for copy in copies)
    print(f"near-duplicates: {len(near)} found; {hit} of {len(copies)} planted copies have one under their query")


def _retyped(title: str, rng: Random) -> str:
    """The same product typed again: other case, and a word more."""
    return f"{title.upper()} {rng.choice(('new', 'sale', 'original'))}"


def chorus(folder: Path) -> None:
    """Do signals from two raters find the rows where the third disagrees with both, or with their majority?"""
    frame = pl.read_csv(shared("chorus/chorus.csv"), infer_schema=False)
    print("Chorus: average precision for rows where the third rater disagrees with the first (base rate beside it)")
    for third in (1, 2, 3):
        a, b = (f"rater_{n}" for n in (1, 2, 3) if n != third)
        path, store = folder / f"chorus{third}.csv", None
        frame.write_csv(path)
        store = Store.create(folder / f"chorus{third}.duckdb", random_store.TASK.model_copy(
            update={"fields": ("query", "name"), "steps": ()}))  # fmt: skip
        mapping = ImportMapping(fields={"query": "query", "name": "name"}, raters=(a, b), group="query", id="item_id")
        import_files(store, [path], mapping, "import-1", 0)
        with store.write() as con:
            con.execute("update samples set split = 'train'")
        report = mine(store, MiningSettings(), "mine-1", "")
        found = store.frame("select external_id as item_id, x.* from samples join signals x using (sample_id)")
        joined = found.join(frame, on="item_id")
        truth = joined[f"rater_{third}"] != joined[a]
        scores = {name: round(_ap(truth, joined[name]), 3) for name, n in report.signals.items() if n}
        print(f"  third = rater_{third}: base {truth.mean():.3f}; {scores}")


def confident(rows: int = 1_000_000, rounds: int = 3) -> None:
    """Time ratio to cleanlab on the same labels and probabilities, after checking that the sets are equal."""
    from cleanlab.filter import find_label_issues

    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=rows)
    logits = rng.normal(size=(rows, 4))
    logits[np.arange(rows), truth] += 1.5
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(rng.random(rows) < 0.2, rng.integers(4, size=rows), truth)
    for method in ("confident_learning", "prune_by_noise_rate"):
        ours, theirs = find_issues(labels, probs, method), find_label_issues(labels, probs, filter_by=method, n_jobs=1)
        ways: dict[str, Callable[[], Any]] = {
            "mining.confident": lambda m=method: find_issues(labels, probs, m),
            "cleanlab 2.9.0": lambda m=method: find_label_issues(labels, probs, filter_by=m, n_jobs=1),
        }
        print(f"{method}, {rows:,} × 4: {ours.sum():,} issues, symmetric difference {(ours != theirs).sum()}")
        for ratio in compare(ways, rounds):
            print(f"  {ratio}")


def scale(folder: Path, rows: int, *, texts: bool = False) -> None:
    """`mine` over random samples: three verdicts each (two votes and an older version), one in ten labelled."""
    store = random_store.make(folder / "scale.duckdb", rows, votes=2, difficulty=False)
    with store.write() as con:
        con.execute("delete from labels where hash(sample_id, 9) % 10 > 0")
        con.execute(
            "insert into verdicts select * replace ('older' as instruction, key || 'o' as key) "
            "from verdicts where vote = 0"
        )
    before = time.process_time()
    began = time.monotonic()
    report = mine(store, MiningSettings(texts=texts), "mine-1", random_store.INSTRUCTION.id)
    used = time.process_time() - before
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with store.read() as con:
        con.execute("select min(sample_id), min(grade), min(probs[1]), min(rules[1]) from verdicts").fetchall()
        start, cpu = time.monotonic(), time.process_time()
        con.execute("copy (select sample_id, judge, instruction, vote, grade, probs, rules from verdicts) "
                    f"to '{folder / 'scan.parquet'}'")  # fmt: skip
        scan, scan_cpu = time.monotonic() - start, time.process_time() - cpu
    wall = time.monotonic() - began - scan
    print(
        f"mine, {rows:,} samples × 3 verdicts, texts {texts}: {wall:.0f} s, {used:.0f} s of processor, {memory:.2f} GB"
    )
    print(
        f"  scanning and writing the same verdicts {scan:.0f} s, {scan_cpu:.0f} s of processor: {used / scan_cpu:.1f} ×"
    )
    print(f"  {report.seconds}")


def _ap(truth: pl.Series, score: pl.Series) -> float:
    from sklearn.metrics import average_precision_score

    values = score.cast(pl.Float64).fill_null(-1.0).fill_nan(-1.0)
    return float(average_precision_score(truth.to_numpy(), values.to_numpy()))


def _cleanlab(store: Store, own: Frame) -> pl.Series:
    """cleanlab's label quality (1 − self-confidence) of its issues, from the same probabilities."""
    from cleanlab.filter import find_label_issues

    probs = store.frame("select sample_id, list(probs order by vote) as p, any_value(truth.grade) as g from verdict "
                        "join truth using (sample_id) "
                        "where instruction in (select instruction from verdict where vote = 1) "
                        "group by sample_id")  # fmt: skip
    p = np.array([np.mean(row, axis=0) for row in probs["p"].to_list()])
    p /= p.sum(axis=1, keepdims=True)
    g = probs["g"].cast(pl.Int64).to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        issues = find_label_issues(g, p, n_jobs=1)
    score = np.where(issues, 1 - p[np.arange(len(g)), g], -1.0)
    table = pl.DataFrame({"sample_id": probs["sample_id"], "score": score})
    return own.join(table, on="sample_id", how="left", maintain_order="left")["score"]


def main() -> None:
    """Run what the command line names."""
    what = sys.argv[1:2] or ["quality", "chorus", "confident", "scale"]
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {
            "quality": lambda: quality(folder),
            "chorus": lambda: chorus(folder),
            "confident": confident,
            "scale": lambda: scale(folder, rows),
            "texts": lambda: scale(folder, rows, texts=True),
        }
        for part in what:
            parts[part]()


if __name__ == "__main__":
    main()
