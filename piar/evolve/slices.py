"""Slices of the samples: the task owner's, those that suggest themselves from the fields, and what errors share.

The owner's slices are guarded at promotion. Those found here only tell a reviser, and whoever reads the log, where the
errors are: guarding them too would cost power. Over-representation is judged by group, as everything else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from piar.evolve.truth import Truth
from store.db import Store, quote
from store.stats import group_codes, group_sums
from store.types import Sample

MOST_VALUES = 12  # a field with as many different texts, or fewer, is a category
MIN_GROUPS = 3
MIN_ROWS = 4
SLICE_TELLS = 1.64  # standard errors, by group, by which errors must be more frequent than elsewhere
PREDICATE_TELLS = 3.0  # ... of a predicate, of which hundreds are tried
_LEARNED_FROM = 1_500  # rows on which predicates are tried

Condition = tuple[str, tuple[str, ...]]  # SQL over the columns of `samples`, and its parameters


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


@dataclass(frozen=True, slots=True)
class Telling:
    """Where errors are more frequent than elsewhere.

    Attributes:
        what: the slice or the predicate, in words.
        strength: standard errors, by group.
    """

    what: str
    rows: int
    errors: int
    strength: float

    def sentence(self) -> str:
        """In words."""
        return f"{self.what}: {self.errors} of {self.rows} wrong"


def telling_slices(
    samples: Sequence[Sample], wrong: Sequence[bool], slices: Mapping[str, frozenset[str]], limit: int = 6
) -> list[Telling]:
    """The slices in which errors are over-represented, strongest first."""
    masks = ((name, np.array([s.id in ids for s in samples])) for name, ids in slices.items())
    return _strongest(masks, samples, wrong, SLICE_TELLS, limit)


def telling_predicates(samples: Sequence[Sample], wrong: Sequence[bool], limit: int = 6) -> list[Telling]:
    """The predicates, as the offline inducer thinks of them, that errors share more often than the rest."""
    from piar.offline import conditions

    chosen = np.sort(np.random.default_rng(0).permutation(len(samples))[:_LEARNED_FROM])
    shown, errors = [samples[i] for i in chosen], [wrong[i] for i in chosen]
    if not any(errors):
        return []
    masks = conditions([s.fields for s in shown], group_codes([s.group for s in shown])[0], MIN_GROUPS)
    return _strongest(masks, shown, errors, PREDICATE_TELLS, limit)


def _strongest(
    masks: Iterable[tuple[str, npt.NDArray[np.bool_]]],
    samples: Sequence[Sample],
    wrong: Sequence[bool],
    least: float,
    limit: int,
) -> list[Telling]:
    errors = np.asarray(wrong, dtype=float)
    codes, count = group_codes([s.group for s in samples])
    found: dict[bytes, Telling] = {}
    for what, mask in masks:
        if mask.sum() < MIN_ROWS or mask.all():
            continue
        excess = group_sums((errors - errors.mean()) * mask, codes, count)[:, 0]
        spread = float(np.sqrt((excess**2).sum()))
        strength = float(excess.sum()) / spread if spread > 0 else 0.0
        if strength >= least and len(np.unique(codes[mask])) >= MIN_GROUPS:
            told = Telling(what, int(mask.sum()), int(errors[mask].sum()), strength)
            found.setdefault(np.packbits(mask).tobytes(), told)  # of equal ones the first
    return sorted(found.values(), key=lambda t: -t.strength)[:limit]
