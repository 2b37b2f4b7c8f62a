"""The `[mining]` section of `piar.toml`."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from store.settings import Settings

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


class Thresholds(Settings):
    """Lower bounds of p = π(y*|x): easy above the first, mid above the second, hard above the third, else suspect."""

    easy: float = 0.9
    mid: float = 0.5
    hard: float = 0.1

    @model_validator(mode="after")
    def _descending(self) -> "Thresholds":
        if not 1 > self.easy > self.mid > self.hard > 0:
            raise ValueError("thresholds must fall: 1 > easy > mid > hard > 0")
        return self


class MiningSettings(Settings):
    """How samples are measured, sorted and queued.

    Attributes:
        teacher, student: judges to read; empty: the teacher with most verdicts, the latest student.
        difficulty: the judge whose probabilities say how difficult a sample is; empty: the teacher. Name a student only
            when it was not trained on these samples: its own training rows look easy to it, wrong ones too.
        signals: your own, name -> SQL expression over the columns of `samples` and of the judged row.
        stand_in: where votes are missing a cheap student, taught out of fold, says how hard a sample is.
        vectors: what neighbours are told by: hashed `words`, or the `encoder` of `[baselines]`.
        texts: also compare texts: near-duplicates and neighbours that disagree. The costly part on millions of rows.
        near: Jaccard similarity from which two texts are near-duplicates.
        neighbours: how many neighbours are asked.
        top: length of the queue.
        quotas: reason -> share of the queue; what a reason cannot fill goes to the others.
        memory: DuckDB's memory limit.
    """

    teacher: str = ""
    student: str = ""
    difficulty: str = ""
    thresholds: Thresholds = Thresholds()
    signals: dict[str, str] = Field(default_factory=dict)
    stand_in: bool = True
    vectors: Literal["words", "encoder"] = "words"
    texts: bool = True
    near: float = Field(default=0.8, gt=0.3, le=1)
    neighbours: int = Field(default=10, ge=1)
    top: int = Field(default=500, ge=1)
    quotas: dict[str, float] = Field(default_factory=dict)
    memory: str = "3GB"
    seed: int = 0

    @field_validator("signals")
    @classmethod
    def _signal_names(cls, signals: dict[str, str]) -> dict[str, str]:
        for name in signals:
            if not _NAME.fullmatch(name):
                raise ValueError(f"signal {name!r} must be lower case letters, digits and underscores (at most 41)")
        return signals
