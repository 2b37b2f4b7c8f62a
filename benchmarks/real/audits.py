"""What `piar audit` finds in real models: teachers that answer with their first token, and a fine-tuned encoder.

Rows are of dev and test, a query at a time; what people said of them is not used. A model that was audited is not
asked again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.real.sets import dealt, project
from benchmarks.real.students import ARMS
from piar.instructions.markdown import write
from piar.measure.audit import Audit
from store.files import write_text
from store.types import Instruction

SAID = {
    "chorus": Instruction(
        "Judge how well the product named in `name` fits what was searched for in `query`.",
        meanings={"3": "just what was searched for", "2": "it would do", "1": "merely related", "0": "it does not fit"},
    ),
    "semeval": Instruction(
        "Judge a student's `answer` to the `question` by the `reference` answer.",
        meanings={
            "correct": "it says the same",
            "contradictory": "it contradicts the reference",
            "incorrect": "it is wrong or incomplete in another way",
        },
    ),
}
ROWS = {"instruct05": 40, "instruct15": 40, "encoder": 200}
TAUGHT = 300  # rows that the encoder learns from
SECONDS = {"instruct05": 0.05, "instruct15": 0.2, "encoder": 0.03}  # a request takes, of one core; to plan by


def options(parser: argparse.ArgumentParser) -> None:
    """What may be chosen."""
    parser.add_argument("--sets", nargs="+", choices=list(SAID), default=list(SAID))
    parser.add_argument("--models", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rows", type=int, default=None, help="instead of 40 a teacher, 200 a student")
    parser.add_argument("--probes", nargs="+", default=None, help="only these")


def main(asked: argparse.Namespace, models: Path, results: Path) -> None:
    """Audit what was asked for and is not there yet."""
    kept = results / "audits.json"
    done: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name in asked.sets:
        for model in asked.models:
            key = " ".join([name, model, *(asked.probes or ())])
            if key in done:
                continue
            rows = asked.rows or ROWS[model]
            print(f"{key}: about {12 * rows * SECONDS[model]:,.0f} s of one core", flush=True)
            began, found = time.monotonic(), _audited(asked, models, name, model, rows)
            told = TypeAdapter(Audit).dump_python(found, mode="json")
            for probe in told["probes"]:
                del probe["examples"]  # ids of rows
            done[key] = {**told, "judge": model, "seconds": round(time.monotonic() - began)}
            write_text(kept, json.dumps(done, indent=1) + "\n")


def _audited(asked: argparse.Namespace, models: Path, name: str, model: str, rows: int) -> Audit:
    teacher = (f"teacher.model=hf:{models / model}", 'teacher.extra={dtype = "bfloat16"}')
    frame = dealt(name, 0, TAUGHT)
    at = project(name, frame, asked.out / f"{name}-audit", sets=() if model == "encoder" else teacher)
    (at.folder / "instruction.md").write_text(write(SAID[name], at.task), encoding="utf-8")
    judge = "teacher"
    if model == "encoder":
        shards, student = at.folder / "shards", at.folder / "students" / model
        if not student.exists():
            at.curriculum_export(shards)
            ARMS[model].teach(at, shards, student, str(models / model))
        judge = f"student:{student / 'final'}"
    return at.audit(judge, "split in ('dev', 'test')", rows=rows, probes=asked.probes)[0]
