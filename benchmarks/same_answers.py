"""`python -m benchmarks.same_answers OUT [--root CHECKOUT]`: every verb's JSON on one small project.

Run it for two checkouts, then `diff -r OUT_A OUT_B`: what differs is what a change of the house has changed for users.
Times and ids of runs are blanked; shards are told by their hashes, the journal by the keys of its lines.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# The walk: a name for the document, and the verb with its options.
WALK = {
    "evolve-dry": ("evolve", "--dry-run"),
    "evolve": ("evolve", "--rounds", "2"),
    "proposal": ("show", "proposal"),
    "accept": ("accept", "--by", "Ada"),
    "diff": ("show", "diff"),
    "instruction": ("show", "instruction"),
    "label-dry": ("label", "--dry-run"),
    "label": ("label",),
    "trust": ("label", "--target-precision", "0.9"),
    "score": ("score", "--split", "test"),
    "baseline": ("score", "--judge", "baseline:tfidf"),
    "check": ("check",),
    "mine": ("mine",),
    "synth-dry": ("synth", "--n", "20", "--dry-run"),
    "synth": ("synth", "--n", "20"),
    "mine-again": ("mine",),
    "plan": ("curriculum", "plan"),
    "curriculum": ("curriculum", "export"),
    "status": ("status",),
    "sql": ("sql", "select split, count(*) as n from samples group by all order by all"),
    "leaderboard": ("sql", "select * from leaderboard order by all"),
    "report": ("report",),
    "export": ("export", "verdicts", "{folder}/verdicts.parquet"),
}  # fmt: skip
_VOLATILE = re.compile(r"(^at$|seconds|_ms|_at|started|ended|run_id|^run$|latency|per_second|version|code)")


def main() -> None:
    """Walk, and write one file for each document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose piar is run")
    parser.add_argument("--pairs", type=int, default=600)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True)
    folder = asked.out.resolve() / "project"
    _verb(asked, "init", ("init", str(folder), "--example", "shop", "--pairs", str(asked.pairs)))
    _verb(asked, "look", ("look", str(folder / "shop.csv")))
    for name, words in WALK.items():
        _verb(asked, name, (*(w.format(folder=folder) for w in words), "-C", str(folder)))
    _write(asked.out / "shards.json", _shards(folder))
    _write(asked.out / "journal.json", _journal(folder))


def _verb(asked: argparse.Namespace, name: str, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "piar", *words, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(asked.root.resolve()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=asked.root)
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = {"text": done.stdout, "error": done.stderr}
    _write(asked.out / f"{name}.json", {"rc": done.returncode, "document": _still(document, str(asked.out.resolve()))})


def _still(value: Any, here: str) -> Any:
    """The document without what differs from run to run."""
    if isinstance(value, dict):
        return {k: "…" if _VOLATILE.search(k) else _still(v, here) for k, v in value.items()}
    if isinstance(value, list):
        return [_still(item, here) for item in value]
    return value.replace(here, "OUT") if isinstance(value, str) else value


def _shards(folder: Path) -> dict[str, str]:
    found = sorted((folder / "shards").rglob("*.jsonl*")) + sorted((folder / "shards").rglob("*.parquet"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def _journal(folder: Path) -> list[str]:
    lines = (
        line for p in sorted((folder / "journal").rglob("*")) if p.is_file() for line in p.read_bytes().splitlines()
    )
    return sorted({",".join(sorted(json.loads(line))) for line in lines if line.startswith(b"{")})


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
