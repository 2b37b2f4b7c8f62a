"""All of it in one command, for a machine with a GPU: students, the proper reward's claim, mining; ten minutes.

    PIAR_REAL_MODELS=DIR python -m benchmarks.real whole [--minutes 10]

Jobs run side by side, one a set, since a small model on a GPU waits for Python. Within a set the first split comes
first, 300 rows before 1,000 and 100. When the time is over no arm is begun; the same command goes on. Without a GPU the
jobs run one after the other, and the budget that is printed says for how long.
"""

import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.claims import __main__ as claims
from benchmarks.real import mining, students
from benchmarks.real.sets import SETS
from benchmarks.real.table import write_students

SIZES = (300, 1_000, 100)  # what decides first
LARGE = ("chorus", "semeval")  # the sets of the 0.5 B
CLAIM_ROWS = 3 * 5 * 16 * 32  # seeds, arms, rows a step, steps


@dataclass(frozen=True)
class Job:
    """A part that needs no other: its name, the seconds of one core and of a GPU that it may take, its work."""

    name: str
    core: float
    gpu: float
    work: Callable[[], None]


def jobs(asked: Any, models: Path, results: Path, until: float) -> list[Job]:
    """What is to be done, the longest first."""
    sets, sizes = students.every(asked.sets, SETS), students.every(asked.sizes, SIZES)
    found = []
    for name in sets:
        arms = [arm for arm in students.ARMS if arm != "instruct05" or name in LARGE]
        cost = partial(_cost, arms=arms, sizes=sizes, splits=len(students.every(asked.splits, students.SPLITS)))
        work = partial(
            students.run,
            asked.out,
            models,
            sets=[name],
            splits=students.every(asked.splits, students.SPLITS),
            sizes=sizes,
            arms=[*students.BASELINES, *arms],
            until=until,
        )
        found.append(Job(f"students on {name}", cost(gpu=False), cost(gpu=True), work))
    if "semeval" in sets:
        seconds = students.ARMS["base270"].estimate(CLAIM_ROWS)
        found.append(Job("claim 9 on semeval", seconds, 240.0, partial(_claim, asked.out, models, until)))
    named = Namespace(sets=asked.sets, splits="0", by=None, out=asked.out)
    seconds = 40.0 * len(sets)
    found.append(Job("mining", seconds, seconds, partial(mining.main, named, models, results)))
    return sorted(found, key=lambda job: -job.core)


def _cost(*, arms: list[str], sizes: list[int], splits: int, gpu: bool) -> float:
    seconds = [(one.on_gpu if gpu else one.estimate)(n) for one in map(students.ARMS.get, arms) if one for n in sizes]
    return splits * sum(seconds)


def _claim(out: Path, models: Path, until: float) -> None:
    asked = ["9", "--student", str(models / "base270"), "--on", "semeval", "-o", str(out / "claims")]
    claims.main([*asked, "--minutes", str((until - time.time()) / 60)])


def options(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no arm after so many")
    parser.add_argument("--sets", help="of " + ", ".join(SETS))
    parser.add_argument("--splits", help="of 0, 1, 2")
    parser.add_argument("--sizes", help="of 300, 1000, 100: rows to learn from")
    parser.add_argument("--workers", type=int, default=0, help="jobs at once; all on a GPU, else one")


def main(asked: Any, models: Path, results: Path) -> None:
    """Print the budget, run what the options name, write the table; a job that fails stops no other.

    Raises:
        SystemExit: with what failed, after the rest.
    """
    import torch

    gpu = torch.cuda.is_available()
    todo = jobs(asked, models, results, time.time() + 60 * asked.minutes)
    workers = asked.workers or (len(todo) if gpu else 1)
    for job in todo:
        print(f"{job.name}: about {job.gpu if gpu else job.core:,.0f} s{' (guessed)' if gpu else ' of one core'}")
    total = [job.gpu if gpu else job.core for job in todo]
    wall = max(max(total), sum(total) / workers) / 60
    print(f"{workers} at once: about {wall:,.0f} minutes; no arm begins after {asked.minutes:g}", flush=True)
    failed = _all(todo, workers)
    write_students(asked.out, results)
    if failed:
        raise SystemExit("\n".join(failed))


def _all(todo: list[Job], workers: int) -> list[str]:
    """Run the jobs; what failed, in words."""
    failed = []
    if workers == 1:
        for job in todo:
            try:
                job.work()
            except (Exception, SystemExit) as error:
                failed.append(f"{job.name}: {error}")
        return failed
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(job.work): job for job in todo}
        for done in as_completed(running):
            if raised := done.exception():
                failed.append(f"{running[done].name}: {raised}")
    return failed
