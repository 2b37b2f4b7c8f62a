"""Instruction optimizers side by side, on one simulated endpoint, at equal teacher calls.

`python -m benchmarks.optimizers [--worlds 20] [--seeds 5] [--budget 1000] [--arms NAME…] [--kinds KIND…] [--minutes M]
[--out DIR] [--publish]`

All arms of one world are run before the next, and the kinds of worlds take turns, so that a part of the comparison is a
fair one. Resumes: one row for each (world, seed, arm) is appended to `rows.jsonl` in the output folder, and what is
there is not run again. Writes `table.md` and `gains.svg` beside it, with `--publish` into `docs/figures` too.

`--grid` runs, on two worlds that begin with most of the oracle's rules, what a rewrite costs that loses 0, 5, 10 or
20 % of the rules; it writes `grid.md`.

What a simulation shows is search, accounting and statistics; how well a language model reads and writes English it
cannot show.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.optimizers import arms
from benchmarks.optimizers.arms import measure
from benchmarks.optimizers.table import grid, plot, table
from benchmarks.optimizers.tested import TESTED
from benchmarks.optimizers.worlds import KINDS, World, make_world

ARMS = arms.ARMS | TESTED
FIGURES = Path(__file__).parents[2] / "docs" / "figures"
DROPS = (0.0, 0.05, 0.1, 0.2)
GRID_ARMS = ("gepa, tuned", "ours, whole rewrites", "ours")
Place = dict[str, Any]


def plan(worlds: int, seeds: int, arms: Sequence[str], budget: int) -> Iterator[list[Place]]:
    """The runs of one world with one seed, kinds in turn: all worlds once, then again with the next seed."""
    for seed in range(seeds):
        for i in range(worlds):
            where = {"kind": KINDS[i % len(KINDS)], "world": i // len(KINDS), "seed": seed, "budget": budget}
            yield [where | {"arm": arm, "drop": ARMS[arm].drop} for arm in arms]


def grid_plan(budget: int) -> Iterator[list[Place]]:
    """Two worlds, all shares that a rewrite may lose."""
    for kind in ("rules", "noisy"):
        where = {"kind": kind, "world": 0, "seed": 0, "budget": budget}
        yield [where | {"arm": arm, "drop": drop} for drop in DROPS for arm in GRID_ARMS]


def grid_world(kind: str, number: int) -> World:
    """A world whose seed has something to lose: the oracle without two markers."""
    world = make_world(kind, number)
    return replace(world, seed=replace(world.oracle, rules=world.oracle.rules[2:]))


def run(
    file: Path, plan: Iterator[list[Place]], minutes: float, made: Callable[[str, int], World] = make_world
) -> list[Place]:
    """Run what is missing, world by world, until the time is up; every row that is known then."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {_key(row) for row in rows}
    ends = time.monotonic() + 60 * minutes
    for places in plan:
        for place in (p for p in places if _key(p) not in known):
            row = place | measure(
                ARMS[place["arm"]], made(place["kind"], place["world"]), place["budget"], place["seed"], place["drop"]
            )  # fmt: skip
            rows.append(row)
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")
            print(" · ".join(map(str, [*place.values(), f"{row['accuracy']:.3f}"])), file=sys.stderr, flush=True)
        if time.monotonic() > ends:
            print("The time is up; the same command goes on.", file=sys.stderr)
            break
    return rows


def main() -> int:
    """Run what is missing, then write table and plot."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.grid:
        rows = run(options.out / "grid.jsonl", grid_plan(options.budget), options.minutes, grid_world)
        written = {"grid.md": grid(rows)}
    else:
        places = plan(options.worlds, options.seeds, options.arms, options.budget)
        wanted = (part for part in places if part[0]["kind"] in options.kinds)
        rows = run(options.out / "rows.jsonl", wanted, options.minutes)
        rows.sort(key=lambda row: list(ARMS).index(row["arm"]))
        written = {"table.md": table(rows), "gains.svg": plot(rows)}
    for name, text in written.items():
        (options.out / name).write_text(text)
        if options.publish:
            FIGURES.mkdir(parents=True, exist_ok=True)
            (FIGURES / f"optimizers-{name}").write_text(text)
    print(next(iter(written.values())))
    return 0


def _key(row: Place) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("kind", "world", "seed", "arm", "budget", "drop"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizers", description=__doc__)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=1000, help="teacher calls")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="of worlds")
    parser.add_argument(
        "--minutes", type=float, default=1e6, help="begin no world after these; the same command goes on"
    )
    parser.add_argument("--grid", action="store_true", help="what losing rules on whole rewrites costs, on two worlds")
    parser.add_argument("--publish", action="store_true", help="write the figures into docs/figures too")
    parser.add_argument("--out", type=Path, default=Path("optimizers-out"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
