"""Does a student from nothing learn the *simulated* shop's hidden rulebook, and what do simpler learners reach?

    OMP_NUM_THREADS=1 python -m benchmarks.trainers.learning [-o DIR] [--parts NAME …] [SEED …]

For each seed (0 1 2): a world of 30,000 pairs with 4 % wrong gold, `piar train sft` as it comes (six epochs, 2,530
steps; `--set train.sft.steps=1800` ends within ten minutes on one core), and on held-out queries with their true grades
(the hidden rulebook itself would be right on all of them): accuracy of the student and of everything it has to beat,
the share of its right answers whose trace cites the right rule with verbatim evidence, seconds of training on the
clock, and latency of one sample. What is done is not done again: a call that was cut short goes on in the next one,
with the same steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.trainers.measure import by_field, milliseconds, teacher_grades, trace_hits
from benchmarks.trainers.shop import Rows, write_shop
from piar.measure import baselines
from piar.shop.policies import seed_instruction
from store.manifest import MANIFEST, Manifest, read_manifest
from store.task import Task
from trainers import encoder
from trainers.checkpoint import MARKER, read_card
from trainers.data import read_rows
from trainers.scoring import Student

TRACED = 1000  # held-out rows whose trace is written
TIMED = 50  # samples timed one by one

Figures = dict[str, Any]


@dataclass(frozen=True)
class World:
    """One seed's shards, and the folder of everything made from them."""

    folder: Path
    seed: int
    overrides: Sequence[str]

    @cached_property
    def manifest(self) -> Manifest:
        """Of the shards."""
        return read_manifest(self.folder / "shards")

    @property
    def task(self) -> Task:
        """What is judged."""
        return self.manifest.task

    def rows(self, kind: Any) -> Rows:
        """All rows of the shards of a kind."""
        found = read_rows(self.folder / "shards", self.manifest, kind)
        return [row for part in found.values() for row in part]

    @property
    def checkpoint(self) -> Path:
        """The trained student."""
        return self.folder / "sft" / "final"

    def frame(self, rows: Rows) -> pl.DataFrame:
        """Fields and gold as the baselines of `piar.measure.baselines` read them."""
        fields = {name: [row["fields"][i] for row in rows] for i, name in enumerate(self.task.fields)}
        return pl.DataFrame({**fields, "gold": [row["grade"] for row in rows]})


def student(world: World) -> Figures:
    """`piar train sft`, or what it left; seconds are those of its steps on the clock, whoever else was busy."""
    if not (world.checkpoint / MARKER).exists():
        sets = [f"--set={s}" for s in (*world.overrides, f"train.sft.seed={world.seed}", "train.sft.save_every=300")]
        line = [sys.executable, "-m", "piar", "train", "sft", str(world.folder / "shards"), "-C", str(world.folder),
                "-o", str(world.folder / "sft"), "--resume", *sets]  # fmt: skip
        if code := subprocess.run(line, stdout=subprocess.DEVNULL).returncode:
            raise SystemExit(code)
    card = read_card(world.checkpoint)
    log = [json.loads(line) for line in (world.folder / "sft" / "metrics.jsonl").read_text().splitlines()]
    seconds = statistics.mean(record["step_time"] for record in log if "step_time" in record) * log[-1]["step"]
    return {
        "rows": card.rows["mid"], "held_out": card.rows["dev"], "steps": log[-1]["step"], "seconds": round(seconds, 1),
        "student": card.metrics["dev/accuracy"], "student_low": card.metrics["dev/accuracy_low"],
        "student_high": card.metrics["dev/accuracy_high"], "oracle": 1.0,
    }  # fmt: skip


def traces(world: World) -> Figures:
    """Of the right answers: traces that parse, cite exactly the right rule, quote verbatim, and both."""
    hits = trace_hits(Student.load(world.checkpoint), world.rows("eval")[:TRACED], world.manifest)
    _, parse, rule, evidence = hits[hits[:, 0]].T
    found = {"parse": parse, "rule": rule, "evidence": evidence, "both": rule & evidence}
    return {f"trace_{name}": float(hit.mean()) if len(hit) else 0.0 for name, hit in found.items()}


def simple(world: World) -> Figures:
    """Accuracy on held-out queries of the baselines, and of the offline teacher with the first guideline."""
    train, held = world.frame(world.rows("train")), world.frame(world.rows("eval"))
    gold = np.array([world.task.index(grade) for grade in held["gold"]])
    found = {
        name: float((baselines.fit(name, train, world.task).predict(held).argmax(1) == gold).mean())
        for name in ("majority", "tfidf", "tfidf_overlap")
    }
    said = teacher_grades(world.folder, "held", world.task, world.rows("eval"), seed_instruction())
    return found | {"teacher": float(np.mean([a == b for a, b in zip(said, held["gold"], strict=True)]))}


def by_encoder(world: World) -> Figures:
    """The encoder from nothing on the same rows."""
    return {"encoder": encoder.train(world.folder / "shards", world.folder / "encoder").metrics["dev/accuracy"]}


def latency(world: World) -> Figures:
    """Median and 99th percentile of milliseconds for one sample, on the clock."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    judge, asked, where = Student.load(world.checkpoint), world.rows("eval")[:TIMED], world.folder / "encoder" / "final"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(where), AutoTokenizer.from_pretrained(where)
    linear = baselines.fit("tfidf_overlap", world.frame(world.rows("train")), world.task)
    ways: dict[str, Callable[[Rows], object]] = {
        "first token": lambda row: judge.score(by_field(world.task, row)),
        "grade and trace": lambda row: judge.score(by_field(world.task, row), trace=True),
        "encoder": lambda row: encoder.predict(model, tokenizer, row, world.task, 256),
        "tfidf_overlap": lambda row: linear.predict(world.frame(row)),
    }
    taken = {name: milliseconds(way, asked) for name, way in ways.items()}
    return {
        "latency_ms": {name: [round(float(np.percentile(ms, q)), 1) for q in (50, 99)] for name, ms in taken.items()}
    }


PARTS: dict[str, Callable[[World], Figures]] = {
    "student": student, "traces": traces, "simple": simple, "encoder": by_encoder, "latency": latency,
}  # fmt: skip


def seed_run(world: World, pairs: int, parts: Sequence[str]) -> Figures:
    """Figures of one seed; each part is kept in `figures.json` as soon as it is there."""
    kept = world.folder / "figures.json"
    done: dict[str, Figures] = json.loads(kept.read_text()) if kept.exists() else {}
    if not (world.folder / "shards" / MANIFEST).exists():
        write_shop(world.folder / "shards", pairs, world.seed)
    for name in parts:
        if name not in done:
            done[name] = PARTS[name](world)
            kept.write_text(json.dumps(done, indent=1))
    return {"seed": world.seed} | {name: value for part in done.values() for name, value in part.items()}


def main() -> None:
    """Run the seeds; print each and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("-o", "--out", type=Path, default=Path("learning"))
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    asked = parser.parse_args()
    found = []
    for seed in asked.seeds:
        world = World(asked.out.resolve() / f"seed-{seed}", seed, asked.overrides)
        found.append(seed_run(world, asked.pairs, asked.parts))
        print(json.dumps(found[-1]), flush=True)
    numbers = [name for name, value in found[0].items() if isinstance(value, float)]
    print(json.dumps({"median": {name: round(statistics.median(f[name] for f in found), 3) for name in numbers}}))


if __name__ == "__main__":
    main()
