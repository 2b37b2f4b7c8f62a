"""What each part of a search in rounds is worth: the same search with one part switched off, on test.

Worlds are in turn the *simulated* shop (1,000 pairs, its seed the world's number) and the four real sets (at most 4,000
rows, in whole groups), all with the offline teacher and reviser. Each way has a project of its own with the same rows
and splits; what stands after it (the proposal, or what it began with) is told on the untouched test split, beside its
requests. A part stays where it is worth a point on average, or saves requests at no loss.

Run: `python -m benchmarks.search_parts [WORLDS] [OUT]`; it resumes where `OUT` ends.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real.sets import SETS, rows_of
from benchmarks.refit import told, whole_groups
from benchmarks.worlds import rows_of as resumed
from piar.project.facade import Project
from store.importers import ImportMapping

WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "each on the whole of dev": {"race": "whole"},
    "no draft anew": {"redraft": "none"},
}


def one(number: int) -> dict[str, Any]:
    """Every way in one world: a shop, then a set, and so on."""
    turn, real = divmod(number, 2)
    name, seed = (list(SETS)[turn % len(SETS)], turn // len(SETS)) if real else ("shop", turn)
    row: dict[str, Any] = {"world": number, "of": name, "seed": seed}
    with tempfile.TemporaryDirectory() as made:
        for way, settings in WAYS.items():
            row[way] = told(_project(Path(made), name, seed, way).evolve(seed=seed, **settings))
    return row


def _project(made: Path, name: str, seed: int, way: str) -> Project:
    folder = made / way.replace(" ", "-")
    if name == "shop":
        return Project.init(folder, example="shop", pairs=1_000, seed=seed)
    file, real = made / "rows.csv", SETS[name]
    if not file.exists():
        whole_groups(rows_of(name)[0], real.group, seed).write_csv(file)
    fields = {field: field for field in real.fields}
    mapping = ImportMapping(fields=fields, gold="gold", group=real.group, grades=real.grades)
    return Project.init(folder, from_=file, mapping=mapping, seed=seed)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean points on test and requests of each way, and what it gains, with two standard errors over worlds."""
    lines = ["| way | worlds | test, % | points beside the search as it is | requests |", "|---|---|---|---|---|"]
    for kind in ("shop", "real"):
        some = [row for row in rows if (row["of"] == "shop") == (kind == "shop")]
        for way in WAYS if len(some) > 1 else ():
            stands = np.array([row[way]["stands %"] for row in some])
            gained = stands - [row["as it is"]["stands %"] for row in some]
            spread = 2 * gained.std(ddof=1) / np.sqrt(len(some))
            calls = np.mean([row[way]["calls"] for row in some])
            change = f"{gained.mean():+.1f} ± {spread:.1f}"
            lines.append(f"| {kind}, {way} | {len(some)} | {stands.mean():.1f} | {change} | {calls:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    worlds, out = (sys.argv[1:] + ["16", "search_parts.jsonl"][len(sys.argv) - 1 :])[:2]
    found = resumed(one, int(worlds), 0, out)
    print(json.dumps(found, indent=1))
    print(table(found))
