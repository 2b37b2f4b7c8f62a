"""Checkpoints that are whole or not there: write aside, flush, rename, then the marker.

`checkpoint-N/` is a plain Hugging Face folder (safetensors, tokenizer, chat template), plus
`student.json` (what the student was taught to judge), `state.pt` (optimizer, schedule, generators,
sampler) and `COMPLETE`, written last, which names every file with its size and hash. A folder
without the marker is never loaded. Left out: asynchronous and sharded writing.
"""

import errno
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError

from store.errors import PiarError
from store.manifest import Manifest, RuleRecord, file_sha256
from store.settings import Settings
from store.task import Task, explain

CARD = "student.json"
STATE = "state.pt"
MARKER = "COMPLETE"


class StudentCard(Settings):
    """What a student was taught: everything that scoring needs beside the weights, and what its model card says.

    Attributes:
        shards: hash of the manifest that it learned from.
        rows: bucket or evaluation split -> rows; sources: where the project's samples come from -> rows.
        teacher: whose opinions the shards carry.
        ceiling: how often one person agrees with the truth, None where nobody rated.
        metrics: measured when the run ended.
    """

    format: int = 1
    task: Task
    prompt: Literal["short", "rulebook"] = "short"
    rubric: str = ""
    completion: Literal["grade", "trace"] = "trace"
    instruction: str = ""
    rules: tuple[RuleRecord, ...] = ()
    shards: str = ""
    rows: dict[str, int] = Field(default_factory=dict)
    sources: dict[str, int] = Field(default_factory=dict)
    teacher: str = ""
    ceiling: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    trainer: str = ""
    base: str = ""
    simulated: bool = False

    @classmethod
    def of(cls, manifest: Manifest, **more: Any) -> "StudentCard":
        """The card of a student that learns from these shards."""
        rows = Counter[str](manifest.rows)
        for shard in manifest.shards:
            rows[shard.name] += shard.rows if shard.kind == "eval" else 0
        made = {key: manifest.made_by[key] for key in ("sources", "teacher", "ceiling") if manifest.made_by.get(key)}
        return cls(task=manifest.task, prompt=manifest.prompt, rubric=manifest.rubric, rules=manifest.rules, rows=rows,
                   instruction=manifest.instruction, simulated=manifest.simulated, **made, **more)  # fmt: skip


def save(
    folder: Path, lm: Any, tokenizer: Any, card: StudentCard, state: dict[str, Any] | None = None,
    *, weights: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write a checkpoint; at any instant `folder` is the old one, the new one, or absent.

    Args:
        lm: the model.
        state: what an exact resume needs; None for a checkpoint that is only served.
        weights: written instead of the model's own (gathered from processes, adapters merged).

    Raises:
        PiarError: the disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    aside = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    with writing(aside):
        aside.mkdir(parents=True)
        lm.save_pretrained(aside, state_dict=weights)
        tokenizer.save_pretrained(aside)
        (aside / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        if state is not None:
            torch.save(state, aside / STATE)
        files = {p.name: [p.stat().st_size, file_sha256(p)] for p in sorted(aside.iterdir())}
        for path in aside.iterdir():
            _flush(path)
        (aside / MARKER).write_text(json.dumps(files), encoding="utf-8")
        _flush(aside / MARKER)
        _swap(aside, folder)
    return folder


@contextmanager
def writing(aside: Path) -> Iterator[None]:
    """Remove what was half written, and say so, when the disk is full or refuses.

    Raises:
        PiarError: instead of what safetensors, torch or the system raise.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True) if aside.is_dir() else aside.unlink(missing_ok=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        words = "the disk is full" if full else str(error).split("\n")[0]
        raise PiarError(
            f"Could not write into {aside.parent}: {words}. Nothing that was whole is harmed.",
            "Free some space and run it again, with --resume where there is a checkpoint.",
        ) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(aside: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def check(folder: Path, *, hashes: bool = False) -> None:
    """Make sure that a checkpoint is whole.

    Raises:
        PiarError: no marker, or a file that is missing, shorter or (with `hashes`) altered.
    """
    fix = "Use another checkpoint of the run, or train again."
    try:
        files = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PiarError(f"{folder} is no finished checkpoint: it has no {MARKER} marker.", fix) from None
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or (hashes and file_sha256(path) != digest):
            raise PiarError(f"{path} is missing, truncated or altered.", fix)


def read_card(folder: Path) -> StudentCard:
    """What the student in this folder judges.

    Raises:
        PiarError: the folder holds no student of ours.
    """
    try:
        return StudentCard.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError:
        raise PiarError(f"{folder} holds no student: it has no {CARD}.", "Train one with `piar train sft`.") from None
    except ValidationError as error:
        raise PiarError(f"{folder / CARD}: {explain(error)}", "Train again with this version.") from None


def latest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run, by its number; unfinished ones are passed over."""
    found = [(int(m[1]), p) for p in run.glob("checkpoint-*") if (m := re.fullmatch(r"checkpoint-(\d+)", p.name))]
    for _, path in sorted(found, reverse=True):
        try:
            check(path, hashes=True)
        except PiarError:
            continue
        return path
    return None


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints of a run."""
    found = sorted(run.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    for path in found[: max(0, len(found) - keep)]:
        shutil.rmtree(path)


def load_state(folder: Path) -> dict[str, Any]:
    """The state of an exact resume."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state
