"""Students beside baselines: accuracy, calibration, milliseconds and megabytes on four sets, three splits, three sizes.

Every arm goes a user's way: rows in a file, `init`, `curriculum export`, `train`, `score` on the test split. What is
done is not done again. Right and wrong of single rows stay in the work folder, weights do not; figures go to
`results/`.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.real.sets import SETS, dealt, project, rows_of
from benchmarks.real.table import write_students
from piar import Project
from piar.measure.baselines import fit
from piar.measure.embeddings import BaselineSettings, embedder
from piar.measure.score import measure
from piar.measure.score import rows as judged_rows
from store.files import write_text
from store.judges import Judge
from store.vectors import FOLDER

SIZES, SPLITS = (100, 300, 1_000), (0, 1, 2)
BASELINES = ("majority", "tfidf", "tfidf_overlap", "cosine", "probe")
TIMED = 30
TOKENS = 64  # of a row, on average; for the estimate alone


@dataclass(frozen=True, slots=True)
class Arm:
    """A student to be taught: which folder of PIAR_REAL_MODELS, its weights, its passes, and how it is taught."""

    folder: str
    weights: float  # without embeddings, which cost nothing
    rate: float  # floating point operations a second of one core: small matrices are slower
    operations: int
    epochs: float
    teach: Callable[[Project, Path, Path, str], Path]

    def estimate(self, rows: int) -> float:
        """Seconds of a core: 6 floating point operations a weight and token to learn (4 with adapters), 2 to judge."""
        return (self.operations * rows * self.epochs + 2 * 800) * TOKENS * self.weights / self.rate

    def on_gpu(self, rows: int) -> float:
        """Seconds on a GPU, where small models wait for Python: a guess, never measured."""
        return 10.0 + 0.12 * rows * self.epochs / 16


def _encoder(reads: str, epochs: float = 4.0, *, beside: str = "none") -> Callable[[Project, Path, Path, str], Path]:
    """An arm's way; `beside` is the setting of that name, or `both` for the set's encoder whether or not it helps."""

    def teach(at: Project, shards: Path, out: Path, model: str) -> Path:
        from trainers.encoder import train

        told = {"model": model, "max_length": 256, "batch_size": 16, "reads": reads, "epochs": epochs}
        encoder = at.config.baselines.encoder
        told["beside"] = encoder if beside == "both" else beside
        settings = at.config.train.encoder.model_copy(update=told)
        return train(shards, out, settings=settings, beside=encoder, keep=at.folder / FOLDER).checkpoint

    return teach


def _language_model(at: Project, shards: Path, out: Path, model: str) -> Path:
    from trainers.sft import train

    student = at.config.student.model_copy(update={"model": model, "lora": 16})
    told = {"completion": "grade", "epochs": 2.0, "batch_size": 16, "max_length": 512}
    settings = at.config.train.sft.model_copy(update=told)
    done = train(shards, out, student=student, settings=settings, resume=True)
    if done.stopped:
        raise SystemExit("It was stopped; the same command goes on.")
    return done.checkpoint


ARMS = {
    "frozen": Arm("encoder", 10.6e6, 20e9, 2, 1.0, _encoder("apart", 0.0)),
    "encoder": Arm("encoder", 10.6e6, 20e9, 6, 4.0, _encoder("auto")),
    "together": Arm("encoder", 10.6e6, 20e9, 6, 4.0, _encoder("together")),
    "read270": Arm("base270", 67e6, 75e9, 2, 1.0, _encoder("prompted")),
    "read05": Arm("instruct05", 239e6, 75e9, 2, 1.0, _encoder("prompted")),
    "read15": Arm("instruct15", 873e6, 75e9, 2, 1.0, _encoder("prompted")),
    "both270": Arm("base270", 78e6, 75e9, 2, 1.0, _encoder("prompted", beside="both")),
    "both05": Arm("instruct05", 250e6, 75e9, 2, 1.0, _encoder("prompted", beside="both")),
    "both15": Arm("instruct15", 884e6, 75e9, 2, 1.0, _encoder("prompted", beside="both")),
    "auto15": Arm("instruct15", 884e6, 75e9, 2, 1.0, _encoder("prompted", beside="auto")),
    "base270": Arm("base270", 100e6, 75e9, 4, 2.0, _language_model),
    "instruct05": Arm("instruct05", 358e6, 75e9, 4, 2.0, _language_model),
}


def run(
    out: Path,
    models: Path,
    *,
    sets: list[str],
    splits: list[int],
    sizes: list[int],
    arms: list[str],
    until: float = math.inf,
) -> None:
    """Measure what was asked for and is not there yet; begin no arm after `until`, seconds since the epoch."""
    for name in sets:
        print(f"{name}: {100 * rows_of(name)[1]:.0f} % of its rows are cut to about 128 tokens", flush=True)
        for split in splits:
            for size in sizes:
                folder, encoder = out / f"{name}-{split}-{size}", str(models / "encoder")
                at = project(name, dealt(name, split, size), folder, encoder=encoder, named=True)
                for arm in arms:
                    if time.time() > until:
                        print(f"{name}: the time is over; the same command goes on", flush=True)
                        return
                    _one(at, name, split, size, arm, models)


def _one(at: Project, name: str, split: int, size: int, arm: str, models: Path) -> None:
    done = at.folder / f"{arm}.json"
    if done.exists():
        return
    began, after = time.monotonic(), None
    if arm in ARMS:
        print(f"{name} {split} {size} {arm}: about {ARMS[arm].estimate(size):,.0f} s of one core", flush=True)
        judge, size_mb = _taught(at, arm, ARMS[arm], models)
        scored, _ = Project.open(at.folder).score(judge, "test")
        latency, after = scored.latency_ms["first_token"].p50, scored.calibrated
    else:
        judge, size_mb = f"baseline:{arm}", _weights(models / "encoder") if arm in ("cosine", "probe") else 0.0
        if not at.store.frame("select 1 from verdict where judge = ? limit 1", [judge]).height:
            at.score("baseline:probe", "test")  # with all others beside it
        latency = _latency(at, arm, models)
    one, rows = measure(at.store, Judge(judge), "test"), judged_rows(at.store, Judge(judge), "test")
    found = {
        "set": name,
        "split": split,
        "train": size,
        "learnt": at.store.frame("select count(*) from samples where split = 'train'").item(),
        "arm": arm,
        "n": one.scores.n,
        "groups": one.scores.groups,
        "accuracy": _interval(one.scores.accuracy),
        "macro_f1": one.scores.macro_f1.value,
        "ece": one.scores.ece.value,
        "nll": one.probabilities.nll.value if one.probabilities else None,
        "calibrated": after
        and {
            "strategy": after.strategy,
            "accuracy": after.accuracy.value,
            "ece": after.ece.value,
            "nll": after.probabilities.nll.value,
        },
        "ms": latency,
        "mb": size_mb,
        "seconds": round(time.monotonic() - began, 1),
        "rows": _by_row(rows, at.task.symbols),
    }
    write_text(done, json.dumps(found))
    shutil.rmtree(at.folder / "students" / arm, ignore_errors=True)  # up to 2.7 GB each
    print(f"{name} {split} {size} {arm}: {100 * one.scores.accuracy.value:.1f} %, {found['seconds']} s", flush=True)


def _by_row(rows: pl.DataFrame, symbols: tuple[str, ...]) -> list[list[Any]]:
    """Of each row its group, whether it was right, and the log-likelihood of its grade."""
    return [
        [row["group"], int(row["gold"] == row["predicted"]), _log(row["probs"], symbols.index(row["gold"]))]
        for row in rows.iter_rows(named=True)
    ]


def _log(probs: list[float] | None, gold: int) -> float | None:
    return math.log(max(probs[gold], 1e-12)) if probs else None


def _taught(at: Project, name: str, arm: Arm, models: Path) -> tuple[str, float]:
    shards, out = at.folder / "shards", at.folder / "students" / name
    if not (shards / "manifest.json").exists():
        at.curriculum_export(shards)
    folder = out / "final" if (out / "final").exists() else arm.teach(at, shards, out, str(models / arm.folder))
    return f"student:{folder.relative_to(at.folder)}", _weights(folder)


def _weights(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 2**20, 1)


def _interval(found: Any) -> list[float | None]:
    return [found.value, found.low, found.high]


def _latency(at: Project, name: str, models: Path) -> float:
    """Milliseconds at the median that a baseline takes over one row whose texts it has not seen."""
    fields = ", ".join(f's."{field}"' for field in at.task.fields)
    told = (
        f"select {fields}, t.grade as gold, s.group_key from samples s join truth t using (sample_id) where s.split = "
    )
    train, test = (at.store.frame(f"{told} '{part}' order by s.sample_id") for part in ("train", "test"))
    embed = embedder(BaselineSettings(encoder=str(models / "encoder")))
    predict = fit(name, train.head(200), at.task, groups=train.head(200)["group_key"], embed=embed).predict
    seconds = []
    for i in range(min(TIMED, len(test))):
        fresh = test[i].with_columns(pl.col(at.task.fields[-1]) + f" {i}")
        began = time.perf_counter()
        predict(fresh)
        seconds.append(time.perf_counter() - began)
    return round(1000 * float(np.median(seconds)), 2)


def every(words: str | None, known: dict[str, Any] | tuple[Any, ...]) -> list[Any]:
    """What an option names, all of it where it is left out."""
    if not words:
        return list(known)
    return [next(one for one in known if str(one) == word) for word in words.split(",")]


def options(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--sets", help="of " + ", ".join(SETS))
    parser.add_argument("--splits", help="of 0, 1, 2")
    parser.add_argument("--sizes", help="of 100, 300, 1000: rows to learn from")
    parser.add_argument("--arms", default=",".join(BASELINES), help="of " + ", ".join((*BASELINES, *ARMS)))


def main(asked: Any, models: Path, results: Path) -> None:
    """Run what the options name."""
    run(
        asked.out,
        models,
        sets=every(asked.sets, SETS),
        splits=every(asked.splits, SPLITS),
        sizes=every(asked.sizes, SIZES),
        arms=every(asked.arms, (*BASELINES, *ARMS)),
    )
    write_students(asked.out, results)
