"""Groups into splits: whole groups, alike in grades, the same for the same seed, and never moved again.

A group's rows rise and fall together, so a group is the unit of every split. New groups are dealt when
they arrive; groups that have a split keep it, so a growing data set never leaks. Groups that are the same
but for spelling ("USB cables", "cable usb") would leak too: they are dealt as one.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from store.ids import seed_of
from store.settings import Settings
from store.types import Split

BLOCK = 10  # neighbours dealt together; shares that are multiples of 1/10 come out exactly
_STRATA = 5
_DEALS = 64  # how many deals are tried; fewer for very many groups, whose deals are all alike

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

    Groups that share a normal form are one unit. Units are sorted into strata by their mean grade and, inside
    each, by size; then every `BLOCK` neighbours are dealt over the unit interval in random order (systematic
    sampling), so that each split gets its share of large and small, high and low. Of several such deals the one
    is taken whose splits are nearest to their shares of rows and of grades (rerandomization: Morgan & Rubin 2012).

    Args:
        groups: `group` (text, unique), `value` (mean position of the grades of its rows) and `rows` (how many).
        settings: the shares.
        seed: of the project; the same seed and groups give the same splits in any row order.

    Returns:
        `group`, `split`, sorted by group.
    """
    if groups.is_empty():
        return pl.DataFrame(schema={"group": pl.String, "split": pl.String})
    unit = normal_form(groups["group"]).alias("unit")
    units = (
        groups.with_columns(unit)
        .group_by("unit")
        .agg(((pl.col("value") * pl.col("rows")).sum() / pl.col("rows").sum()).round(9), pl.col("rows").sum())
    )
    order = units.sort("value", "unit").with_row_index("at")
    order = order.with_columns(stratum=pl.col("at") * _STRATA // len(order)).sort("stratum", "rows", "unit")
    dealt = _best_deal(order["rows"].to_numpy(), order["value"].to_numpy(), list(settings.shares.values()), seed)
    names = pl.Series(np.array(list(settings.shares))[dealt], dtype=pl.String)
    dealt_units = order.select("unit").with_columns(split=names)
    return groups.select("group", unit).join(dealt_units, on="unit").select("group", "split").sort("group")


def _best_deal(
    rows: npt.NDArray[np.int64], value: npt.NDArray[np.float64], shares: list[float], seed: int
) -> npt.NDArray[np.int64]:
    """Index of the split of each unit, in the order of the units."""
    rng = np.random.default_rng(seed_of(seed, "splits"))
    edges = np.cumsum(shares)[:-1]
    deals = (
        np.searchsorted(edges, _points(len(rows), rng), side="right")
        for _ in range(max(1, min(_DEALS, 200_000 // len(rows))))
    )
    totals = np.array([rows.sum(), (rows * value).sum()], dtype=np.float64)

    def imbalance(dealt: npt.NDArray[np.int64]) -> float:
        sums = np.stack([np.bincount(dealt, w, len(shares)) for w in (rows, rows * value)], axis=1)
        return float(np.abs(sums / np.maximum(totals, 1e-9) - np.array(shares)[:, None]).sum())

    return min(deals, key=imbalance)


def _points(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """`n` numbers in [0, 1): in each block one from every interval of equal length, in random order."""
    sizes = [min(BLOCK, n - start) for start in range(0, n, BLOCK)]
    return np.concatenate([(rng.permutation(size) + rng.random()) / size for size in sizes])


def normal_form(texts: pl.Series) -> pl.Series:
    """Texts with their differences of spelling removed: case, accents, punctuation, plural s, order, repeats.

    A text that has no letters or digits is its own normal form.
    """
    words = (
        texts.str.normalize("NFKD")
        .str.to_lowercase()
        .str.replace_all(r"\p{M}", "")
        .str.replace_all(r"[^\p{L}\p{N}]+", " ")
    )
    words = words.str.replace_all(r"(\p{L}{2}[^s\s])s\b", "$1").str.strip_chars().str.split(" ")
    form = words.list.unique().list.sort().list.join(" ")
    return pl.select(pl.when(form == "").then(texts).otherwise(form)).to_series().alias(texts.name)


def near_duplicates(groups: pl.DataFrame) -> pl.DataFrame:
    """Pairs of groups in different splits whose texts have the same normal form: what one split tells the other.

    Args:
        groups: `group`, `split`, `text`; one row for each text of a group. A group's own name is a text when it
            is part of what is judged.

    Returns:
        `group`, `split`, `other`, `other_split`, `shared` (how many normal forms they share), most shared first.
    """
    rows = groups.select("group", "split", normal_form(groups["text"]).alias("form")).unique()
    shared = rows.filter(pl.col("split").n_unique().over("form") > 1)
    pairs = shared.join(shared, on="form", suffix="_other").filter(
        (pl.col("split") != pl.col("split_other")) & (pl.col("group") < pl.col("group_other"))
    )
    return (
        pairs.group_by(
            "group", "split", pl.col("group_other").alias("other"), pl.col("split_other").alias("other_split")
        )
        .agg(shared=pl.len())
        .sort("shared", "group", "other", descending=[True, False, False])
    )
