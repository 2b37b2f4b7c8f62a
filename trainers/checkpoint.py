"""Checkpoints that are whole or not there: write aside, flush, rename.

`checkpoint-N/` is a plain Hugging Face folder (safetensors, tokenizer, chat template; where two models are read, the
other's is in it), plus `student.json` (what the student was taught to judge), `state.pt` (optimizer, schedule,
generators, sampler) and `COMPLETE`, written last, which names every file with its size and hash. A folder without the
marker is never loaded. Left out: asynchronous and sharded writing.
"""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from pydantic import Field, RootModel, ValidationError
from safetensors import SafetensorError

from store.calibration import CARD, Calibration
from store.decision_rule import DecisionRule
from store.errors import PiarError
from store.files import read_text
from store.ids import short_hash
from store.manifest import Manifest, RuleRecord, file_sha256
from store.settings import Settings
from store.task import Task, explain
from trainers.config import Completion, Kind, Prompt, Reads

STATE = "state.pt"
MARKER = "COMPLETE"


class StudentCard(Settings):
    """What a student was taught: everything that scoring needs beside the weights, and what its model card says."""

    format: int = 1
    kind: Kind = "language model"
    task: Task
    prompt: Prompt = "short"
    rubric: str = ""
    completion: Completion = "trace"
    max_length: int = 0  # tokens that an encoder reads: of a sample, or of each of its texts apart
    reads: Reads = "together"  # an encoder's
    instruction: str = ""
    rules: tuple[RuleRecord, ...] = ()
    shards: str = ""  # hash of the manifest that it learned from
    rows: dict[str, int] = Field(default_factory=dict)  # by bucket or evaluation split
    sources: dict[str, int] = Field(default_factory=dict)  # the project's samples, by where they come from
    teacher: str = ""  # whose opinions the shards carry
    ceiling: float | None = None  # how often one person agrees with the truth, None where nobody rated
    metrics: dict[str, float] = Field(default_factory=dict)  # measured when the run ended
    trainer: str = ""
    base: str = ""
    simulated: bool = False
    calibration: Calibration | None = None  # of its probabilities, where dev showed that it helps
    rule: DecisionRule | None = None  # which grade a distribution stands for, else the likeliest
    weights: str = ""  # hash of the adapters that calibration and rule were fitted on

    @classmethod
    def of(cls, manifest: Manifest, **more: Any) -> "StudentCard":
        """The card of a student that learns from these shards."""
        rows = Counter[str](manifest.rows)
        for shard in manifest.shards:
            rows[shard.name] += shard.rows if shard.kind == "eval" else 0
        made = {key: manifest.made_by[key] for key in ("sources", "teacher", "ceiling") if manifest.made_by.get(key)}
        return cls(
            task=manifest.task,
            prompt=manifest.prompt,
            rubric=manifest.rubric,
            rules=manifest.rules,
            rows=rows,
            instruction=manifest.instruction,
            simulated=manifest.simulated,
            **made,
            **more,
        )


