"""Rows of a real set as the claims take them: people's grades, no reasons; split by group, anew for each seed."""

from dataclasses import dataclass
from typing import Any

from benchmarks.real.sets import SETS, dealt
from benchmarks.trainers.shop import Rows
from store.task import Grade, Task, sample_text
from store.types import Instruction


@dataclass(frozen=True)
class RealWorld:
    """A set's task; nobody knows rules by which its people graded."""

    task: Task
    oracle: Instruction

    @property
    def seed(self) -> Instruction:
        """The first draft: none."""
        return self.oracle


def set_rows(name: str, rows: int, seed: int, *, held_out: float) -> tuple[RealWorld, Rows, Rows]:
    """A set, rows to learn from, and rows of other groups; at most `rows`, a share of `held_out` among the latter."""
    one, frame = SETS[name], dealt(name, seed, rows - int(held_out * rows))
    grades = tuple(Grade(symbol=symbol, value=float(i), meaning=symbol) for i, symbol in enumerate(one.grades))
    task = Task(name=name, group_by=one.group, fields=one.fields, grades=grades)
    parts = {
        split: [
            _row(row, one.fields, one.group, f"{name}-{split}-{i}")
            for i, row in enumerate(frame.filter(split=split).iter_rows(named=True))
        ]
        for split in ("train", "test")
    }
    return RealWorld(task, Instruction("")), parts["train"], parts["test"][: int(held_out * rows)]


def _row(row: dict[str, Any], fields: tuple[str, ...], group: str, sample_id: str) -> dict[str, Any]:
    told = {field: row[field] for field in fields}
    unknown = dict.fromkeys(("grade_probs", "evidence", "steps", "rules", "difficulty"))
    return {
        "sample_id": sample_id,
        "group": row[group],
        "fields": list(told.values()),
        "prompt": [{"role": "user", "content": sample_text(told)}],
        "completion": [{"role": "assistant", "content": row["gold"]}],
        "grade": row["gold"],
        **unknown,
        "trace_verified": False,
        "bucket": "mid",
        "anchor": False,
        "origin": "import",
        "source": "set",
        "weight": 1.0,
    }
