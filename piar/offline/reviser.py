"""The offline reviser: induces rules from the evidence that a reviser prompt shows, and from nothing else.

The current rules are applied to the evidence by the same reader that judges. Then edits are added one
by one, each the best found by a beam search over conjunctions of predicates, by the net number of samples
that it mends, bounded from below by how much that varies between groups: what helps in one query only is
not a rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from piar.instructions.revision_schema import (
    RevisionAnswer,
    RevisionCandidate,
    RevisionRequest,
    RuleOperation,
    RuleShown,
)
from piar.offline.evidence import COST, TERM_COST, Bools, Evidence, Floats, Ints, price, words_of
from piar.offline.grammar import sentence
from piar.offline.predicates import All, Contains, Names, Not, Predicate
from piar.offline.rule_reader import defined_kinds, follow, grade_names
from store.ids import seed_of
from store.types import Rule

BEAM = 24
DEPTH = 3  # conditions in one rule
MAX_TERMS = 8  # terms in one list
CAUTION = 1.0  # standard errors (between groups) by which a gain is discounted
SHOWN = 12  # positions given in `because`


def answer_revision(data: Mapping[str, Any]) -> str:
    """Answer a reviser's request.

    Args:
        data: the JSON object of the prompt, a `RevisionRequest`; one that is malformed gets no candidates.

    Returns:
        The JSON text of a `RevisionAnswer`, with an empty list where nothing is worth changing.
    """
    try:
        found = induce(RevisionRequest.model_validate(data))
    except ValidationError:
        found = []
    return RevisionAnswer(candidates=tuple(found)).model_dump_json(exclude_defaults=bool(found))


def induce(request: RevisionRequest) -> list[RevisionCandidate]:
    """Candidates, the most trusted first; then more cautious, shorter, bolder ones, and from parts of the groups."""
    symbols = {grade.symbol for grade in request.grades}
    items = [(i, item) for i, item in enumerate(request.evidence) if item.truth in symbols and item.fields]
    if not items:
        return []
    evidence = Evidence(request, items)
    found: list[RevisionCandidate] = []
    for plan in _plans(request):
        candidate = _Search(evidence, plan).run()
        if candidate and candidate.operations not in [c.operations for c in found]:
            found.append(candidate)
        if len(found) == request.candidates:
            break
    return found


@dataclass(frozen=True)
class _Plan:
    """One way to search: how cautiously, how far, and on which share of the groups."""

    caution: float
    operations: int
    share: float = 1.0
    seed: int = 0


def _plans(request: RevisionRequest) -> Iterator[_Plan]:
    most = request.budget.max_operations
    yield _Plan(CAUTION, most)
    yield _Plan(2 * CAUTION, most)
    yield _Plan(CAUTION, max(1, most // 3))
    yield _Plan(CAUTION / 2, most)
    for i in range(request.candidates):
        yield _Plan(CAUTION, most, 0.7, seed_of(request.seed, "bag", i))


@dataclass(frozen=True, eq=False)
class _Entry:
    """A rule of the list under revision; `rule` is None for a new one, `row` says where it holds."""

    grade: int
    predicate: Predicate | None
    row: Bools
    rule: RuleShown | None = None
    edited: bool = False
    because: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Step:
    """An edit of the list, with what it is worth."""

    worth: float
    entries: tuple[_Entry, ...]
    operation: RuleOperation | None = None  # of drop and reorder; additions and edits are told from the entries


class _Search:
    """Greedy revision of one rule list: the best edit, until none is worth its cost."""

    def __init__(self, evidence: Evidence, plan: _Plan) -> None:
        self.evidence = evidence
        self.plan = plan
        kept = np.random.default_rng(plan.seed).random(int(evidence.group.max()) + 1) < plan.share
        self.weight = evidence.weight * (kept[evidence.group] if plan.share < 1 else 1.0)
        self.entries = tuple(_read_rules(evidence))
        self.moves: list[RuleOperation] = []

    def run(self) -> RevisionCandidate | None:
        """Search, and say what was found as operations; None when nothing is worth changing."""
        while self._operations() < self.plan.operations:
            step = max(self._steps(), key=lambda step: step.worth, default=None)
            if step is None or step.worth <= 0:
                break
            self.entries = step.entries
            if step.operation:
                self.moves.append(step.operation)
        operations = self.moves + list(_told(self.entries, self.evidence.grades))
        return RevisionCandidate(note=_note(operations), operations=tuple(operations)) if operations else None

    def _operations(self) -> int:
        return len(self.moves) + sum(entry.rule is None or entry.edited for entry in self.entries)

    def _steps(self) -> Iterator[_Step]:
        first = _deciding(self.entries, len(self.evidence.views))
        right = self._right(self.entries)
        yield from self._additions(first, right)
        yield from self._longer_lists(first, right)
        yield from self._changed_grades(first, right)
        yield from self._moved(right)

    def _right(self, entries: Sequence[_Entry]) -> Bools:
        grades = np.array([entry.grade for entry in entries] + [0])
        first = _deciding(entries, len(self.evidence.views))
        verdict = np.where(first < len(entries), grades[first], self.evidence.guess)
        right: Bools = verdict == self.evidence.truth
        return right

    def _worth(self, gain: Floats, price: float) -> float:
        """Net samples mended, less its standard error between groups, less the price of saying it.

        Args:
            gain: (N,) weighted change of being right.
            price: samples that saying it must pay for.
        """
        by_group = np.bincount(self.evidence.group, weights=gain)
        return float(by_group.sum() - self.plan.caution * np.sqrt((by_group**2).sum()) - price)

    # -- additions: a beam over conjunctions ------------------------------------------------------

    def _additions(self, first: Ints, right: Bools) -> Iterator[_Step]:
        """The best new rule, at the best place."""
        if len(self.entries) >= self.evidence.request.budget.max_rules:
            return
        places = range(len(self.entries) + 1)
        gains = [
            ((self.evidence.truth == grade).astype(np.float64) - right) * self.weight * (first >= place)
            for place in places
            for grade in range(len(self.evidence.grades))
        ]
        targets = [(place, grade) for place in places for grade in range(len(self.evidence.grades))]
        ranked = sorted(self._beam(gains), key=lambda found: -found[0])
        best = next((f for f in ranked if self._fits(_all(f[1])) and self._borne_out(f[1], gains[f[3]])), None)
        if best is None:
            return
        _, conditions, row, which = best
        place, grade = targets[which]
        entry = self._with_more_terms(_Entry(grade, _all(conditions), row), gains[which])
        worth = self._worth(gains[which] * entry.row, COST + sum(map(price, conditions)))
        yield _Step(worth, (*self.entries[:place], self._because(entry, gains[which]), *self.entries[place:]))

    def _beam(self, gains: Sequence[Floats]) -> Iterator[tuple[float, tuple[Predicate, ...], Bools, int]]:
        """Conjunctions worth most: (worth, conditions, where it holds, which gain)."""
        evidence = self.evidence
        everywhere = np.ones(len(evidence.views), np.bool_)
        beam: list[tuple[float, tuple[Predicate, ...], Bools, int]] = [
            (0.0, (), everywhere, which) for which in range(len(gains))
        ]
        yield from ((self._worth(gain, COST), (), everywhere, which) for which, gain in enumerate(gains))
        for _ in range(DEPTH):
            beam = self._extended(beam, gains)
            if not beam:
                return
            yield from beam

    def _extended(
        self, beam: Sequence[tuple[float, tuple[Predicate, ...], Bools, int]], gains: Sequence[Floats]
    ) -> list[tuple[float, tuple[Predicate, ...], Bools, int]]:
        """The best conjunctions with one condition more, with or without a `not`."""
        evidence = self.evidence
        masked = np.stack([gains[which] * row for _, _, row, which in beam], axis=1)  # (N, beam)
        with_it = (evidence.said @ masked.astype(np.float32)).astype(np.float64)  # (A, beam)
        without = masked.sum(axis=0) - with_it
        can_deny = np.array([_deniable(p) for p in evidence.vocabulary.predicates], np.bool_)
        without[~can_deny] = -np.inf
        scores = np.concatenate([with_it, without])
        chosen = np.argsort(scores, axis=None, kind="stable")[::-1][: 6 * BEAM]
        found = []
        seen: set[tuple[int, bytes]] = set()
        for at in chosen:
            index, parent = divmod(int(at), len(beam))
            deny, index = divmod(index, len(evidence.said))
            _, conditions, row, which = beam[parent]
            holds = evidence.vocabulary.holds[index]
            row = row & (~holds if deny else holds)
            key = (which, np.packbits(row).tobytes())
            if key not in seen:
                seen.add(key)
                predicate = evidence.vocabulary.predicates[index]
                said = (*conditions, Not(predicate) if deny else predicate)
                found.append((self._worth(gains[which] * row, sum(map(price, said))), said, row, which))
        return sorted(found, key=lambda f: -f[0])[:BEAM]

    # -- lists of terms -----------------------------------------------------------------------------

    def _longer_lists(self, first: Ints, right: Bools) -> Iterator[_Step]:
        """More terms for a rule that has a list of them."""
        for at, entry in enumerate(self.entries):
            if entry.predicate is None or not _lists(entry.predicate):
                continue
            gain = ((self.evidence.truth == entry.grade).astype(np.float64) - right) * self.weight * (first > at)
            longer = self._with_more_terms(entry, gain)
            if longer is not entry:
                new = self._because(replace(longer, edited=longer.rule is not None), gain)
                worth = self._worth(gain * (longer.row & ~entry.row), TERM_COST)
                yield _Step(worth, (*self.entries[:at], new, *self.entries[at + 1 :]))

    def _with_more_terms(self, entry: _Entry, gain: Floats) -> _Entry:
        """The entry with further terms in its list, as long as each is worth it."""
        predicate = entry.predicate
        if predicate is None or not _lists(predicate):
            return entry
        known = _lists(predicate)[0]
        singles = [
            (float(gain @ row), p.terms[0])
            for p, row in zip(self.evidence.vocabulary.predicates, self.evidence.vocabulary.holds, strict=True)
            if isinstance(p, Contains) and p.a == known.a and len(p.terms) == 1 and p.terms[0] not in known.terms
        ]
        worth = self._worth(gain * entry.row, 0)
        for _, term in sorted(singles, reverse=True)[: 2 * MAX_TERMS]:
            longer = _add_term(entry.predicate or predicate, known, term)
            row = self.evidence.holds(longer)
            better = self._worth(gain * row, 0)
            recurs = self.evidence.recurs(gain * (row & ~entry.row), [term])
            if better > worth + TERM_COST and recurs and self._fits(longer):
                entry, worth = replace(entry, predicate=longer, row=row), better
                known = _lists(longer)[0]
            if len(known.terms) >= MAX_TERMS:
                break
        return entry

    def _borne_out(self, conditions: Sequence[Predicate], gain: Floats) -> bool:
        """Whether each condition that names words is one that several groups bear out.

        A word that is asked for must be right where the rule holds; one that is denied, where it keeps the rule from
        being wrong.
        """
        rows = [self.evidence.holds(condition) for condition in conditions]
        for at, condition in enumerate(conditions):
            words = words_of(condition)
            rest = np.logical_and.reduce([np.ones(len(gain), np.bool_), *rows[:at], *rows[at + 1 :]])
            told = -gain * (rest & ~rows[at]) if isinstance(condition, Not) else gain * (rest & rows[at])
            if words and not self.evidence.recurs(told, words):
                return False
        return True

    def _fits(self, predicate: Predicate) -> bool:
        return len(sentence(predicate).split()) <= self.evidence.request.budget.max_words

    # -- the rules that are there ---------------------------------------------------------------------

    def _changed_grades(self, first: Ints, right: Bools) -> Iterator[_Step]:
        for at, entry in enumerate(self.entries):
            decided = first == at
            for grade in range(len(self.evidence.grades)):
                if grade != entry.grade and decided.any():
                    gain = ((self.evidence.truth == grade).astype(np.float64) - right) * self.weight * decided
                    new = self._because(replace(entry, grade=grade, edited=entry.rule is not None), gain)
                    yield _Step(self._worth(gain, COST), (*self.entries[:at], new, *self.entries[at + 1 :]))

    def _moved(self, right: Bools) -> Iterator[_Step]:
        """Rules taken away, or moved in front of another."""
        for at, entry in enumerate(self.entries):
            if entry.rule is None or entry.predicate is None:
                continue
            rest = (*self.entries[:at], *self.entries[at + 1 :])
            gain = (self._right(rest).astype(np.float64) - right) * self.weight
            because = self._mended(gain)
            drop = RuleOperation(op="drop", rule=entry.rule.id, because=because)
            if not entry.edited:
                yield _Step(self._worth(gain, 0), rest, drop)
            for place in range(len(rest) + 1):
                if place != at and (place == len(rest) or rest[place].rule is not None):
                    yield self._reordered(entry, rest, place, right)

    def _reordered(self, entry: _Entry, rest: tuple[_Entry, ...], place: int, right: Bools) -> _Step:
        entries = (*rest[:place], entry, *rest[place:])
        gain = (self._right(entries).astype(np.float64) - right) * self.weight
        following = rest[place].rule if place < len(rest) else None
        rule = entry.rule.id if entry.rule else None
        before = following.id if following else None
        return _Step(
            self._worth(gain, COST),
            entries,
            RuleOperation(op="reorder", rule=rule, before=before, because=self._mended(gain)),
        )

    def _because(self, entry: _Entry, gain: Floats) -> _Entry:
        return replace(entry, because=self._mended(gain * entry.row))

    def _mended(self, gain: Floats) -> tuple[int, ...]:
        return tuple(self.evidence.numbers[i] for i in np.flatnonzero(gain > 0)[:SHOWN])


def _read_rules(evidence: Evidence) -> Iterator[_Entry]:
    """The current rules as they are judged by; one that cannot be followed holds nowhere and is left alone."""
    rules = evidence.request.rules
    kinds = defined_kinds(rule.text for rule in rules)
    names = grade_names(evidence.request.grades)
    for rule in rules:
        clauses = follow(
            Rule(rule.id, rule.text, rule.grade, rule.parts), evidence.grades, names, evidence.fields, kinds
        )
        predicate = clauses[0].condition if clauses else None
        grade = evidence.grades.index(clauses[0].grade) if clauses else 0
        yield _Entry(grade, predicate, evidence.holds(predicate), rule)


def _deciding(entries: Sequence[_Entry], samples: int) -> Ints:
    """(N,) index of the first entry that holds; their number where none does."""
    rows = np.vstack([*(entry.row for entry in entries), np.ones(samples, np.bool_)])
    first: Ints = rows.argmax(axis=0)
    return first


def _all(conditions: tuple[Predicate, ...]) -> Predicate:
    """A conjunction, flat."""
    parts = [p for c in conditions for p in (c.parts if isinstance(c, All) else (c,))]
    return parts[0] if len(parts) == 1 else All(tuple(dict.fromkeys(parts)))


def _deniable(predicate: Predicate) -> bool:
    """Whether its negation reads well and says something that no other predicate says."""
    return isinstance(predicate, Contains | Names)


def _lists(predicate: Predicate) -> list[Contains]:
    """The first list of terms that is asserted, if any."""
    parts = predicate.parts if isinstance(predicate, All) else (predicate,)
    return [p for p in parts if isinstance(p, Contains) and p.where == "anywhere" and not p.every][:1]


def _add_term(predicate: Predicate, known: Contains, term: str) -> Predicate:
    """The predicate with a term more, also where the same list is denied of another field."""

    def longer(part: Predicate) -> Predicate:
        if isinstance(part, Contains) and part.terms == known.terms:
            return replace(part, terms=(*part.terms, term))
        if isinstance(part, Not):
            return Not(longer(part.part))
        return All(tuple(longer(p) for p in part.parts)) if isinstance(part, All) else part

    return longer(predicate)


def _told(entries: Sequence[_Entry], grades: tuple[str, ...]) -> Iterator[RuleOperation]:
    """The edits and additions of a revised list, as operations."""
    following: str | None = None
    told: list[RuleOperation] = []
    for entry in reversed(entries):
        text = "" if entry.predicate is None else sentence(entry.predicate)
        if entry.rule is None:
            told.append(
                RuleOperation(op="add", grade=grades[entry.grade], text=text, before=following, because=entry.because)
            )
        else:
            following = entry.rule.id
            if entry.edited:
                told.append(
                    RuleOperation(
                        op="edit", rule=entry.rule.id, grade=grades[entry.grade], text=text, because=entry.because
                    )
                )
    yield from reversed(told)


def _note(operations: Sequence[RuleOperation]) -> str:
    counts = {op: sum(o.op == op for o in operations) for op in dict.fromkeys(o.op for o in operations)}
    return "Induced from the evidence: " + ", ".join(f"{n} {op}" for op, n in counts.items()) + "."
