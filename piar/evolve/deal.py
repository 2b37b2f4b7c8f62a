"""Who is in which split: the labelled samples, with some of train's groups kept back from every reviser."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from piar.evolve.settings import EvolveSettings
from piar.evolve.truth import VIEWS, Truth
from store.db import Store
from store.errors import PiarError
from store.ids import seed_of
from store.types import Sample, Split

Splits = Mapping[Split, list[Sample]]
DEALT = 20  # so many groups put two or more into each split, when we deal them
_IN_SPLITS = "split in ('train', 'dev', 'holdout', 'test')"


def deal(store: Store, truths: Mapping[str, Truth], settings: EvolveSettings) -> Splits:
    """The labelled samples of each split; groups of train that are kept back stand in dev.

    Raises:
        PiarError: too few labelled groups.
    """
    splits: dict[Split, list[Sample]] = {"train": [], "dev": [], "holdout": [], "test": []}
    for sample in store.samples(where=_IN_SPLITS):
        if sample.id in truths:
            splits[sample.split].append(sample)
    _require_groups(splits)
    moved = _kept_back((s.group for s in splits["train"]), settings)
    splits["dev"] += [s for s in splits["train"] if s.group in moved]
    splits["train"] = [s for s in splits["train"] if s.group not in moved]
    return splits


@dataclass(frozen=True, slots=True)
class Rows:
    """How many samples `deal` puts into each split.

    Attributes:
        largest: rows of train's largest group.
    """

    train: int
    dev: int
    holdout: int
    test: int
    largest: int

    @classmethod
    def of(cls, splits: Splits) -> "Rows":
        """Those of a deal."""
        largest = max(Counter(s.group for s in splits["train"]).values(), default=0)
        return cls(len(splits["train"]), len(splits["dev"]), len(splits["holdout"]), len(splits["test"]), largest)

    @classmethod
    def forecast(cls, store: Store, settings: EvolveSettings) -> "Rows":
        """Those that a deal would have, without reading any sample."""
        counted = store.frame(
            f"select split, group_key, count(*) as n from samples join {VIEWS[settings.truth]} using (sample_id) "
            f"where {_IN_SPLITS} group by all"
        ).rows()
        train = {group: n for split, group, n in counted if split == "train"}
        moved = _kept_back(train, settings)
        rows = Counter[str]()
        for split, group, n in counted:
            rows["dev" if split == "train" and group in moved else split] += n
        largest = max((n for group, n in train.items() if group not in moved), default=0)
        return cls(rows["train"], rows["dev"], rows["holdout"], rows["test"], largest)


def _kept_back(groups: Iterable[str], settings: EvolveSettings) -> set[str]:
    """Groups of train that move to dev, the same ones for the same seed."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed_of(settings.seed, "kept back")).permutation(len(names))
    return {names[i] for i in order[: int(settings.kept_back * len(names))]}


def _require_groups(splits: Splits) -> None:
    """Refuse a project in which nothing could be learned or shown, and say whether it lacks labels or a split."""
    groups = {name: len({s.group for s in found}) for name, found in splits.items()}
    thin = [name for name, n in groups.items() if name != "test" and n < 2]
    if not thin:
        return
    counts = ", ".join(f"{name} {n:,}" for name, n in groups.items())
    if sum(groups.values()) < DEALT:
        raise PiarError(
            f"The {thin[0]} split has fewer than two labelled groups ({counts}): nothing can be learned or shown.",
            "Label more groups (`piar review push`, or import a file with more), then evolve.",
        )
    raise PiarError(
        f"There are labelled groups enough, but the splits that the imported file names leave too few of them in "
        f"{' and '.join(thin)} ({counts}): nothing can be learned or shown.",
        "Import the file without its split column into a new project (`piar init DIR --from FILE`), which deals the "
        "groups; or name some of its train groups dev and holdout there.",
    )
