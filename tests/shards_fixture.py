"""A shard folder as `curriculum export` writes it, from a small world made here."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.ids import sample_id
from store.manifest import FORMAT, Manifest, RuleRecord, Schedule, Shard, Stage, file_sha256
from store.task import Grade, Step, Task, sample_text
from store.trace import write_trace
from store.types import BUCKETS, Trace

TASK = Task(
    name="tiny-shop",
    group_by="query",
    fields=("query", "title"),
    grades=tuple(Grade(symbol=str(i), name=name, value=i) for i, name in enumerate(("bad", "some", "good"))),
    steps=(Step(name="kind", asks="Is it the kind of thing asked for?", choices=("yes", "no")),),
)  # fmt: skip
RULES = (
    RuleRecord(id="R01", text="Another kind of thing.", grade="0"),
    RuleRecord(id="R02", text="The kind asked for in another colour.", grade="1"),
    RuleRecord(id="R03", text="Kind and colour fit.", grade="2"),
)
KINDS = ("lamp", "chair", "desk", "mug", "sofa", "clock")
COLOURS = ("red", "blue", "green", "black")

STRUCT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()), ("group", pa.string()), ("fields", pa.list_(pa.string())),
        ("prompt", STRUCT), ("completion", STRUCT), ("grade", pa.string()),
        ("grade_probs", pa.list_(pa.float32())), ("evidence", pa.list_(pa.string())),
        ("steps", pa.list_(pa.string())), ("rules", pa.list_(pa.string())),
        ("trace_verified", pa.bool_()), ("difficulty", pa.float64()),
        ("bucket", pa.string()), ("anchor", pa.bool_()), ("origin", pa.string()), ("source", pa.string()),
        ("weight", pa.float64()),
    ]
)  # fmt: skip


def row(number: int, draw: random.Random, rubric: str) -> dict:
    kind, colour = draw.choice(KINDS), draw.choice(COLOURS)
    other_kind = draw.choice(KINDS) if draw.random() < 0.5 else kind
    other_colour = draw.choice(COLOURS) if draw.random() < 0.5 else colour
    query, title = f"{colour} {kind}", f"{other_colour} {other_kind} number {number % 17}"
    rule = RULES[0] if kind != other_kind else RULES[1] if colour != other_colour else RULES[2]
    grade = rule.grade or "0"
    evidence = (f"{other_colour} {other_kind}",)
    steps = {"kind": "no" if rule is RULES[0] else "yes"}
    trace = Trace(grade, evidence, steps, (rule.id,), grade)
    prompt = [{"role": "user", "content": sample_text({"query": query, "title": title})}]
    if rubric:
        prompt.insert(0, {"role": "system", "content": rubric})
    probs = [0.05, 0.05, 0.05]
    probs[int(grade)] = 0.9
    return {
        "sample_id": sample_id(query, [query, title]), "group": query, "fields": [query, title], "prompt": prompt,
        "completion": [{"role": "assistant", "content": write_trace(trace, TASK)}], "grade": grade,
        "grade_probs": probs, "evidence": list(evidence), "steps": [steps["kind"]], "rules": [rule.id],
        "trace_verified": True, "difficulty": draw.random(),
        "bucket": draw.choice(BUCKETS), "anchor": draw.random() < 0.2, "origin": "synthetic", "source": "fixture",
        "weight": 1.0,
    }  # fmt: skip


def write_shards(folder: Path, rows: int = 120, *, seed: int = 0, rubric: str = "", schedule: Schedule | None = None,
                 held_out: int = 40, task: Task = TASK) -> Manifest:  # fmt: skip
    """Training shards by bucket, one dev shard, and the manifest, written last."""
    draw = random.Random(seed)
    train = [row(i, draw, rubric) for i in range(rows)]
    shards = []
    parts = [("train", b, [r for r in train if r["bucket"] == b]) for b in BUCKETS]
    parts.append(("eval", "dev", [row(i, draw, rubric) for i in range(held_out)]))
    for kind, name, found in parts:
        path = folder / kind / f"{name}-00000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(found, SCHEMA), path)
        shards.append(Shard(file=str(path.relative_to(folder)), kind=kind, name=name, rows=len(found),
                            bytes=path.stat().st_size, sha256=file_sha256(path)))  # fmt: skip
    schedule = schedule or Schedule(
        stages=(Stage(name="mid", mixture={"mid": 0.8, "easy": 0.2}, share=0.5),
                Stage(name="hard", mixture={"hard": 0.8, "easy": 0.2}, share=0.5)))  # fmt: skip
    manifest = Manifest(
        format=FORMAT, task=task, instruction="abc", rules=RULES, prompt="rulebook" if rubric else "short",
        rubric=rubric, seed=seed, rows={b: len(f) for k, b, f in parts if k == "train"}, shards=tuple(shards),
        schedule=schedule, made_by={"run": "fixture"}, simulated=True,
    )  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest.model_dump(mode="json")), encoding="utf-8")
    return manifest
