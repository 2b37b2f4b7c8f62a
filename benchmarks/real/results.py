"""Result files: a run of a part replaces its own figures and leaves those of the others."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from store.files import write_text

Found = dict[str, Any]


def put(path: Path, found: Iterable[Found], *names: str) -> list[Found]:
    """Add figures to a result file, a list; returns all of them, in the file's order.

    Args:
        found: figures, each of what its values of `names` say.
    """
    known: list[Found] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    every = merged(known, found, *names)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(every, indent=1) + "\n")
    return every


def merged(known: Iterable[Found], found: Iterable[Found], *names: str) -> list[Found]:
    """Of figures with the same values of `names` those of more splits; of equally many the new ones."""
    by_name = {tuple(one[name] for name in names): one for one in known}
    for one in found:
        at = tuple(one[name] for name in names)
        if at not in by_name or one.get("splits", 1) >= by_name[at].get("splits", 1):
            by_name[at] = one
    return list(by_name.values())
