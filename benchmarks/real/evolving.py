"""`evolve` with one small model as teacher and reviser, beside gepa at as many calls of the teacher; what either ships.

A part of a set: three rows of each group, forty or so to learn from, as many to choose and to decide by, and the groups
of its test split to report on. gepa has our dev and holdout as its validation set. Answers are kept as they come, so
that a run that was cut off goes on; accuracy on test is asked outside the count. A text that is shipped stays in the
work folder.
"""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.real.results import put
from benchmarks.real.serving import Kept, served
from benchmarks.real.sets import SETS, dealt, project
from piar import Project
from piar.connect import connect
from piar.evolve.run import EvolveSettings, Models, evolve
from piar.evolve.settings import AuditSettings, ReviserSettings, RevisionSettings
from piar.instructions.prompts import judge_prefix
from piar.judging.session import Respondent
from piar.llm.base import Message, Request
from piar.llm.settings import ModelSettings
from store.files import write_text
from store.ids import content_id
from store.journal import Journal
from store.stats import paired_gain
from store.task import sample_text
from store.types import Instruction
from tests.environments import peer_python

ROWS = 3  # of a group
GROUPS = {"train": 14, "dev": 8, "holdout": 9, "test": 40}
ANSWER = 320  # tokens of a reviser's answer at most
MODELS = ("instruct05", "instruct15")


@dataclass(frozen=True, slots=True)
class Arm:
    """One optimizer: changed settings of ours, or gepa's own defaults."""

    search: Mapping[str, Any] = field(default_factory=dict)
    revision: Mapping[str, Any] = field(default_factory=dict)
    held: bool = True  # to the schema


ARMS = {
    "rules": Arm(),
    "rules and examples": Arm(revision={"max_examples": 4}),
    "rules answered freely": Arm(held=False),
    "gepa": Arm(),
    "without the offline draft": Arm(revision={"draft": "none"}),
    "without diagnosis": Arm(revision={"diagnose": "none"}),
    "without racing": Arm({"race": "whole"}),
}
USUAL = tuple(ARMS)[:4]


def part(name: str, split: int) -> pl.DataFrame:
    """A few rows of many groups of a set; the test split's groups stay apart."""
    frame, rng = dealt(name, split), np.random.default_rng(split)
    group, taken = SETS[name].group, list[pl.DataFrame]()
    learn = frame.filter(pl.col("split") != "test")
    for kinds, rows in ((("train", "dev", "holdout"), learn), (("test",), frame.filter(pl.col("split") == "test"))):
        names = rng.permutation(np.array(rows[group].unique().sort().to_list(), dtype=object)).tolist()
        for kind in kinds:
            chosen, names = names[: GROUPS[kind]], names[GROUPS[kind] :]
            mine = rows.filter(pl.col(group).is_in(chosen)).group_by(group, maintain_order=True).head(ROWS)
            taken.append(mine.select(frame.columns).with_columns(split=pl.lit(kind)))
    return pl.concat(taken)


def ours(at: Project, client: Kept, arm: Arm, folder: Path, calls: int, seed: int) -> dict[str, Any]:
    """A search of ours: what it ends with, and how far each reviser's proposals came."""
    settings = EvolveSettings(
        rounds=2,
        seed=seed,
        kept_back=0.0,
        max_calls=calls,
        revision=RevisionSettings(candidates=2, evidence=12, max_words=40, max_operations=3, **arm.revision),
        audit=AuditSettings(items=0, canary=0),
        **arm.search,
    )
    reviser = ReviserSettings(max_tokens=ANSWER, structured=arm.held)
    models = Models(Respondent(client, ModelSettings(structured=False)), Respondent(client, reviser))
    journal = Journal(folder / "journal")
    report, standing = evolve(at.store, models, at.instruction(), settings, journal=journal)
    journal.close()
    told = {"text": standing, "calls": report.calls, "ended": report.ending, "revisers": report.revisers}
    return told | {"reason": report.promotions[-1]["reason"] if report.promotions else report.detail}


def gepa(
    at: Project, client: Kept, rows: Mapping[str, Sequence[Any]], folder: Path, calls: int, seed: int
) -> dict[str, Any]:
    """gepa, its authors' settings: the preamble is what it rewrites."""
    before, started = client.calls, at.instruction()
    with served(client, at.task, ANSWER) as url:
        job = {
            "url": url, "text": started.preamble, "budget": calls, "seed": seed, "settings": {},
            "train": [*rows["train"]], "val": [*rows["dev"], *rows["holdout"]],
        }  # fmt: skip
        write_text(folder / "job.json", json.dumps(job))
        peer = Path(__file__).parents[1] / "optimizers" / "peer_gepa.py"
        command = [peer_python("gepa"), str(peer), str((folder / "job.json").resolve())]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    text = json.loads(done.stdout.splitlines()[-1])["text"]
    return {"text": Instruction(text), "calls": client.calls - before, "ended": "its own choice", "revisers": []}


