"""`python -m benchmarks.evolve_walk`: how often who follows `piar evolve` returns to a file that he has left.

One search on the simulated shop is watched: the functions of `piar/evolve/` that are handed an instruction, alone,
among others or with what a run is given, in the order in which they are first called. A stay is a row of them in one
file; a return is a stay in a file that had been left.
"""

import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

from piar import Project
from store.types import Instruction

BEARERS = ("Inputs", "Search")  # what a run is given, and what it has found so far


def stays(calls: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Functions (file, name) in order -> each stay in a file, with the functions met there."""
    return [(file, [name for _, name in found]) for file, found in groupby(calls, key=lambda call: call[0])]


def watched(pairs: int) -> list[tuple[str, str]]:
    """File and name of each function of `piar/evolve/` that is handed an instruction, by its first call."""
    calls: dict[Any, tuple[str, str]] = {}

    def notice(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        path = Path(code.co_filename)
        if event != "call" or code in calls or path.parent.name != "evolve" or code.co_name.startswith("<"):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(_bears(frame.f_locals.get(name)) for name in names if name != "self"):
            calls[code] = (path.stem, code.co_name)

    with tempfile.TemporaryDirectory() as folder:
        project = Project.init(Path(folder) / "shop", example="shop", pairs=pairs)
        sys.setprofile(notice)
        try:
            project.evolve(rounds=2)
        finally:
            sys.setprofile(None)
    return list(calls.values())


def _bears(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_bears, value[:3]))
    return isinstance(value, Instruction) or type(value).__name__ in BEARERS


def main() -> None:
    """Print the walk."""
    found = stays(watched(600))
    for file, names in found:
        print(f"{file:>14}  {', '.join(names)}")
    rooms = {file for file, _ in found}
    print(f"{len(found)} stays in {len(rooms)} files: {len(found) - len(rooms)} returns")


if __name__ == "__main__":
    main()
