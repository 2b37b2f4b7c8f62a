"""Does a student from nothing learn the *simulated* shop's hidden rulebook, and what do simpler learners reach?

    OMP_NUM_THREADS=1 python -m benchmarks.trainers.learning [-o DIR] [--pairs N] [--set KEY=VALUE] [SEED …]

For each seed (0 1 2): a world of 30,000 pairs with 4 % wrong gold, `piar train sft` as it comes, and on held-out
queries with their true grades (the hidden rulebook itself would be right on all of them): accuracy of the student and
of everything it has to beat, the share of its right answers whose trace cites the right rule with verbatim evidence,
CPU seconds, and latency of one sample. A seed that is done is not run again, one that was cut short is resumed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.trainers.shop import write_shop
from piar import baselines
from piar.config import load
from piar.llm.connect import ModelSettings
from piar.llm.rulebook import RulebookClient
from piar.pool import Pool
from piar.shop import ShopWorld
from store.manifest import Manifest, read_manifest
from trainers import encoder, sft
from trainers.data import read_rows
from trainers.rewards import case, evidence_reward, rulebook
from trainers.scoring import Student

TRACED = 1000  # held-out rows whose trace is written
TIMED = 50  # samples timed one by one

Rows = list[dict[str, Any]]


def seed_run(folder: Path, seed: int, pairs: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Figures of one seed; kept in `figures.json`."""
    done = folder / "figures.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    shards = folder / "shards"
    world = write_shop(shards, pairs, seed)
    rows = {kind: [row for part in read_rows(shards, read_manifest(shards), kind).values() for row in part]
            for kind in ("train", "eval")}  # fmt: skip
    settings = load(folder, [*overrides, f"train.sft.seed={seed}", "train.sft.save_every=300"], optional=True)
    began = time.process_time()
    trained = sft.train(shards, folder / "sft", student=settings.student, settings=settings.train.sft, resume=True)
    seconds = time.process_time() - began
    found = {
        "seed": seed, "rows": len(rows["train"]), "held_out": len(rows["eval"]), "steps": trained.steps,
        "cpu_seconds_since_resume": round(seconds), "student": trained.metrics["dev/accuracy"],
        "student_low": trained.metrics["dev/accuracy_low"], "oracle": 1.0,
        **simple_learners(rows, world, folder), **traces(trained.checkpoint, rows["eval"], read_manifest(shards)),
        "latency_ms": latencies(trained.checkpoint, folder, rows, world),
    }  # fmt: skip
    done.write_text(json.dumps(found, indent=1))
    return found


def frame(rows: Rows, world: ShopWorld) -> pl.DataFrame:
    """Fields and gold as the baselines of `piar.baselines` read them."""
    fields = {name: [row["fields"][i] for row in rows] for i, name in enumerate(world.task.fields)}
    return pl.DataFrame({**fields, "gold": [row["grade"] for row in rows]})


def simple_learners(rows: dict[str, Rows], world: ShopWorld, folder: Path) -> dict[str, float]:
    """Accuracy on held-out queries of the baselines, the encoder, and the offline teacher with the first guideline."""
    train, held = frame(rows["train"], world), frame(rows["eval"], world)
    gold = np.array([world.task.index(grade) for grade in held["gold"]])
    found = {
        name: float((baselines.fit(name, train, world.task).predict(held).argmax(1) == gold).mean())
        for name in ("majority", "tfidf", "tfidf_overlap")
    }
    found["encoder"] = encoder.train(folder / "shards", folder / "encoder").metrics["dev/accuracy"]
    asked, answered = folder / "held.parquet", folder / "teacher.parquet"
    pq.write_table(pa.table({name: held[name].to_list() for name in world.task.fields}), asked)
    Pool(world.task, RulebookClient(), world.seed, ModelSettings()).label(asked, answered)
    said = pq.read_table(answered)["piar_grade"].to_pylist()
    found["teacher_first_guideline"] = float(np.mean([a == b for a, b in zip(said, held["gold"], strict=True)]))
    return found


def traces(checkpoint: Path, rows: Rows, manifest: Manifest) -> dict[str, float]:
    """Of the right answers: traces that parse, cite exactly the right rule, quote verbatim, and both."""
    student, asked = Student.load(checkpoint), rows[:TRACED]
    scored = student.score(_fields(student, asked), trace=True)
    right = [(one, row) for one, row in zip(scored, asked, strict=True) if one.grade == row["grade"]]
    rules, hits = rulebook(manifest), dict.fromkeys(("parse", "rule", "evidence", "both"), 0)
    for one, row in right:
        tried = case(one.text or "", True, row, student.task, rules)
        cites = tried.trace is not None and list(tried.trace.rules) == list(row["rules"])
        quotes = bool(evidence_reward(tried))
        for name, hit in (("parse", tried.trace is not None), ("rule", cites), ("evidence", quotes),
                          ("both", cites and quotes)):  # fmt: skip
            hits[name] += hit
    return {f"trace_{name}": n / max(1, len(right)) for name, n in hits.items()}


def _fields(student: Student, rows: Rows) -> list[dict[str, str]]:
    return [dict(zip(student.task.fields, row["fields"], strict=True)) for row in rows]


def latencies(checkpoint: Path, folder: Path, rows: dict[str, Rows], world: ShopWorld) -> dict[str, list[float]]:
    """Median and 99th percentile of milliseconds for one sample, on the clock."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from trainers.config import EncoderSettings

    student, asked = Student.load(checkpoint), rows["eval"][:TIMED]
    where = folder / "encoder" / "final"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(where), AutoTokenizer.from_pretrained(where)
    linear = baselines.fit("tfidf_overlap", frame(rows["train"], world), world.task)
    ways: dict[str, Callable[[dict[str, Any]], object]] = {
        "first token": lambda row: student.score(_fields(student, [row])),
        "grade and trace": lambda row: student.score(_fields(student, [row]), trace=True),
        "encoder": lambda row: encoder.predict(model, tokenizer, [row], world.task, EncoderSettings()),
        "tfidf_overlap": lambda row: linear.predict(frame([row], world)),
    }
    return {name: _percentiles(way, asked) for name, way in ways.items()}


def _percentiles(way: Callable[[dict[str, Any]], object], rows: Rows) -> list[float]:
    taken = []
    for row in rows:
        began = time.perf_counter()
        way(row)
        taken.append(1e3 * (time.perf_counter() - began))
    return [round(float(np.percentile(taken, q)), 1) for q in (50, 99)]


def main() -> None:
    """Run the seeds; print each and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("-o", "--out", type=Path, default=Path("learning"))
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    asked = parser.parse_args()
    found = []
    for seed in asked.seeds:
        found.append(seed_run(asked.out / f"seed-{seed}", seed, asked.pairs, asked.overrides))
        print(json.dumps(found[-1]), flush=True)
    numbers = [name for name, value in found[0].items() if isinstance(value, float)]
    print(json.dumps({"median": {name: round(statistics.median(f[name] for f in found), 3) for name in numbers}}))


if __name__ == "__main__":
    main()
