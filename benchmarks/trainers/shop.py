"""Shards of the *simulated* shop world, written straight from its answers: what a perfect teacher would export."""

import json
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from piar.instructions.prompts import judge_prefix
from piar.shop.world import ShopWorld, make_shop
from store.manifest import Manifest, RuleRecord, Schedule, Shard, file_sha256
from store.task import Task, sample_text
from store.trace import write_trace
from store.types import Instruction, Trace

Rows = list[dict[str, Any]]

STRUCT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("group", pa.string()), ("fields", pa.list_(pa.string())), ("prompt", STRUCT),
     ("completion", STRUCT), ("grade", pa.string()), ("grade_probs", pa.list_(pa.float32())),
     ("evidence", pa.list_(pa.string())), ("steps", pa.list_(pa.string())), ("rules", pa.list_(pa.string())),
     ("trace_verified", pa.bool_()), ("difficulty", pa.float64()),
     ("bucket", pa.string()), ("anchor", pa.bool_()), ("origin", pa.string()), ("source", pa.string()),
     ("weight", pa.float64())]
)  # fmt: skip


def write_shop(folder: Path, pairs: int, seed: int, *, rulebook: bool = False, held_out: float = 0.1) -> ShopWorld:
    """Training rows with gold grades (4 % wrong) and, where gold is right, true traces; dev rows with true grades."""
    world, train, held = shop_rows(pairs, seed, rulebook=rulebook, held_out=held_out)
    write_shards(folder, world, train, held, seed=seed, rulebook=rulebook)
    return world


def shop_rows(pairs: int, seed: int, *, rulebook: bool = False, held_out: float = 0.1) -> tuple[ShopWorld, Rows, Rows]:
    """A world, its rows to learn from, and the rows of held-out queries, as `write_shards` takes them."""
    world = make_shop(pairs, seed)
    rubric = judge_prefix(world.task, world.oracle) if rulebook else ""
    rows = world.pairs.join(world.answers, on="pair").to_dicts()
    queries = sorted({row["query"] for row in rows})
    Random(seed).shuffle(queries)
    dev = set(queries[: int(len(queries) * held_out)])
    draw = Random(seed)
    train = [_row(row, row["grade"], world, rubric, draw) for row in rows if row["query"] not in dev]
    held = [_row(row, row["true_grade"], world, rubric, draw) for row in rows if row["query"] in dev]
    return world, train, held


class World(Protocol):
    """What shards say of where their rows come from."""

    @property
    def task(self) -> Task:
        """What is judged."""

    @property
    def oracle(self) -> Instruction:
        """The rules behind the grades, as far as they are known."""


def write_shards(
    folder: Path, world: World, train: Rows, held: Rows, *, seed: int, rulebook: bool = False,
    schedule: Schedule | None = None,
) -> None:  # fmt: skip
    """A shard folder of such rows, one file for each bucket among them, drawn as `schedule` says (by size if None)."""
    buckets: dict[str, Rows] = {}
    for row in train:
        buckets.setdefault(row["bucket"], []).append(row)
    parts = [*(("train", bucket, found) for bucket, found in buckets.items()), ("eval", "dev", held)]
    shards = []
    for kind, name, found in parts:
        path = folder / kind / f"{name}-00000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(found, SCHEMA), path)
        shards.append(Shard(file=f"{kind}/{path.name}", kind=kind, name=name, rows=len(found),  # type: ignore[arg-type]
                            bytes=path.stat().st_size, sha256=file_sha256(path)))  # fmt: skip
    manifest = Manifest(
        task=world.task, instruction=world.oracle.id, prompt="rulebook" if rulebook else "short",
        rubric=judge_prefix(world.task, world.oracle) if rulebook else "",
        rules=tuple(RuleRecord(id=r.id, text=r.text, grade=r.grade) for r in world.oracle.rules), seed=seed,
        rows={bucket: len(found) for bucket, found in buckets.items()}, shards=tuple(shards),
        schedule=schedule or Schedule(kind="natural"), made_by={"run": "benchmark"},
        simulated=isinstance(world, ShopWorld),
    )  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest.model_dump(mode="json")), encoding="utf-8")


def _row(row: dict[str, Any], grade: str, world: ShopWorld, rubric: str, draw: Random) -> dict[str, Any]:
    fields = {name: row[name] for name in world.task.fields}
    known = grade == row["true_grade"]
    steps = {step.name: row[step.name] for step in world.task.steps}
    trace = Trace(grade, tuple(row["evidence"]), steps, (row["rule"],), grade)
    prompt = [{"role": "system", "content": rubric}] if rubric else []
    return {
        "sample_id": row["sample_id"], "group": row["query"], "fields": list(fields.values()),
        "prompt": [*prompt, {"role": "user", "content": sample_text(fields)}],
        "completion": [{"role": "assistant", "content": write_trace(trace, world.task) if known else grade}],
        "grade": grade, "grade_probs": None, "evidence": list(row["evidence"]) if known else None,
        "steps": list(steps.values()) if known else None, "rules": [row["rule"]] if known else None,
        "trace_verified": known, "difficulty": None, "bucket": "mid",
        "anchor": known and draw.random() < 0.2, "origin": "import", "source": "shop", "weight": 1.0,
    }  # fmt: skip
