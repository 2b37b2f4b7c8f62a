"""What `piar report` shows beyond the instruction: people, difficulty, training, students; each with its source."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from piar.measure.score import measure
from piar.report.cheaper import cheaper
from store.agreement import krippendorff_alpha, level_of, vote_counts
from store.calibrated import student_folder
from store.db import Store
from store.errors import PiarError
from store.judges import Judge
from store.manifest import MANIFEST, Manifest, read_manifest
from store.types import BUCKETS

# Which curves are drawn, where a run has them, and what a reader calls them.
CURVES = {
    "loss": "loss",
    "reward": "reward",
    "entropy": "entropy",
    "tail/rule_recall": "recall on long-tail rules",
    "dev/accuracy": "accuracy on dev",
    "dev/pair_accuracy": "pair accuracy on dev",
    "dev/macro_f1": "macro F1 on dev",
}
WIDTH, HEIGHT = 220, 56  # of a curve, in pixels

PEOPLE = """select annotator, count(distinct sample_id) as rows, median(seconds) as seconds,
       count(distinct batch) filter (batch in (select batch from review_batches)) as batches,
       count(*) filter (list_has_any(flags, ['gold_is_wrong'])) as wrong_gold
from label where source = 'human' and grade is not null group by annotator order by rows desc, annotator"""
VOTES = """select dense_rank() over (order by sample_id) - 1 as item, position from vote
where source = 'human' and sample_id in (
    select sample_id from vote where source = 'human' group by sample_id having count(*) > 1)"""
DIFFICULTY = "select bucket, count(*) as n from difficulty group by bucket"
SIGNALS = "select reason, count(*) as n from queue group by reason order by n desc, reason"
MEASURED = """select e.detail, r.config from run_events e join runs r using (run_id)
where r.verb = 'score' and e.status = 'done' order by e.created_at"""
LIVE = """select r.config, e.detail, e.created_at from run_events e join runs r using (run_id)
where r.verb = 'live' and e.status = 'done' order by e.created_at"""
JUDGES = """select judge, instruction, max(created_at) as last from verdict where sample_id in (
    select s.sample_id from samples s join truth using (sample_id) where s.split = 'test')
group by judge, instruction order by last"""


def people(store: Store) -> dict[str, Any] | None:
    """Who labelled how much, and how far they agree."""
    rows = store.frame(PEOPLE).rows(named=True)
    if not rows:
        return None
    names = [row["annotator"].partition("@")[0] for row in rows]
    if all(names) and len({*names}) == len(names):  # the page is handed on, so without addresses where names will do
        rows = [{**row, "annotator": name} for row, name in zip(rows, names, strict=True)]
    votes = store.frame(VOTES)
    shared = votes["item"].n_unique()
    alpha, level = None, level_of(store.task)
    if shared > 1:
        counts = vote_counts(votes["item"].to_numpy(), votes["position"].to_numpy(), shared, len(store.task.symbols))
        alpha = krippendorff_alpha(counts, level=level, values=[grade.value for grade in store.task.grades])
    return {"rows": rows, "alpha": alpha, "level": level, "shared": shared, "source": f"{PEOPLE};\n\n{VOTES}"}


def difficulty(store: Store, manifest: Manifest | None) -> dict[str, Any] | None:
    """Rows by bucket, why rows wait for people, and how the curriculum mixes the buckets over time."""
    counts = dict(store.frame(DIFFICULTY).rows())
    if not counts:
        return None
    total = sum(counts.values())
    return {
        "buckets": [{"name": b, "n": counts.get(b, 0), "share": counts.get(b, 0) / total} for b in BUCKETS],
        "queue": store.frame(SIGNALS).rows(named=True),
        "stages": stages(manifest) if manifest else [],
        "shards": sum(shard.rows for shard in manifest.shards if shard.kind == "train") if manifest else 0,
        "source": f"{DIFFICULTY};\n\n{SIGNALS}" + (f"\n\n-- stages: {MANIFEST} of the shards" if manifest else ""),
    }


def stages(manifest: Manifest) -> list[dict[str, Any]]:
    """Each stage's name, share of all draws, and mixture in the order of the buckets."""
    if manifest.schedule.kind != "stages":
        return []
    return [
        {"name": stage.name, "share": stage.share, "mixture": [stage.mixture.get(bucket, 0.0) for bucket in BUCKETS]}
        for stage in manifest.schedule.stages
    ]


