"""Groups into splits: whole groups, alike in grades, the same for the same seed, and never moved again.

A group's rows rise and fall together, so a group is the unit of every split. New groups are dealt when
they arrive; groups that already have a split keep it, so a growing data set never leaks.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from store.ids import seed_of
from store.settings import Settings
from store.types import Split

BLOCK = 20  # groups dealt together; shares that are multiples of 1/20 come out exactly
_STRATA = 5

Share = Annotated[float, Field(ge=0, le=1)]


class SplitSettings(Settings):
    """Shares of the groups that get a split: `[split]` of `piar.toml`."""

    train: Share = 0.4
    dev: Share = 0.1
    holdout: Share = 0.3
    test: Share = 0.2

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitSettings":
        total = self.train + self.dev + self.holdout + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares sum to {total:g} where 1 is due")
        return self

    @property
    def shares(self) -> dict[Split, float]:
        """Split -> share, open splits first."""
        return {"train": self.train, "dev": self.dev, "holdout": self.holdout, "test": self.test}


def assign(groups: pl.DataFrame, settings: SplitSettings, seed: int) -> pl.DataFrame:
    """Deal groups to splits.

    Groups are sorted into strata by their mean grade and, inside each, by size; then every `BLOCK`
    neighbours are dealt over the unit interval in random order (systematic sampling), so that each split
    gets its share of large and small, easy and hard groups.

    Args:
        groups: `group` (text, unique) and `value` (mean grade value of its labelled rows), and `rows` (how many).
        settings: the shares.
        seed: of the project; the same seed and groups give the same splits in any row order.

    Returns:
        `group`, `split`.
    """
    if groups.is_empty():
        return pl.DataFrame({"group": [], "split": []}, schema={"group": pl.String, "split": pl.String})
    order = groups.sort("value", "group").with_row_index("at")
    stratum = pl.col("at") * _STRATA // len(order)
    order = order.with_columns(stratum=stratum).sort("stratum", "rows", "group")
    points = np.concatenate(list(_points(len(order), np.random.default_rng(seed_of(seed, "splits")))))
    names = list(settings.shares)
    edges = np.cumsum(list(settings.shares.values()))[:-1]
    dealt = np.array(names)[np.searchsorted(edges, points, side="right")]
    return order.select("group").with_columns(split=pl.Series(dealt, dtype=pl.String)).sort("group")


def _points(n: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.float64]]:
    """`n` numbers in [0, 1): in each block one from every interval of equal length, in random order."""
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        yield (rng.permutation(size) + rng.random()) / size
