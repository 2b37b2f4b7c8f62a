"""Instruction optimizers side by side, on one simulated endpoint, at equal teacher calls.

`python -m benchmarks.optimizers [--worlds 20] [--seeds 5] [--budget 1000] [--arms NAME…] [--minutes M] [--out DIR]`

Resumes: one row for each (world, seed, arm) is appended to `rows.jsonl` in the output folder, and what is there is not
run again. Writes `table.md` and `gains.svg` beside it. What a simulation shows is search, accounting and statistics;
how well a language model reads and writes English it cannot show.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.optimizers.arms import ARMS, measure
from benchmarks.optimizers.table import plot, table
from benchmarks.optimizers.worlds import KINDS, make_world

WHOLE_REWRITES_LOSE = 0.0  # share of the rules; the headline


def plan(worlds: int, seeds: int, arms: list[str]) -> Iterator[tuple[str, int, int, str]]:
    """Kind, number, seed and arm of every run: all worlds once, then again with the next seed."""
    for seed in range(seeds):
        for i in range(worlds):
            for arm in arms:
                yield KINDS[i % len(KINDS)], i // len(KINDS), seed, arm


def main() -> int:
    """Run what is missing, then write table and plot."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {_key(row) for row in rows}
    ends = time.monotonic() + 60 * options.minutes
    for kind, number, seed, arm in plan(options.worlds, options.seeds, options.arms):
        place = {"kind": kind, "world": number, "seed": seed, "arm": arm, "budget": options.budget,
                 "drop": options.drop}  # fmt: skip
        if _key(place) in known:
            continue
        if time.monotonic() > ends:
            print("The time is up; the same command goes on.", file=sys.stderr)
            break
        row = place | measure(ARMS[arm], make_world(kind, number), options.budget, seed, options.drop)
        rows.append(row)
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(f"{kind} {number} · seed {seed} · {arm}: {row['accuracy']:.3f}", file=sys.stderr, flush=True)
    written = table(rows)
    (options.out / "table.md").write_text(written)
    (options.out / "gains.svg").write_text(plot(rows))
    print(written)
    return 0


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("kind", "world", "seed", "arm", "budget", "drop"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizers", description=__doc__)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=1000, help="teacher calls")
    parser.add_argument("--drop", type=float, default=WHOLE_REWRITES_LOSE, help="share of rules a rewrite loses")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after these; the same command goes on")
    parser.add_argument("--out", type=Path, default=Path("optimizers-out"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
