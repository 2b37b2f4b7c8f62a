"""What mining finds where a row has its gold and no vote: buckets, accuracy over them, flips planted in training gold.

One label in ten is replaced by another grade at random. The cheap student that stands in (`probe`, or TF-IDF without an
encoder) is taught on those labels too. Accuracy over buckets is another judge's, by the true labels: TF-IDF with
overlap and the cosine, each out of fold by group.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.real.results import put
from benchmarks.real.sets import SETS, dealt, project
from benchmarks.real.students import SPLITS, every
from piar import Project
from piar.measure import baselines
from piar.measure.embeddings import BaselineSettings, embedder
from store.files import write_text
from store.types import BUCKETS

FLIPPED = 0.1
TOP = 0.05


def run(out: Path, models: Path, names: list[str], splits: list[int], encoders: list[str], results: Path) -> None:
    """Mine what was asked for and is not there yet; write the figures of all that is there."""
    for name in names:
        for split in splits:
            for kind in encoders:
                folder = out / f"{name}-{split}-{kind}"
                if (folder / "mined.json").exists():
                    continue
                print(f"{name} {split} {kind}: seconds", flush=True)
                told = _one(name, split, kind, folder, str(models / "encoder"))
                write_text(folder / "mined.json", json.dumps(told))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*/mined.json"))]
    print(table(put(results / "mining.json", found, "set", "split", "by")), flush=True)


def _one(name: str, split: int, kind: str, folder: Path, encoder: str) -> dict[str, Any]:
    true, wrong = _flipped(dealt(name, split), SETS[name].grades, split)
    at = project(name, wrong, folder, encoder=encoder if kind == "probe" else "")
    report = at.mine()
    keys = list(at.task.fields)
    fields = ", ".join(f's."{field}"' for field in keys)
    mined = at.store.frame(
        f"select {fields}, d.p, d.bucket, x.suspicion, x.confident_learning from samples s "
        "join difficulty d using (sample_id) join signals x using (sample_id) where s.split = 'train'"
    ).join(true.filter(pl.col("split") == "train"), on=keys)
    flipped = mined["flipped"].to_numpy()
    return {
        "set": name,
        "split": split,
        "by": next(iter(report.difficulty_by), ""),
        "rows": len(mined),
        "flipped": float(flipped.mean()),
        "buckets": {bucket: int((mined["bucket"] == bucket).sum()) for bucket in BUCKETS},
        "clean": _by_bucket(mined, ~flipped),
        **{f"right {judge}": _by_bucket(mined, right) for judge, right in _others(name, mined, at, encoder).items()},
        "enriched": {signal: _enriched(mined[signal], flipped) for signal in ("suspicion", "confident_learning")},
        "queued": _queued(at, true, keys),
    }


def _flipped(frame: pl.DataFrame, grades: tuple[str, ...], seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with `gold` as it is and `flipped`, and the same with the planted labels."""
    rng = np.random.default_rng([seed, 7])
    chosen = (frame["split"] == "train").to_numpy() & (rng.random(len(frame)) < FLIPPED)
    planted = [
        str(rng.choice([g for g in grades if g != gold])) if flip else gold
        for gold, flip in zip(frame["gold"], chosen, strict=True)
    ]
    return frame.with_columns(flipped=pl.Series(chosen)), frame.with_columns(gold=pl.Series(planted))


def _others(name: str, mined: pl.DataFrame, at: Project, encoder: str) -> dict[str, Any]:
    """Right or wrong by the true labels, of judges that learnt the true labels of other groups."""
    embed = embedder(BaselineSettings(encoder=encoder), at.folder)
    right = {}
    for judge in ("tfidf_overlap", "cosine"):
        probs = baselines.cross_validate(judge, mined, at.task, mined[SETS[name].group], embed=embed)
        assert probs is not None
        said = [at.task.symbols[place] for place in probs.argmax(axis=1)]
        right[judge] = np.array([one == gold for one, gold in zip(said, mined["gold"], strict=True)])
    return right


def _by_bucket(mined: pl.DataFrame, right: Any) -> dict[str, float | None]:
    told = mined.with_columns(right=pl.Series(np.asarray(right, dtype=np.float64)))
    means = dict(told.group_by("bucket").agg(pl.col("right").mean()).iter_rows())
    return {bucket: means.get(bucket) for bucket in BUCKETS}


def _enriched(signal: pl.Series, flipped: Any) -> float | None:
    """Share of flips among the top 5 % of a signal, in multiples of their share of all rows; None where few have it."""
    score = signal.fill_null(-1.0).to_numpy()
    top = np.argsort(-score, kind="stable")[: round(TOP * len(score))]
    return float(flipped[top].mean() / flipped.mean()) if (score[top] > -1).all() else None


def _queued(at: Project, true: pl.DataFrame, keys: list[str]) -> dict[str, Any]:
    """Rows that are queued as suspect gold, and the share of flips among them."""
    fields = ", ".join(f'"{field}"' for field in keys)
    queued = at.store.frame(f"select {fields} from label_queue where reason = 'suspect gold'").join(true, on=keys)
    return {"rows": len(queued), "flipped": queued["flipped"].mean()}


def table(found: list[dict[str, Any]]) -> str:
    """The figures in Markdown: means over the splits of a set."""
    lines = [
        "| set | difficulty by | easy · mid · hard · suspect, rows | label not flipped, % | TF-IDF right, % "
        "| cosine right, % | flips in the top 5 % of `suspicion` | in the queue's suspect gold |",
        "|---|---|---|---|---|---|---|---|",
    ]
    parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in found:
        parts.setdefault((one["set"], one["by"]), []).append(one)
    for (name, by), part in parts.items():
        shares = [_walk([one[key] for one in part]) for key in ("clean", "right tfidf_overlap", "right cosine")]
        rows = " · ".join(f"{np.mean([one['buckets'][bucket] for one in part]):.0f}" for bucket in BUCKETS)
        top = [one["enriched"]["suspicion"] for one in part if one["enriched"]["suspicion"] is not None]
        queued = [one["queued"]["flipped"] / one["flipped"] for one in part if one["queued"]["rows"]]
        each = ", ".join(f"{value:.1f}" for value in top)
        lines.append(
            f"| {name} | {by} | {rows} | " + " | ".join(shares) + f" | {_times(top)} ({each}) | {_times(queued)} |"
        )
    return "\n".join(lines)


def _times(values: list[float]) -> str:
    """Their mean, a dash where there is none."""
    return f"{np.mean(values):.1f} ×" if values else "–"


def _walk(shares: list[dict[str, float | None]]) -> str:
    means = [[one[bucket] for one in shares if one[bucket] is not None] for bucket in BUCKETS]
    return " · ".join(f"{100 * float(np.mean(known)):.0f}" if known else "–" for known in means)


def options(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--sets", help="of " + ", ".join(SETS))
    parser.add_argument("--splits", help="of 0, 1, 2")
    parser.add_argument("--by", help="of probe, tfidf: who stands in")


def main(asked: Any, models: Path, results: Path) -> None:
    """Run what the options name."""
    names, splits = every(asked.sets, SETS), every(asked.splits, SPLITS)
    run(asked.out / "mining", models, names, splits, every(asked.by, ("probe", "tfidf")), results)
