"""The contract between `curriculum`, which writes shards, and `trainers`, which read them.

A shard folder holds Parquet files of one schema (`COLUMNS`) and `manifest.json`, written last: where
it is present, the export is complete.

    train/BUCKET-00000.parquet   rows to learn from, one bucket a file (easy, mid, hard, suspect)
    eval/SPLIT-00000.parquet     rows to measure on (dev, and test when asked for)
    manifest.json
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from store.errors import PiarError
from store.files import read_text
from store.settings import Settings
from store.task import Task, explain
from store.types import BUCKETS, Bucket

FORMAT = 1
MANIFEST = "manifest.json"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_DISTRUST = "Do not use this folder; export it again."

# name -> Arrow type, as text; every shard has these columns in this order.
COLUMNS: dict[str, str] = {
    "sample_id": "string",
    "group": "string",
    "fields": "list<string>",  # the sample, in the task's field order
    "prompt": "list<struct<role: string, content: string>>",
    # One assistant message, answer first; the grade alone where there is no reference trace.
    "completion": "list<struct<role: string, content: string>>",
    "grade": "string",
    "grade_probs": "list<float>",  # soft teacher distribution in the task's grade order, or null
    # Reference trace: spans, steps (task's order; null where unknown), rules. All three null without one.
    "evidence": "list<string>",
    "steps": "list<string>",
    "rules": "list<string>",
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


# Hard after mid after easy, never a stage without replay (our choice; see `mixture_at`).
DEFAULT_STAGES = (
    Stage(name="warm up", mixture={"easy": 0.2, "mid": 0.8}, share=0.3),
    Stage(name="boundary", mixture={"mid": 0.5, "hard": 0.5}, share=0.3),
    Stage(name="long tail", mixture={"easy": 0.1, "mid": 0.1, "hard": 0.7, "suspect": 0.1}, share=0.3),
)


class Schedule(Settings):
    """How the trainers' sampler draws rows over time; progress t runs from 0 to 1, see `mixture_at`.

    `stages`: one after the other, by `share` (relative to each other). `gaussian`: E2H's moving mixture over
    easy → suspect (arXiv 2506.06632). `natural_tail`: the last part of training draws the natural mixture.
    """

    kind: Literal["stages", "gaussian", "natural", "shuffled"] = "stages"
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    sigma: float = Field(default=0.5, gt=0)
    floor: float | None = None
    natural_tail: float = Field(default=0.1, ge=0, le=1)
    anchor_share: float = Field(default=0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _stages_named(self) -> "Schedule":
        if self.kind == "stages" and not any(stage.share > 0 for stage in self.stages):
            raise ValueError("a schedule of stages needs at least one stage with a share above 0")
        if self.floor is not None and not 0 <= self.floor <= 1 / len(BUCKETS):
            raise ValueError(f"floor must lie between 0 and {1 / len(BUCKETS)}")
        return self


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
    copies: tuple[Shard, ...] = ()  # the same rows once more in another format (JSONL), for other tools
    simulated: bool = False


def mixture_at(schedule: Schedule, t: float, rows: Mapping[str, int]) -> dict[str, float]:
    """Probability of each bucket at progress `t` in [0, 1]; buckets without rows have none.

    `natural` and `shuffled` draw by size, as every schedule does in its `natural_tail`. Stages
    follow each other by `share`. The Gaussian is E2H's (arXiv 2506.06632): with n buckets,
    μ = t^½ (n − 1), q_i ∝ exp(−(i − μ)² / 2σ²), mixed with a floor of 2 / (n (n + 1)) each.

    Args:
        rows: bucket -> training rows.
    """
    present = [bucket for bucket in BUCKETS if rows.get(bucket, 0) > 0]
    natural = _normalised({bucket: float(rows[bucket]) for bucket in present})
    body = 1.0 - schedule.natural_tail
    if schedule.kind in ("natural", "shuffled") or t >= body or not present:
        return natural
    if schedule.kind == "gaussian":
        return _gaussian(schedule, t / body, present)
    wanted = _stage_at(schedule.stages, t / body).mixture
    return _normalised({bucket: wanted.get(bucket, 0.0) for bucket in present}) or natural


def _stage_at(stages: Sequence[Stage], progress: float) -> Stage:
    total = sum(stage.share for stage in stages)
    passed = 0.0
    for stage in stages:
        passed += stage.share
        if progress * total < passed:
            return stage
    return stages[-1]


def _gaussian(schedule: Schedule, progress: float, present: Sequence[str]) -> dict[str, float]:
    n = len(present)
    floor = 2 / (n * (n + 1)) if schedule.floor is None else schedule.floor
    mean = progress**0.5 * (n - 1)
    bell = [math.exp(-((i - mean) ** 2) / (2 * schedule.sigma**2)) for i in range(n)]
    return {b: floor + (1 - n * floor) * q / sum(bell) for b, q in zip(present, bell, strict=True)}


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {bucket: weight / total for bucket, weight in weights.items()} if total > 0 else {}


def read_manifest(folder: Path, *, verify: bool = True) -> Manifest:
    """Read a shard folder's manifest, checking each shard's size and hash.

    Raises:
        PiarError: no manifest (the export did not finish), another format, or a shard that is
            missing, truncated, altered or not a plain file of the folder, by name and hash.
    """
    path, again = folder / MANIFEST, "Run `piar curriculum export` again with this version."
    try:
        data = json.loads(read_text(path))
        manifest = Manifest.model_validate(data)
    except FileNotFoundError:
        unfinished = f"has no {MANIFEST}: the export did not finish, or this is no shard folder"
        why = unfinished if folder.exists() else "does not exist"
        raise PiarError(f"{folder} {why}.", "Run `piar curriculum export`, or name a folder that it wrote.") from None
    except ValidationError as error:
        raise PiarError(f"{path}: {explain(error)}", again) from None
    except (ValueError, RecursionError):
        raise PiarError(f"{path} is not JSON.", again) from None
    if manifest.format != FORMAT:
        raise PiarError(f"{path} has format {manifest.format}; this version reads {FORMAT}.", again)
    refuse_repeated(shard.file for shard in manifest.shards)
    if verify:
        for shard in manifest.shards:
            verified(folder, shard.file, shard.sha256)
    return manifest


def member(folder: Path, name: str) -> Path:
    """The plain file of a folder that a manifest names, e.g. `train/easy-00000.parquet`.

    Raises:
        PiarError: no plain name inside the folder, something that is reached by a link, or no such file.
    """
    parts = name.split("/")
    if len(parts) > 2 or not all(_PLAIN.fullmatch(part) for part in parts):
        raise PiarError(f"The manifest of {folder} names {name[:80]!r}, which is outside its folder.", _DISTRUST)
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise PiarError(f"{name} in {folder} is a link.", _DISTRUST)
    if not path.is_file():
        raise PiarError(f"{name} is missing from {folder}.", "Copy the folder again, or export it again.")
    return path


def verified(folder: Path, name: str, sha256: str) -> Path:
    """As `member`, with the content that the manifest promises.

    Raises:
        PiarError: as `member`, or other content.
    """
    path = member(folder, name)
    found = file_sha256(path)
    if found != sha256:
        raise PiarError(
            f"{name} in {folder} was altered or truncated: sha256 {found[:12]}… where the manifest says "
            f"{sha256[:12]!r}.",
            "Copy the folder again, or export it again.",
        )
    return path


def refuse_repeated(names: Iterable[str]) -> None:
    """No file twice, not even on a disk that takes upper and lower case for the same."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise PiarError(f"The manifest names {name[:80]!r} twice.", _DISTRUST)
        seen.add(name.lower())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
