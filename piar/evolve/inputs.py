"""What a run is given: who is in which split, some of train's groups kept back from every reviser, and the slices.

The owner's slices are guarded at promotion. Those that suggest themselves from the fields only tell a reviser, and
whoever reads the log, where the errors are: guarding them too would cost power.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from piar.evolve.purse import CROSS_FOLDS, Rows
from piar.evolve.reviser import Reviser
from piar.evolve.settings import EvolveSettings, SearchName
from piar.evolve.truth import VIEWS, Truth
from store.db import Store, quote
from store.errors import PiarError
from store.ids import seed_of
from store.stats import FEWEST
from store.types import Instruction, Sample, Split

Splits = Mapping[Split, list[Sample]]
Condition = tuple[str, tuple[str, ...]]  # SQL over the columns of `samples`, and its parameters
DEALT = 20  # so many groups put two or more into each split, when we deal them
MOST_VALUES = 12  # a field with as many different texts, or fewer, is a category
_IN_SPLITS = "split in ('train', 'dev', 'holdout', 'test')"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which labelled rows a search keeps apart, and what it calls those that decide.

    Attributes:
        parts: it learns from the first, compares candidates on the last but one and decides on the last; or does all
            of that on the only one.
        least: labelled groups that each part needs.
        name: of the rows that decide, at the beginning of a sentence.
        where: a gain was found, in a sentence.
        folds: of cross-fitting, at most; 0 for none.
    """

    parts: tuple[tuple[Split, ...], ...]
    least: int
    name: str
    where: str
    folds: int = 0