def save(
    folder: Path,
    lm: Any,
    tokenizer: Any,
    card: StudentCard,
    state: dict[str, Any] | None = None,
    *,
    weights: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint; at any instant `folder` is the old one, the new one, or absent. Errors: see `writing`.

    Args:
        state: what an exact resume needs; None for a checkpoint that is only served.
        weights: written instead of the model's own (gathered from processes, adapters merged).
    """
    with writing(folder) as aside:
        lm.save_pretrained(aside, state_dict=weights)
        tokenizer.save_pretrained(aside)
        (aside / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        if state is not None:
            torch.save(state, aside / STATE)
        files = {_name(p, aside): [p.stat().st_size, file_sha256(p)] for p in sorted(aside.rglob("*")) if p.is_file()}
        (aside / MARKER).write_text(json.dumps(files), encoding="utf-8")
    return folder


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A path beside `target`, for a file or a folder that takes its place when the block ends well. Folders above it
    are made.

    Raises:
        PiarError: the disk is full or refuses, instead of what safetensors, torch or the system raise.
    """
    target = target.resolve() if target.is_symlink() else target  # what a link names is replaced, and the link stays
    aside, old = (target.with_name(f".{target.name}.{state}") for state in ("writing", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(aside, old)
        yield aside
        for path in [*aside.rglob("*"), aside]:
            _flush(path)
        if target.exists():
            target.rename(old)
        aside.rename(target)
        _flush(target.parent)
    except BaseException as error:
        with suppress(OSError):  # the first error is the one to tell
            _remove(aside)
        if old.exists() and not target.exists():
            old.rename(target)
        refused = isinstance(error, OSError | RuntimeError | SafetensorError)
        if not refused and "os error" not in str(error):  # tokenizers raise what the system says as a plain Exception
            raise
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        words = "the disk is full" if full else str(error).split("\n")[0]
        mend = "Free some space" if full else "Name a folder that can be written"
        raise PiarError(
            f"Could not write into {target.parent}: {words}. Nothing that was whole is harmed.",
            f"{mend} and run it again, with --resume where there is a checkpoint.",
        ) from error
    _remove(old)


def _remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Marked(RootModel[dict[str, tuple[int, str]]]):
    """File of a checkpoint -> its size and hash."""


def check(folder: Path, *, hashes: bool = False) -> None:
    """Make sure that a checkpoint is whole.

    Raises:
        PiarError: no marker, or a file that is missing, shorter or (with `hashes`) altered.
    """
    fix = "Use another checkpoint of the run, or train again."
    try:
        files = _Marked.model_validate_json(read_text(folder / MARKER)).root
    except FileNotFoundError:
        raise PiarError(f"{folder} is no finished checkpoint: it has no {MARKER} marker.", fix) from None
    except ValidationError:
        files = {}
    if CARD not in files:
        raise PiarError(f"{folder} is no finished checkpoint: its {MARKER} marker is not whole.", fix)
    for name, (size, digest) in files.items():
        inside = (part for part in PurePosixPath(name).parts if part not in ("/", ".."))
        path = folder.joinpath(*inside)
        try:
            same = path.is_file() and path.stat().st_size == size and not (hashes and file_sha256(path) != digest)
        except OSError:  # no file can have such a name, or it cannot be read
            same = False
        if not same:
            raise PiarError(f"{path} is missing, truncated or altered.", fix)


def fingerprint(folder: Path) -> str:
    """A hash of all that shapes a student's answers: weights, calibration and rule.

    Of a checkpoint by its marker, which names every file with its hash; of another folder by its card and, of adapters,
    by their weights and the student that they were made on.

    Raises:
        PiarError: no student there.
    """
    read_card(folder)
    if (folder / MARKER).exists():
        return file_sha256(folder / MARKER)
    from trainers import adapters  # which imports transformers

    own = [file_sha256(folder / name) for name in (CARD, adapters.WEIGHTS) if (folder / name).exists()]
    if not adapters.held(folder):
        return own[0]
    below = adapters.base(folder)[1]
    return short_hash([*own, fingerprint(below) if below and (below / CARD).exists() else ""], 64)


def read_card(folder: Path) -> StudentCard:
    """What the student in this folder judges; of adapters that were made on a student, what that one does.

    Adapters that were saved anew since they were calibrated are not: what was fitted belongs to other weights.

    Raises:
        PiarError: the folder holds no student of ours.
    """
    try:
        card = StudentCard.model_validate_json((folder / CARD).read_bytes())
        stale = card.weights and card.weights != _adapters_hash(folder)
        return card.model_copy(update={"calibration": None, "rule": None}) if stale else card
    except FileNotFoundError:
        return _base_card(folder)
    except ValidationError as error:
        raise PiarError(f"{folder / CARD}: {explain(error)}", "Train again with this version.") from None


def _adapters_hash(folder: Path) -> str:
    from trainers import adapters  # which imports transformers

    return file_sha256(folder / adapters.WEIGHTS) if (folder / adapters.WEIGHTS).is_file() else ""


def _base_card(folder: Path) -> StudentCard:
    """The card of the student that adapters were made on, without what was measured of it."""
    from trainers import adapters  # which imports transformers

    student = adapters.base(folder)[1] if adapters.held(folder) else None
    if student is not None and (student / CARD).is_file():
        unmeasured: dict[str, Any] = {"metrics": {}, "calibration": None, "rule": None, "base": str(student)}
        return read_card(student).model_copy(update=unmeasured)
    fix = "Train one with `piar train sft`."
    if (folder / "final" / CARD).is_file():
        fix = f"It is the folder of a run: name {folder / 'final'}."
    elif (folder / "config.json").is_file() or adapters.held(folder):
        fix = f"It is a model that learnt nothing here: teach it (`piar train … --model`), or ask it (`hf:{folder}`)."
    raise PiarError(f"{folder} holds no student: it has no {CARD}.", fix)


def keep_calibration(folder: Path, calibration: Calibration | None, rule: DecisionRule | None = None) -> None:
    """Put a calibration and a decision rule, or none, into a student's card.

    The folder is replaced whole, its weights are not copied.

    Raises:
        PiarError: no student there, or the folder cannot be written.
    """
    fitted = {"calibration": calibration, "rule": rule, "weights": _adapters_hash(folder)}
    card = read_card(folder).model_copy(update=fitted)
    marked = (folder / MARKER).exists()
    with writing(folder) as aside:
        aside.mkdir()
        for path in folder.iterdir():
            if path.name not in (CARD, MARKER):
                _same(path, aside / path.name)
        (aside / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        if marked:
            files = _Marked.model_validate_json(read_text(folder / MARKER)).root
            files[CARD] = ((aside / CARD).stat().st_size, file_sha256(aside / CARD))
            (aside / MARKER).write_text(json.dumps(files), encoding="utf-8")


def _same(path: str | Path, target: str | Path) -> None:
    """The same file or folder under another name; a copy where the file system knows no second name."""
    if Path(path).is_dir():
        shutil.copytree(path, target, copy_function=_same)
        return
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def latest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run; unfinished ones are passed over."""
    for path in reversed(_numbered(run)):
        try:
            check(path, hashes=True)
        except PiarError:
            continue
        return path
    return None


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints of a run."""
    for path in _numbered(run)[:-keep]:
        shutil.rmtree(path)


def _numbered(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    found = [path for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def load_state(folder: Path) -> dict[str, Any]:
    """The state of an exact resume."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state
