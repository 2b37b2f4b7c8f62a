"""The evidence of a reviser prompt as arrays, for the offline reviser to weigh."""

from collections.abc import Sequence
from math import comb

import numpy as np
import numpy.typing as npt

from piar.instructions.revision_schema import EvidenceItem, RevisionRequest
from piar.offline.predicates import All, Contains, Not, Predicate, View
from piar.offline.vocabulary import make_vocabulary
from piar.offline.words import overlap_grade, read_text

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MIN_GROUPS = 3  # a rule must hold in as many groups
COST = 0.4  # samples that a condition must pay for
TERM_COST = 1.0  # ... and a term, of which there are many more to choose from
WORD_GROUPS = 4  # groups that a word must mend
NAME_GROUPS = 7  # ... and one that is more likely a name: a number (a model, a year), or two letters at most
WORD_CHANCE = 0.15  # of mending so many more groups than it breaks by chance


class Evidence:
    """The evidence as arrays, and the vocabulary that describes it. N samples, K grades, A predicates."""

    def __init__(self, request: RevisionRequest, numbered: Sequence[tuple[int, EvidenceItem]]) -> None:
        items = [item for _, item in numbered]
        self.request = request
        self.numbers = [number for number, _ in numbered]  # positions in the request's evidence
        self.grades = tuple(grade.symbol for grade in request.grades)
        self.fields = tuple(items[0].fields)
        self.views: list[View] = [{f: read_text(item.fields.get(f, "")) for f in self.fields} for item in items]
        self.truth: Ints = np.array([self.grades.index(item.truth) for item in items])
        self.weight: Floats = np.array([_weight(item) for item in items])
        names = [item.group or f"alone {i}" for i, item in enumerate(items)]
        self.group: Ints = np.unique(names, return_inverse=True)[1]
        self.vocabulary = make_vocabulary(self.views, self.group, MIN_GROUPS)
        self._known: dict[Predicate, Bools] = dict(zip(self.vocabulary.predicates, self.vocabulary.holds, strict=True))
        self.said = self.vocabulary.holds.astype(np.float32)  # (A, N)
        self.guess: Ints = np.array([overlap_grade(list(view.values()), len(self.grades)) for view in self.views])

    def holds(self, predicate: Predicate | None) -> Bools:
        """(N,) where a predicate holds; nowhere when there is none. Parts are evaluated once."""
        match predicate:
            case None:
                return np.zeros(len(self.views), np.bool_)
            case All(parts):
                rows = np.array([np.ones(len(self.views), np.bool_), *map(self.holds, parts)])
                return np.asarray(rows.all(axis=0))
            case Not(part):
                return ~self.holds(part)
            case Contains(a, terms, "anywhere", False) if len(terms) > 1:
                return np.asarray(np.array([self.holds(Contains(a, (term,))) for term in terms]).any(axis=0))
        if predicate not in self._known:
            row = np.fromiter((predicate.holds(view) for view in self.views), np.bool_, len(self.views))
            self._known[predicate] = row
        return self._known[predicate]

    def recurs(self, gain: Floats, words: Sequence[str]) -> bool:
        """Whether words mend several groups, and clearly more than they break (one-sided sign test over groups).

        Args:
            gain: (N,) weighted change of being right that the words bring.
        """
        by_group = np.bincount(self.group, weights=gain)
        mended, broken = int(np.sum(by_group > 0)), int(np.sum(by_group < 0))
        n = mended + broken
        chance = sum(comb(n, k) for k in range(mended, n + 1)) / 2**n
        least = NAME_GROUPS if any(map(_like_a_name, words)) else WORD_GROUPS
        return mended >= least and chance <= WORD_CHANCE


def price(predicate: Predicate) -> float:
    """What a condition must pay for: more where there were more to choose from."""
    match predicate:
        case All(parts):
            return max(map(price, parts), default=COST)
        case Not(part):
            return price(part)
        case Contains(_, terms):
            return TERM_COST * len(terms)
    return COST


def _weight(item: EvidenceItem) -> float:
    """Share of the raters who agree with the truth, where they are known: a disputed sample counts for less."""
    votes = sum(item.votes.values())
    return max(0.25, item.votes.get(item.truth, 0) / votes) if votes else 1.0


def words_of(condition: Predicate) -> list[str]:
    """The words or phrases that a condition names."""
    match condition:
        case Contains(_, terms):
            return list(terms)
        case Not(part):
            return words_of(part)
        case All(parts):
            return [word for part in parts for word in words_of(part)]
    return []


def _like_a_name(word: str) -> bool:
    """Whether a word tells a thing rather than a kind: it has a digit (a model, a year), or two letters at most."""
    return len(word) <= 2 or any(c.isdigit() for c in word)