LAYOUTS: dict[SearchName, Layout] = {
    "rounds": Layout((("train",), ("dev",), ("holdout",)), 2, "The holdout", "on the holdout"),
    "cross_fitted": Layout(
        (("train", "dev", "holdout"),), FEWEST, "Cross-fitting over train, dev and holdout", "out of fold", CROSS_FOLDS
    ),
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is given.

    Attributes:
        reviser: who is asked for edits in each round.
        drafter: the offline inducer beside a reviser that reads, for one draft in the first round.
        incumbent: the instruction to beat.
        slices: the owner's, guarded at promotion: name -> sample ids.
        noticed: slices that suggest themselves, for inspection only.
        comments: sample id -> what people wrote in review.
    """

    store: Store
    settings: EvolveSettings
    reviser: Reviser
    drafter: Reviser | None
    incumbent: Instruction
    truths: Mapping[str, Truth]
    splits: Splits
    slices: Mapping[str, frozenset[str]]
    noticed: Mapping[str, frozenset[str]]
    comments: Mapping[str, str]

    @property
    def dev(self) -> list[Sample]:
        """Samples that drive the search."""
        return self.splits["dev"]

    @property
    def deciding(self) -> list[Sample]:
        """Samples on which promotion is decided."""
        return together(self.splits, self.layout.parts[-1])

    @property
    def layout(self) -> Layout:
        """Which rows the search keeps apart."""
        return LAYOUTS[self.settings.search]

    def seed(self, *what: object) -> int:
        """The seed of one random choice."""
        return seed_of(self.settings.seed, *what)


# -- splits ---------------------------------------------------------------------------------------


def deal(store: Store, truths: Mapping[str, Truth], settings: EvolveSettings) -> Splits:
    """The labelled samples of each split; groups of train that are kept back stand in dev.

    Raises:
        PiarError: too few labelled groups.
    """
    splits: dict[Split, list[Sample]] = {"train": [], "dev": [], "holdout": [], "test": []}
    for sample in store.samples(where=_IN_SPLITS):
        if sample.id in truths:
            splits[sample.split].append(sample)
    _require_groups(splits, settings.search)
    moved = _kept_back((s.group for s in splits["train"]), settings)
    splits["dev"] += [s for s in splits["train"] if s.group in moved]
    splits["train"] = [s for s in splits["train"] if s.group not in moved]
    return splits


def together(splits: Splits, names: Iterable[Split]) -> list[Sample]:
    """The samples of several splits."""
    return [sample for name in names for sample in splits[name]]


def compared_on(splits: Splits, search: SearchName) -> dict[str, list[Sample]]:
    """The parts on which instructions are compared, by name."""
    return {", ".join(names): together(splits, names) for names in LAYOUTS[search].parts[-2:]}


def rows_of(splits: Splits) -> Rows:
    """How many samples a deal has put into each split."""
    largest = max(Counter(s.group for s in splits["train"]).values(), default=0)
    return Rows(len(splits["train"]), len(splits["dev"]), len(splits["holdout"]), len(splits["test"]), largest)


def forecast_rows(store: Store, settings: EvolveSettings) -> Rows:
    """How many a deal would put there, without reading any sample."""
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
    return Rows(rows["train"], rows["dev"], rows["holdout"], rows["test"], largest)


def _kept_back(groups: Iterable[str], settings: EvolveSettings) -> set[str]:
    """Groups of train that move to dev, the same ones for the same seed."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed_of(settings.seed, "kept back")).permutation(len(names))
    return {names[i] for i in order[: int(settings.kept_back * len(names))]}


def _require_groups(splits: Splits, search: SearchName) -> None:
    """Refuse a project in which nothing could be learned or shown, and say whether it lacks labels or a split."""
    groups = {name: len({s.group for s in found}) for name, found in splits.items()}
    least = LAYOUTS[search].least
    thin = [", ".join(names) for names in LAYOUTS[search].parts if sum(groups[name] for name in names) < least]
    if not thin:
        return
    counts = ", ".join(f"{name} {n:,}" for name, n in groups.items())
    if (known := sum(groups.values())) < DEALT:
        fewer = "two" if least == 2 else str(least)
        raise PiarError(
            f"There are fewer than {fewer} labelled groups in {thin[0]} ({counts}): nothing can be learned or shown.",
            f"Label about {DEALT - known} groups more (`piar review here` at your terminal, `piar review push` for "
            "several people, or import a file that has them), then evolve.",
        )
    raise PiarError(
        f"There are labelled groups enough, but the splits that the imported file names leave too few of them in "
        f"{' and '.join(thin)} ({counts}): nothing can be learned or shown.",
        "Import the file without its split column into a new project (`piar init DIR --from FILE`), which deals the "
        "groups; or name some of its train groups dev and holdout there.",
    )


# -- slices ---------------------------------------------------------------------------------------


def members(store: Store, conditions: Mapping[str, Condition]) -> dict[str, frozenset[str]]:
    """Slice name -> sample ids."""
    found = {}
    with store.read() as con:
        for name, (sql, values) in conditions.items():
            rows = con.execute(f"select sample_id::varchar from samples where ({sql}\n)", list(values)).fetchall()
            found[name] = frozenset(row[0] for row in rows)
    return found


def owners(store: Store) -> dict[str, Condition]:
    """The slices of `task.toml`: the owner's own SQL."""
    return {name: (sql, ()) for name, sql in store.task.slices.items()}


def automatic(store: Store) -> dict[str, Condition]:
    """Slices that the fields suggest: categories, the shortest and longest third, texts with a number, empty ones."""
    return dict(found for field in store.task.fields for found in _of_field(store, field))


def by_grade(truths: Mapping[str, Truth]) -> dict[str, frozenset[str]]:
    """One slice for each true grade."""
    grades = sorted({truth.grade for truth in truths.values()})
    return {f"grade {g}": frozenset(i for i, truth in truths.items() if truth.grade == g) for g in grades}


def _of_field(store: Store, field: str) -> Iterator[tuple[str, Condition]]:
    column = quote(field)
    values = [v for (v,) in store.frame(f"select distinct {column} from samples limit {MOST_VALUES + 1}").rows()]
    if 2 <= len(values) <= MOST_VALUES:
        yield from ((f"{field} is {v!r}"[:60], (f"{column} = ?", (v,))) for v in sorted(values))
        return
    short, long, numbers, empty = store.frame(
        f"select quantile_disc(length({column}), 1 / 3), quantile_disc(length({column}), 2 / 3), "
        f"avg(regexp_matches({column}, '[0-9]')::int), avg(({column} = '')::int) from samples"
    ).row(0)
    if short is not None and short < long:
        yield f"{field} of at most {short} characters", (f"length({column}) <= {int(short)}", ())
        yield f"{field} of more than {long} characters", (f"length({column}) > {int(long)}", ())
    if numbers is not None and 0.02 < numbers < 0.98:
        yield f"{field} with a number", (f"regexp_matches({column}, '[0-9]')", ())
    if empty is not None and 0.02 < empty < 0.98:
        yield f"{field} empty", (f"{column} = ''", ())