def part_rows(name: str, split: int) -> dict[str, list[dict[str, Any]]]:
    """Rows by split: the fields, the gold grade and the group."""
    about, rows = SETS[name], dict[str, list[dict[str, Any]]]()
    for row in part(name, split).iter_rows(named=True):
        fields = {field: row[field] for field in about.fields}
        rows.setdefault(row["split"], []).append({"fields": fields, "gold": row["gold"], "group": row[about.group]})
    return rows


def right(at: Project, client: Kept, instruction: Instruction, rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether the teacher gives the true grade to each row."""
    system, symbols = Message("system", judge_prefix(at.task, instruction)), at.task.symbols
    asked = [(system, Message("user", sample_text(row["fields"]))) for row in rows]
    keys = [content_id("report", client.model, *(m.content for m in both)) for both in asked]
    answers = client.generate([Request(key, both, symbols) for key, both in zip(keys, asked, strict=True)])
    return [answer.text == row["gold"] for answer, row in zip(answers, rows, strict=True)]


def one(name: str, split: int, model: str, arm: str, calls: int, folder: Path, models: Path) -> dict[str, Any]:
    """One arm on one set: what it ships, and what the test split's truth says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    at = project(name, part(name, split).filter(pl.col("split") != "test"), folder / "project")
    rows = part_rows(name, split)
    settings = ModelSettings(model=f"hf:{models / model}", extra={"dtype": "bfloat16"})
    client, started = Kept(connect(settings), folder.parent / f"{model}.jsonl", model), time.monotonic()
    found = (
        gepa(at, client, rows, folder, calls, split)
        if arm == "gepa"
        else ours(at, client, ARMS[arm], folder, calls, split)
    )
    shipped, seed = found.pop("text"), at.instruction()
    (folder / "shipped.txt").write_text(judge_prefix(at.task, shipped), encoding="utf-8")
    test = rows["test"]
    before = right(at, client, seed, test)
    after = right(at, client, shipped, test) if shipped.id != seed.id else before
    gain = paired_gain(before, after, [row["group"] for row in test])
    return {
        "set": name, "split": split, "model": model, "arm": arm, "changed": shipped.id != seed.id, **found,
        "rows": len(test), "groups": len({row["group"] for row in test}),
        "before": float(np.mean(before)), "after": float(np.mean(after)), "gain": gain.model_dump(mode="json"),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }  # fmt: skip


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = [
        "| set | model | arm | calls | ends | test: seed → shipped, % | change, 95 % by group | usable of asked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        own = row["revisers"][0] if row["revisers"] else None
        usable = f"{own['usable']} of {own['asked']}" if own else "–"
        gain = row["gain"]
        spread = f" ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})" if gain["low"] is not None else ""
        change = f"{100 * gain['mean']:+.1f}{spread}" if row["changed"] else "nothing shipped"
        lines.append(
            f"| {row['set']} | {row['model']} | {row['arm']} | {row['calls']} | {row['ended']} "
            f"| {100 * row['before']:.1f} → {100 * row['after']:.1f} | {change} | {usable} |"
        )
    return "\n".join(lines)


def options(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--sets", default="chorus,semeval", help="of " + ", ".join(SETS))
    parser.add_argument("--models", default="instruct15", help="of " + ", ".join(MODELS))
    parser.add_argument("--arms", default=",".join(USUAL), help="of " + ", ".join(ARMS))
    parser.add_argument("--splits", default="0", help="of 0, 1, 2")
    parser.add_argument("--calls", type=int, default=200, help="of the teacher, in one arm")


def main(asked: Any, models: Path, results: Path) -> None:
    """Run what the options name and is not there yet; write the figures of all that is there."""
    out = asked.out / "evolve"
    for name in asked.sets.split(","):
        for model in asked.models.split(","):
            for arm in asked.arms.split(","):
                for split in map(int, asked.splits.split(",")):
                    folder = out / f"{name}-{split}-{model}" / arm.replace(" ", "-")
                    if (folder / "told.json").exists():
                        continue
                    print(f"{name} {split} {model} {arm}: {asked.calls} calls, a dozen of {ANSWER} tokens", flush=True)
                    told = one(name, split, model, arm, asked.calls, folder, models)
                    write_text(folder / "told.json", json.dumps(told))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*/*/told.json"))]
    print(table(put(results / "evolve.json", found, "set", "split", "model", "arm")), flush=True)
