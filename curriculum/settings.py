"""The `[curriculum]` section of `piar.toml`."""

from typing import Literal

from pydantic import Field, model_validator

from store.leaks import NEAR
from store.manifest import DEFAULT_STAGES, Schedule, Stage
from store.settings import Settings


class Weights(Settings):
    """Loss weight of a row by where its grade comes from; a teacher's is multiplied by its confidence."""

    gold: float = Field(default=1.0, ge=0)
    majority: float = Field(default=1.0, ge=0)
    teacher: float = Field(default=1.0, ge=0)
    synthetic: float = Field(default=1.0, ge=0)


class CurriculumSettings(Settings):
    """How the store becomes shards.

    Attributes:
        schedule: how draws move over the buckets, see `store.manifest.mixture_at`.
        teacher: the judge whose probabilities and traces are exported; empty: the teacher with most verdicts
            under the exported instruction.
        teacher_confidence: where there is no truth, a teacher's grade counts from this mean probability on.
        suspects: `checked` keeps a suspect only when a review confirmed its grade.
        leak_similarity: share of common words from which a training row that differs from a closed sample by
            no more than one word is left out.
        eval_splits: closed splits written for measuring; `test` only when a report is due.
        rows_per_slice: samples sorted and written at a time; bounds memory and the size of a shard.
        memory: DuckDB's memory limit.
    """

    schedule: Literal["stages", "gaussian", "natural", "shuffled"] = "stages"
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    floor: float | None = None
    natural_tail: float = Field(default=0.1, ge=0, le=1)
    teacher: str = ""
    teacher_confidence: float = Field(default=0.85, ge=0, le=1)
    suspects: Literal["checked", "all", "none"] = "checked"
    leak_similarity: float = Field(default=NEAR, gt=0, le=1)
    weights: Weights = Weights()
    eval_splits: tuple[Literal["dev", "holdout", "test"], ...] = ("dev",)
    formats: tuple[Literal["parquet", "jsonl"], ...] = ("parquet",)
    rows_per_slice: int = Field(default=400_000, ge=1)
    memory: str = "1500MB"
    seed: int = 0

    @model_validator(mode="after")
    def _schedule_can_be_followed(self) -> "CurriculumSettings":
        self.to_schedule()
        return self

    def to_schedule(self) -> Schedule:
        """The schedule as it goes into the manifest."""
        return Schedule(
            kind=self.schedule,
            stages=self.stages,
            floor=self.floor,
            natural_tail=self.natural_tail,
        )
