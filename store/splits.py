"""Groups into splits: whole groups, alike in grades, the same for the same seed, and dealt once.

A group's rows rise and fall together, so a group is the unit of every split. New groups are dealt when they arrive;
groups that have a split keep it, so a growing data set never leaks (worn holdout groups may leave for train:
`piar.evolve.ledger`). Groups that are the same but for spelling ("USB cables", "cable usb") would leak too: they are
dealt as one.
"""

import re
import unicodedata
from typing import Annotated

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from store.ids import seed_of
from store.settings import Settings
from store.types import Split

BLOCK = 10  # neighbours dealt together; shares that are multiples of 1/10 come out exactly
_FEWEST_GIVEN = 20  # groups of train, from which on it gives to splits that a file leaves empty
_STRATA = 5
_DEALS = 64  # how many deals are tried; fewer for very many groups, whose deals are all alike
_WORD = re.compile(r"[^\W_]+")
_PLURAL = re.compile(r"[^\W\d_]{2,}[^\W\d_s]s")
_NUMBER = re.compile(r"-?0*(\d+)(?:\.0+)?")  # an id as one tool or the other writes it: 7, 007, 7.0

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
        groups: `group` (text, unique), `form` (its normal form), `value` (mean position of the grades of its rows)
            and `rows` (how many).
        settings: the shares.
        seed: of the project; the same seed and groups give the same splits in any row order.

    Returns:
        `group`, `split`, sorted by group.
    """
    if groups.is_empty():
        return pl.DataFrame(schema={"group": pl.String, "split": pl.String})
    units = groups.group_by("form").agg(
        ((pl.col("value") * pl.col("rows")).sum() / pl.col("rows").sum()).round(9), pl.col("rows").sum()
    )
    order = units.sort("value", "form").with_row_index("at")
    order = order.with_columns(stratum=pl.col("at") * _STRATA // len(order)).sort("stratum", "rows", "form")
    dealt = _best_deal(order["rows"].to_numpy(), order["value"].to_numpy(), list(settings.shares.values()), seed)
    names = pl.Series(np.array(list(settings.shares))[dealt], dtype=pl.String)
    dealt_units = order.select("form").with_columns(split=names)
    return groups.select("group", "form").join(dealt_units, on="form").select("group", "split").sort("group")


def fill(rows: pl.DataFrame, settings: SplitSettings, seed: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Groups of train for the splits that a file leaves empty although it names some, as published data sets do.

    What the file says stays, but for train, which gives by the shares of the settings; the file's test stays closed.

    Args:
        rows: `group`, `split` (null: not said) and `value` (null: no grade).

    Returns:
        the rows with the new splits, and how many groups of train went to each.
    """
    graded = rows.filter(pl.col("value").is_not_null() & pl.col("split").is_not_null())
    named = set(graded["split"])
    others = graded.filter(pl.col("split") != "train").select("group").unique()
    groups = graded.join(others, on="group", how="anti").group_by("group").agg(pl.col("value").mean(), rows=pl.len())
    empty = [name for name, share in settings.shares.items() if share and name not in named]
    if "train" not in named or len(named) < 2 or not empty or len(groups) < _FEWEST_GIVEN:
        return rows, {}
    total = settings.train + sum(settings.shares[name] for name in empty)
    given = {name: share / total if name in ("train", *empty) else 0.0 for name, share in settings.shares.items()}
    dealt = assign(with_forms(groups), SplitSettings.model_validate(given), seed)
    places = pl.col("group").replace_strict(
        dealt["group"], dealt["split"], default=pl.col("split"), return_dtype=pl.String
    )
    moved = dealt.filter(pl.col("split") != "train")["split"].value_counts()
    return rows.with_columns(split=places), dict(moved.iter_rows())


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
    at = np.arange(n)
    block, place = at // BLOCK, at % BLOCK
    size = np.minimum(BLOCK, n - block * BLOCK)
    shuffled = np.argsort(block + rng.random(n))  # the blocks stay where they are, each shuffled inside
    points: npt.NDArray[np.float64] = (place[shuffled] + rng.random(block[-1] + 1)[block]) / size
    return points


def normal_form(text: str) -> str:
    """A text with its differences of spelling removed: case, accents, punctuation, plural s, order, repeats.

    So are characters that nobody sees (zero-width spaces, soft hyphens, marks of direction), which copying leaves
    within words, and the zeros that spreadsheets drop from a number or add to it. A text that has no letters or
    digits is its own normal form.
    """
    plain = text.lower()
    if number := _NUMBER.fullmatch(plain):
        return number[1]
    if not plain.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not _unseen(c))
    words = {word[:-1] if _PLURAL.fullmatch(word) else word for word in _WORD.findall(plain)}
    return " ".join(sorted(words)) or text


def _unseen(character: str) -> bool:
    """Whether a character is an accent, or a format character, which shows nothing of its own."""
    return bool(unicodedata.combining(character)) or unicodedata.category(character) == "Cf"


def near_duplicates(groups: pl.DataFrame) -> pl.DataFrame:
    """Pairs of groups in different splits whose texts have the same normal form: what one split tells the other.

    Args:
        groups: `group`, `split`, `form`: one row for each normal form of a group's texts. A group's own name is such
            a text when it is part of what is judged.

    Returns:
        `group`, `split`, `other`, `other_split`, `shared` (how many normal forms they share), most shared first.
    """
    across = groups.group_by("form").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
    shared = groups.unique().join(across, on="form", how="semi")
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


def with_forms(groups: pl.DataFrame, by: str = "group") -> pl.DataFrame:
    """The frame with a column `form`: the normal form of the column `by`, a group or the text that it stands for."""
    forms = [normal_form(text) for text in groups[by].to_list()]
    return groups.with_columns(form=pl.Series(forms, dtype=pl.String))
