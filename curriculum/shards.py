"""`export`: the store becomes a folder of Parquet shards that trainers, `datasets` and TRL read as it is.

Everything is written into a hidden folder beside the target and moved in place at the end, the
manifest last inside it: a folder with a manifest is whole, and a failed export leaves an earlier one alone.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import duckdb

from curriculum.candidates import teacher_verdicts
from curriculum.card import CARD, write_card
from curriculum.plan import Plan, prepare
from curriculum.rows import file_sql, slice_sql
from curriculum.settings import CurriculumSettings
from piar.instructions.prompts import judge_prefix
from store.db import Store, first_line
from store.errors import PiarError, UsageError
from store.ids import SEPARATOR
from store.judges import id_ranges
from store.manifest import MANIFEST, Manifest, RuleRecord, Shard, file_sha256, read_manifest
from store.types import BUCKETS, Instruction

Prompt = Literal["short", "rulebook"]


def export(
    store: Store,
    folder: Path,
    instruction: Instruction,
    settings: CurriculumSettings,
    *,
    prompt: Prompt = "short",
    prompts: Path | None = None,
    simulated: bool = False,
) -> Manifest:
    """Write shards, a dataset card and the manifest; the same store, settings and versions give the same bytes.

    Args:
        folder: made, or replaced when it holds an earlier export.
        instruction: whose verdicts and rules are exported.
        prompt: `short` gives the student the sample alone, `rulebook` the judging prompt before it.
        prompts: folder with overriding templates, for the rulebook.
        simulated: say in manifest and card that the world behind the rows is simulated.

    Raises:
        UsageError: the folder holds something else than an export.
        PiarError: nothing to learn from, or the disk is full.
    """
    folder = folder.absolute()  # a name such as `md:x` is a folder's, not a database's
    _refuse_foreign(folder)
    rubric = judge_prefix(store.task, instruction, prompts) if prompt == "rulebook" else ""
    with store.read() as con, _staging(folder) as staging:
        the_plan = prepare(con, store, settings, instruction.id)
        values = {
            "judge": the_plan.teacher,
            "instruction": instruction.id,
            "seed": str(settings.seed),
            "eval_splits": list(settings.eval_splits),
            "rule_pairs": [r.id + SEPARATOR + s for r in instruction.rules for s in store.task.symbols if r.admits(s)],
            **({"rubric": rubric} if rubric else {}),
        }
        verdicts = teacher_verdicts(con, store, the_plan.teacher, instruction.id)
        sql = slice_sql(store.task, settings.weights, prompt, verdicts)
        shards, copies = _write_slices(con, staging, sql, values, settings)
        manifest = Manifest(
            task=store.task,
            instruction=instruction.id,
            rules=tuple(RuleRecord(id=r.id, text=r.text, grade=r.grade) for r in instruction.rules),
            prompt=prompt,
            rubric=rubric,
            seed=settings.seed,
            rows={b: sum(s.rows for s in shards if s.kind == "train" and s.name == b) for b in BUCKETS},
            shards=tuple(shards),
            copies=tuple(copies),
            schedule=the_plan.schedule,
            made_by=_made_by(con, settings, the_plan, sql),
            simulated=simulated,
        )
        write_card(con, staging, manifest)
        (staging / MANIFEST).write_text(
            json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        _move_in_place(staging, folder)
    return manifest


def _write_slices(
    con: duckdb.DuckDBPyConnection, staging: Path, sql: str, values: dict[str, Any], settings: CurriculumSettings
) -> tuple[list[Shard], list[Shard]]:
    """Render slice after slice and write its files; returns Parquet shards and copies in other formats."""
    shards: list[Shard] = []
    copies: list[Shard] = []
    for number, (low, high) in enumerate(id_ranges(con, settings.rows_per_slice)):
        con.execute(sql, {**values, "low": low, "high": high})
        groups = con.execute("select fate, bucket, count(*) from slice group by all order by all").fetchall()
        parts: dict[tuple[str, str | None], int] = {}
        for fate, bucket, n in groups:
            part = (fate, bucket if fate == "train" else None)
            parts[part] = parts.get(part, 0) + n
        for (fate, bucket), n in parts.items():
            shards.append(_write(con, staging, fate, bucket, number, n, "parquet"))
            if "jsonl" in settings.formats:
                copies.append(_write(con, staging, fate, bucket, number, n, "jsonl"))
    con.execute("drop table slice")
    return shards, copies


def _write(
    con: duckdb.DuckDBPyConnection, staging: Path, fate: str, bucket: str | None, number: int, rows: int, form: str
) -> Shard:
    kind: Literal["train", "eval"] = "train" if bucket else "eval"
    name = bucket or fate
    file = f"{'' if form == 'parquet' else form + '/'}{kind}/{name}-{number:05d}.{form}"
    path = staging / file
    path.parent.mkdir(parents=True, exist_ok=True)
    con.execute(file_sql(fate, bucket, str(path), form))
    return Shard(file=file, kind=kind, name=name, rows=rows, bytes=path.stat().st_size, sha256=file_sha256(path))


def _made_by(con: duckdb.DuckDBPyConnection, settings: CurriculumSettings, the_plan: Plan, sql: str) -> dict[str, Any]:
    """What made the shards. No run id and no time: the same store gives the same manifest."""
    from importlib.metadata import version

    counted = asdict(the_plan)
    return {
        "configuration": settings.model_dump(mode="json"),
        "teacher": the_plan.teacher,
        "sources": dict(con.execute("select source, count(*) from samples group by all order by 1").fetchall()),
        "ceiling": _ceiling(con),
        "left_out": the_plan.left_out,
        "bases": the_plan.bases,
        "unmined": counted["unmined"],
        "sql": sql,
        "duckdb": version("duckdb"),
    }


def _ceiling(con: duckdb.DuckDBPyConnection) -> float | None:
    """How often one person agrees with the truth, a sample's people averaged first."""
    found = con.execute(
        "select round(avg(share), 4) from (select avg((l.grade = t.grade)::int) as share from vote l "
        "join truth t using (sample_id) where l.source = 'human' group by sample_id)"
    ).fetchone()
    return found[0] if found else None


