"""A student from nothing on real labels, Chorus and DBpedia, beside TF-IDF with logistic regression.

    OMP_NUM_THREADS=1 python -m benchmarks.trainers.real [chorus] [dbpedia] [-o DIR]

Each is the way a user goes: init, mine, curriculum export, train, score on the untouched test split, by the command
line, with intervals by query. The budget is small (some minutes of CPU): it says whether a student of one million
weights and nothing else beats the linear baseline, not what a pretrained one would do.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.data import shared

# Chorus has some 1,100 rows to learn from: many passes; DBpedia has some 16,000, and long texts.
WORLDS = {
    "chorus": ("chorus/chorus.csv", ["train.sft.epochs=16", "train.sft.batch_size=32"]),
    "dbpedia": ("dbpedia_entity/pairs.parquet", ["train.sft.steps=300", "train.sft.batch_size=32",
                                                 "train.sft.max_length=192", "student.vocab_size=8192",
                                                 "train.encoder.epochs=1"]),
}  # fmt: skip
BASELINES = ("baseline:majority", "baseline:tfidf", "baseline:tfidf_overlap")


def piar(*words: str, folder: Path | None = None) -> dict[str, Any]:
    """The JSON that a verb prints."""
    where = ["-C", str(folder)] if folder else []
    done = subprocess.run([sys.executable, "-m", "piar", *words, *where, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"piar {' '.join(words)}: {done.stderr}")
    return dict(json.loads(done.stdout))


def run(name: str, out: Path) -> None:
    """One world: accuracies on test, and what the student gains over each baseline; what is done is not done again."""
    source, settings = WORLDS[name]
    folder = out / name
    shards, student, encoder = folder / "shards", folder / "student", folder / "encoder"
    sets = [word for setting in settings for word in ("--set", setting)]
    if not (folder / "piar.toml").exists():
        piar("init", str(folder), "--from", str(shared(source)))
    if not (shards / "manifest.json").exists():
        piar("mine", folder=folder)
        piar("curriculum", "export", str(shards), folder=folder)
    if not (student / "final" / "COMPLETE").exists():
        piar("train", "sft", str(shards), "-o", str(student), "--resume", *sets, "--set", "train.sft.save_every=100",
             folder=folder)  # fmt: skip
    judge = f"student:{(student / 'final').resolve()}"
    found: dict[str, Any] = {"world": name}
    for baseline in BASELINES:
        scored = piar("score", "--judge", judge, "--split", "test", "--against", baseline, folder=folder)
        found["student"] = scored["accuracy"]
        found[f"gain over {baseline}"] = {key: scored["gain"][key] for key in ("mean", "low", "high", "p_value")}
    print(json.dumps(found), flush=True)
    if not (encoder / "final" / "config.json").exists():
        trained = piar("train", "encoder", str(shards), "-o", str(encoder), *sets, folder=folder)
        on_dev = {key: value for key, value in trained["metrics"].items() if key.startswith("dev/accuracy")}
        print(json.dumps({"world": name, "encoder": on_dev}), flush=True)


def main() -> None:
    """Run the worlds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="*", default=list(WORLDS), help="chorus, dbpedia")
    parser.add_argument("-o", "--out", type=Path, default=Path("real"))
    asked = parser.parse_args()
    for name in asked.worlds:
        run(name, asked.out)


if __name__ == "__main__":
    main()