def training(folder: Path) -> list[dict[str, Any]]:
    """Curves of every training run under `students/`, from the `metrics.jsonl` that it left."""
    paths = sorted(folder.glob("students/*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    runs = [_run(path, folder) for path in paths]
    return [run for run in runs if run["curves"]]


def _run(path: Path, folder: Path) -> dict[str, Any]:
    records = [
        record for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if (record := _record(line))
    ]
    curves = [_curve(words, [(r["step"], r[name]) for r in records if name in r]) for name, words in CURVES.items()]
    last = records[-1] if records else {}
    return {
        "name": path.parent.name,
        "steps": last.get("step", 0),
        "tokens": last.get("num_tokens", 0),
        "alarms": sum(r.get("collapse_alarm", 0) > 0 for r in records),
        "curves": [curve for curve in curves if curve is not None],
        "source": path.relative_to(folder).as_posix(),
    }


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # the last line of a run that was killed
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else {}


def _curve(words: str, points: Sequence[tuple[int, Any]]) -> dict[str, Any] | None:
    known = list({x: float(y) for x, y in points if isinstance(y, int | float) and np.isfinite(y)}.items())
    if len(known) < 2:
        return None
    (low, high), (first, last) = ((min(v), max(v)) for v in ([y for _, y in known], [x for x, _ in known]))
    wide, tall = last - first or 1, high - low or 1
    path = " ".join(
        f"{WIDTH * (x - first) / wide:.1f},{HEIGHT - 4 - (HEIGHT - 8) * (y - low) / tall:.1f}" for x, y in known
    )
    return {"name": words, "path": path, "first": known[0][1], "last": known[-1][1], "low": low, "high": high}


def students(store: Store) -> dict[str, Any] | None:
    """Every judge that has graded the test split, students beside the teacher, with the latency measured of each."""
    taken = {}
    for detail, config in store.frame(MEASURED).rows():
        if latency := json.loads(detail).get("latency_ms"):
            taken[json.loads(config)["judge"]] = latency
    newest = {judge: instruction for judge, instruction, _ in store.frame(JUDGES).rows()}
    if not any(judge.startswith("student:") for judge in newest):
        return None
    rows = []
    for judge, instruction in newest.items():
        try:
            scores = measure(store, Judge(judge, instruction), "test").scores
        except PiarError:  # nothing to measure on
            continue
        rows.append(
            {
                "judge": Judge(judge, instruction),
                "name": judge,
                "scores": scores,
                "latency": taken.get(judge),
                "size": _size(store, judge),
            }
        )
    rows.sort(key=lambda row: row["name"].startswith("student:"))
    return {"rows": rows, "advice": cheaper(store, rows), "source": f"{JUDGES};\n\n{MEASURED}"}


def logs(store: Store, moved: Any) -> dict[str, Any] | None:
    """The newest estimate of each judge's quality on each part of the logs, and how far the grades' shares have moved.

    Args:
        moved: a `piar.measure.live_logs.Drift`, or None.
    """
    newest = {}
    for config, detail, at in store.frame(LIVE).rows():
        asked, found = json.loads(config), json.loads(detail)
        if "accuracy" in found:
            newest[found["judge"], asked["where"]] = {**found, "where": asked["where"], "at": f"{at:%Y-%m-%d %H:%M}"}
    if not newest and moved is None:
        return None
    shares = [
        {"grade": grade, "before": before, "now": now, "gain": difference}
        for grade, (before, now, difference) in (moved.shares.items() if moved else ())
    ]
    told = f"-- shares: what piar status compares, {moved.source} beside all earlier logs" if moved else ""
    return {"rows": list(newest.values()), "moved": moved, "shares": shares, "source": f"{LIVE};\n\n{told}".strip()}


def _size(store: Store, judge: str) -> float | None:
    """Megabytes of weights of a student's folder."""
    kind, _, path = judge.partition(":")
    files = list(student_folder(store, path).glob("*.safetensors")) if kind == "student" else []
    return sum(file.stat().st_size for file in files) / 2**20 if files else None


def manifest(folder: Path) -> Manifest | None:
    """The manifest of the project's own shards, when they are whole."""
    try:
        return read_manifest(folder / "shards")
    except PiarError:
        return None
