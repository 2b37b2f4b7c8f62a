"""A store whose task has changed before anything was judged: set aside, so that it can be made anew."""

import json
from dataclasses import dataclass
from pathlib import Path

from store.db import Store
from store.task import Task

# What a store cannot be made anew without: judgements, and what people said in reviews.
_JUDGED = """select exists (from verdicts) or exists (from decisions) or exists (from review_batches)
    or exists (from completions) or exists (from synthesis)"""
_FILES = "select config ->> 'paths' from runs where verb = 'import' order by started"


@dataclass(frozen=True, slots=True)
class Renewal:
    """A store that was set aside.

    Attributes:
        task: what it was made with.
        kept: where it is now.
        files: what had been imported into it.
    """

    task: Task
    kept: Path
    files: tuple[str, ...]


def renew(path: Path, task: Task) -> Renewal | None:
    """Set the store aside as `NAME.bak` where its fields or grades are not the task's and nothing was judged.

    Returns:
        what was done; None where the store stays: it fits, is not there, or holds judgements.
    """
    if not path.exists():
        return None
    with Store(path, task).read() as con:
        if not con.execute("select 1 from information_schema.tables where table_name = 'meta'").fetchall():
            return None
        [(known,)] = con.execute("select value from meta where key = 'task'").fetchall()
        before = Task.model_validate_json(known)
        if before.fields == task.fields and before.symbols == task.symbols and before.group_by == task.group_by:
            return None
        [(judged,)] = con.execute(_JUDGED).fetchall()
        files = [name for (names,) in con.execute(_FILES).fetchall() for name in json.loads(names)]
    if judged:
        return None
    kept = path.with_name(path.name + ".bak")
    path.replace(kept)
    return Renewal(before, kept, tuple(dict.fromkeys(files)))
