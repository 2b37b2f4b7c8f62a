"""Many simulated worlds, one row each, in a file: what is cut short goes on in the next call."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def rows_of(one: Callable[[int], Row], worlds: int, first: int, out: str) -> list[Row]:
    """The rows of a file, after the missing ones of `worlds` worlds from number `first` have been run and appended.

    Args:
        one: number of a world -> its row, which holds that number as `world`.
    """
    file = Path(out)
    rows: list[Row] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {row["world"] for row in rows}
    for number in (n for n in range(first, first + worlds) if n not in known):
        rows.append(one(number))
        with file.open("a") as appended:
            appended.write(json.dumps(rows[-1]) + "\n")
        print(f"{len(rows)} of {worlds} worlds", end="\r", file=sys.stderr, flush=True)
    return rows
