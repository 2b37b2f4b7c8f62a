"""`python -m benchmarks.startup OTHER`: what beginning costs, beside another checkout of this repository.

Help, the import, and opening the store of a project that each has made itself; both take turns, by one interpreter.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.timing import compare

ROOT = Path(__file__).parent.parent
WORK = {
    "piar --help": ["-m", "piar", "--help"],
    "import piar": ["-c", "import piar"],
    "opening a store": ["-c", "import piar; piar.Project.open('shop').store.frame('select 1')"],
}


def run(checkout: Path, words: list[str], folder: Path) -> None:
    """One command with a checkout's code, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print this checkout's time over the other's for each piece of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the other checkout, such as a `git worktree` of an earlier commit")
    parser.add_argument("--rounds", type=int, default=11)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sides = {"that": (asked.other.resolve(), Path(scratch, "that")), "this": (ROOT, Path(scratch, "this"))}
        for checkout, folder in sides.values():
            folder.mkdir()
            run(checkout, ["-m", "piar", "init", "shop", "--example", "shop", "--pairs", "100"], folder)
        for name, words in WORK.items():
            ways = {side: partial(run, checkout, words, folder) for side, (checkout, folder) in sides.items()}
            print(f"{name}\n{compare(ways, asked.rounds)[1]}")


if __name__ == "__main__":
    main()