def _refuse_foreign(folder: Path) -> None:
    """Only what an earlier export wrote is replaced: other tools' folders have a `manifest.json`, too."""
    if not folder.exists() and not folder.is_symlink():
        return
    foreign = UsageError(f"{folder} exists and is no earlier export.", "Name a new folder, or empty this one.")
    if folder.is_symlink() or not folder.is_dir():
        raise foreign
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not found:
        return
    try:
        earlier = read_manifest(folder, verify=False)
    except PiarError:
        raise foreign from None
    ours = {shard.file for shard in (*earlier.shards, *earlier.copies)} | {MANIFEST, CARD}
    if others := sorted(found - ours):
        raise UsageError(
            f"{folder} holds an earlier export, and {others[0]!r}, which would be lost.",
            "Move that file, or name a new folder.",
        )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the target, removed whatever happens; full memory and a full disk are said in words."""
    staging = folder.parent / f".{folder.name}.partial"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
    except duckdb.OutOfMemoryException:
        raise PiarError(
            f"The export to {folder} needs more memory than [curriculum] memory allows.",
            "Raise it (`--set curriculum.memory=4GB`); nothing was left behind.",
        ) from None
    except (duckdb.IOException, OSError) as error:
        words = first_line(error)
        if isinstance(error, duckdb.Error) and str(staging) not in words:
            raise  # the store's own failure, which the store says
        raise PiarError(
            f"The export to {folder} could not be written: {words}",
            "Make room on the disk, or choose another; nothing was left behind.",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_in_place(staging: Path, folder: Path) -> None:
    old = folder.parent / f".{folder.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
