"""The contract between `curriculum`, which writes shards, and `trainers`, which read them.

A shard folder holds Parquet files of one schema (`COLUMNS`) and `manifest.json`, written last: where
it is present, the export is complete.

    train/BUCKET-00000.parquet   rows to learn from, one bucket a file (easy, mid, hard, suspect)
    eval/SPLIT-00000.parquet     rows to measure on (dev, and test when asked for)
    manifest.json
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from store.errors import PiarError
from store.settings import Settings
from store.task import Task, explain
from store.types import Bucket

FORMAT = 1
MANIFEST = "manifest.json"

# name -> Arrow type, as text; every shard has these columns in this order.
COLUMNS: dict[str, str] = {
    "sample_id": "string",
    "group": "string",
    "fields": "list<string>",  # the sample, in the task's field order
    "prompt": "list<struct<role: string, content: string>>",
    "completion": "list<struct<role: string, content: string>>",  # one assistant message, answer first
    "grade": "string",
    "grade_probs": "list<float>",  # soft teacher distribution in the task's grade order, or null
    "evidence": "list<string>",  # reference trace: spans, steps (task's order; null where unknown), rules
    "steps": "list<string>",
    "rules": "list<string>",
    "rules_holding": "list<string>",  # every rule whose condition holds, or null when nobody knows
    "trace_verified": "bool",  # the reference trace passed the strict rewards
    "difficulty": "double",  # p = pi(y*|x), out of sample, or null
    "bucket": "string",
    "anchor": "bool",  # part of the rule-stratified replay that anchors mode balance
    "origin": "string",  # import or synthetic
    "source": "string",
    "weight": "double",
}


class Shard(Settings):
    """One Parquet file of the export."""

    file: str
    kind: Literal["train", "eval"]
    name: str  # bucket or split
    rows: int
    bytes: int
    sha256: str


class Stage(Settings):
    """One step of the curriculum: share of each bucket among its draws, and its share of all draws."""

    name: str
    mixture: dict[Bucket, float]
    share: float


class Schedule(Settings):
    """How the trainers' sampler draws rows over time; progress t runs from 0 to 1.

    `stages`: one after the other, by `share`. `gaussian`: E2H's moving mixture over easy → suspect
    (arXiv 2506.06632). `natural_tail`: the last part of training draws the natural mixture.
    """

    kind: Literal["stages", "gaussian", "natural", "shuffled"] = "stages"
    stages: tuple[Stage, ...] = ()
    sigma: float = 0.5
    floor: float | None = None
    natural_tail: float = 0.1
    anchor_share: float = 0.2


class RuleRecord(Settings):
    """A rule of the instruction that the shards were made under."""

    id: str
    text: str
    grade: str | None = None


class Manifest(Settings):
    """What a shard folder holds and how it was made."""

    format: int = FORMAT
    task: Task
    instruction: str
    rules: tuple[RuleRecord, ...] = ()
    prompt: Literal["short", "rulebook"] = "short"
    rubric: str = ""  # the text that all prompts share (system message)
    seed: int = 0
    rows: dict[str, int]  # bucket -> training rows
    shards: tuple[Shard, ...]
    schedule: Schedule
    made_by: dict[str, Any]  # run, code version, SQL, configuration
    simulated: bool = False


def read_manifest(folder: Path, *, verify: bool = True) -> Manifest:
    """Read a shard folder's manifest, checking each shard's size and hash.

    Raises:
        PiarError: no manifest (the export did not finish), another format, or a shard that is
            missing, truncated or altered, by name and hash.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise PiarError(f"{folder} has no {MANIFEST}: the export did not finish, or this is no shard folder.",
                        "Run `piar curriculum export` again.") from None  # fmt: skip
    except ValidationError as error:
        raise PiarError(f"{path}: {explain(error)}", "Run `piar curriculum export` again with this version.") from None
    except ValueError:
        raise PiarError(f"{path} is not JSON.", "Run `piar curriculum export` again.") from None
    if verify:
        for shard in manifest.shards:
            _verify(folder, shard)
    return manifest


def _verify(folder: Path, shard: Shard) -> None:
    path = folder / shard.file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PiarError(f"Shard {shard.file!r} points outside its folder.", "Do not use this export.")
    if not path.is_file():
        raise PiarError(f"Shard {shard.file} is missing.", "Copy the folder again, or export it again.")
    found = file_sha256(path)
    if found != shard.sha256:
        raise PiarError(f"Shard {shard.file} was altered or truncated: sha256 {found[:12]}… where the manifest says "
                        f"{shard.sha256[:12]}….", "Copy the folder again, or export it again.")  # fmt: skip


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
