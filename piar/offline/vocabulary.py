"""The predicates that an inducer may think of: templates over the fields, and terms that recur in the evidence.

A term must occur in several groups, so that a rule cannot name one query; whole texts are never proposed.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from piar.offline.grammar import sentence
from piar.offline.predicates import Agrees, All, Contains, Length, Matches, Names, Not, Part, Predicate, View, Words
from piar.offline.words import KINDS, read_text

Bools = npt.NDArray[np.bool_]

MARKERS = ("for", "with", "without", "from", "by", "in", "to", "on", "and", "no", "not", "compatible")
MAX_TERMS = 400  # per field, those of most groups


@dataclass(frozen=True)
class Vocabulary:
    """Predicates and where each holds.

    Attributes:
        predicates: what may be said.
        holds: (predicates, samples).
    """

    predicates: tuple[Predicate, ...]
    holds: Bools


def make_vocabulary(views: Sequence[View], groups: npt.NDArray[np.int64], min_groups: int) -> Vocabulary:
    """All predicates worth trying on these samples.

    Args:
        views: the samples' words.
        groups: (samples,) codes of their groups.
        min_groups: fewest groups in which a predicate must hold, and fewest in which it must not.
    """
    fields = tuple(views[0])
    predicates: list[Predicate] = []
    rows: list[Bools] = []
    for predicate in _templates(fields, _markers(views, fields)):
        row = np.fromiter((predicate.holds(view) for view in views), np.bool_, len(views))
        _keep(predicate, row, predicates, rows, groups, min_groups)
    for predicate, row in _terms(views, fields, groups, min_groups):
        _keep(predicate, row, predicates, rows, groups, min_groups)
    holds = np.vstack(rows) if rows else np.zeros((0, len(views)), np.bool_)
    return Vocabulary(tuple(predicates), holds)


def _keep(
    predicate: Predicate,
    row: Bools,
    predicates: list[Predicate],
    rows: list[Bools],
    groups: npt.NDArray[np.int64],
    min_groups: int,
) -> None:
    if len(np.unique(groups[row])) >= min_groups and not row.all():
        predicates.append(predicate)
        rows.append(row)


def _markers(views: Sequence[View], fields: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Function words that divide a field, where they occur."""
    return {f: tuple(m for m in MARKERS if any(m in view[f].bag for view in views)) for f in fields}


def _templates(fields: Sequence[str], markers: dict[str, tuple[str, ...]]) -> Iterator[Predicate]:
    for name in fields:
        yield from _about_one(Part(name))
    for i, j in permutations(range(len(fields)), 2):
        a, b = fields[i], fields[j]
        yield from _about_two(Part(a), Part(b), forward=i < j)
        if i < j:
            yield from _about_parts(a, b, markers)


def _about_one(part: Part) -> Iterator[Predicate]:
    for n in (1, 2, 3, 5, 8, 12):
        yield Length(part, "words", "<=", n)
        yield Length(part, "words", ">", n)
    for kind in KINDS:
        yield Names(part, kind)


def _about_two(a: Part, b: Part, *, forward: bool) -> Iterator[Predicate]:
    yield from _coverage(a, b)
    for percent in (50, 60, 75):
        yield Words(a, b, "percent", ">=", percent)
    for pick_a, pick_b in (("last", ""), ("first", ""), ("last", "last"), ("first", "first")):
        yield Words(Part(a.field, pick_a), Part(b.field, pick_b), "present", ">=", 1)  # type: ignore[arg-type]
        yield Not(Words(Part(a.field, pick_a), Part(b.field, pick_b), "present", ">=", 1))  # type: ignore[arg-type]
    yield Matches(a, b, "phrase")
    if not forward:
        return
    yield Matches(a, b, "start")
    yield Matches(a, b, "same")
    for kind in KINDS:
        for how in ("same", "missing", "differs"):
            yield Agrees(a, b, kind, how)


def _coverage(a: Part, b: Part) -> Iterator[Predicate]:
    yield Words(a, b, "missing", "=", 0)
    yield Words(a, b, "present", "=", 0)
    yield Words(a, b, "present", ">=", 1)
    yield Words(a, b, "missing", "=", 1)
    for n in (1, 2, 3):
        yield Words(a, b, "missing", ">=", n)


def _about_parts(a: str, b: str, markers: dict[str, tuple[str, ...]]) -> Iterator[Predicate]:
    whole_a, whole_b = Part(a), Part(b)
    for marker in markers[b]:
        after = Part(b, side="after", terms=(marker,))
        yield Words(Part(a, "last"), after, "present", ">=", 1)
        yield Words(whole_a, after, "present", ">=", 1)
        yield Words(whole_a, Part(b, side="before", terms=(marker,)), "present", "=", 0)
    for terms in (*((marker,) for marker in markers[a]), *([markers[a]] if len(markers[a]) > 1 else [])):
        before, after = Part(a, side="before", terms=terms), Part(a, side="after", terms=terms)
        yield Words(after, whole_b, "present", "=", 0)
        yield Words(after, whole_b, "present", ">=", 1)
        yield from _coverage(before, whole_b)
        last = Words(Part(a, "last", "before", terms), whole_b, "present", ">=", 1)
        yield last
        yield Not(last)


def _terms(
    views: Sequence[View], fields: Sequence[str], groups: npt.NDArray[np.int64], min_groups: int
) -> Iterator[tuple[Predicate, Bools]]:
    """`FIELD contains "term"` for terms of one or two words, and the same where no other field has it."""
    places = {name: _term_places(views, name) for name in fields}
    for name in fields:
        for term in _common(places[name], groups, min_groups):
            said = Contains(Part(name), (term,))
            row = np.zeros(len(views), np.bool_)
            row[places[name][term]] = True
            yield said, row
            for other in fields:
                if other != name and row[elsewhere := places[other].get(term, [])].any():
                    alone = row.copy()
                    alone[elsewhere] = False
                    yield All((said, Not(Contains(Part(other), (term,))))), alone


def _term_places(views: Sequence[View], name: str) -> dict[str, list[int]]:
    """Term of one or two words -> the samples whose field has it."""
    where: dict[str, list[int]] = defaultdict(list)
    for i, view in enumerate(views):
        text = view[name]
        for term in sorted(text.bag):
            where[term].append(i)
        for pair in sorted(set(zip(text.words, text.words[1:], strict=False))):
            where[" ".join(pair)].append(i)
    return where


def _common(where: dict[str, list[int]], groups: npt.NDArray[np.int64], min_groups: int) -> list[str]:
    """The terms of most groups."""
    counts = {term: len({int(groups[i]) for i in at}) for term, at in where.items() if len(at) >= min_groups}
    common = sorted((term for term, n in counts.items() if n >= min_groups), key=lambda t: (-counts[t], t))
    return common[:MAX_TERMS]


def conditions(
    samples: Sequence[Mapping[str, str]], group: npt.NDArray[np.int64], min_groups: int
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The conditions that the samples suggest, as sentences, and where each holds.

    Args:
        samples: (N) fields of each.
        group: (N,) number of each sample's group.
        min_groups: groups in which a condition must hold.

    Returns:
        Pairs of a sentence and an (N,) mask.
    """
    views = [{name: read_text(text) for name, text in fields.items()} for fields in samples]
    vocabulary = make_vocabulary(views, group, min_groups)
    return ((sentence(p), row) for p, row in zip(vocabulary.predicates, vocabulary.holds, strict=True))
