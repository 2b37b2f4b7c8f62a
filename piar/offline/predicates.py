"""What a rule can say about a sample: a small language of predicates over its fields.

A predicate holds or not, and can quote the words that made it hold. `piar.offline.grammar` writes each as
an English sentence and reads sentences back; the inducer searches among them.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from piar.offline.words import Kind, Text, stems

View = Mapping[str, Text]  # field -> its words
Span = tuple[Text, int, int]  # words from start to before stop, of a text
Comparison = Literal[">=", "<=", "=", ">", "<"]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_QUOTED_WORDS = 8  # as much of a field as is quoted when a rule speaks of the whole of it


@dataclass(frozen=True)
class Part:
    """A field, what stands in it before or after a term, or the first or last word of either.

    Without the term, all of the field stands before it and nothing after it.
    """

    field: str
    pick: Literal["", "first", "last"] = ""
    side: Literal["", "before", "after"] = ""
    terms: tuple[str, ...] = ()

    @cached_property
    def _terms(self) -> tuple[tuple[str, ...], ...]:
        return tuple(stems(term) for term in self.terms)

    def of(self, view: View) -> Text:
        """This part of a sample; no words when there is no such part."""
        text = view[self.field]
        if not self.pick and not self.side:
            return text
        start, stop = self._bounds(text)
        if self.pick == "first":
            stop = min(start + 1, stop)
        elif self.pick == "last":
            start = max(stop - 1, start)
        return text.cut(start, stop)

    def _bounds(self, text: Text) -> tuple[int, int]:
        size = len(text.words)
        if not self.side:
            return 0, size
        found = [(at, len(term)) for term in self._terms if (at := text.find(term)) >= 0]
        if not found:
            return (0, size) if self.side == "before" else (size, size)
        at, length = min(found)
        return (0, at) if self.side == "before" else (at + length, size)


class Predicate(ABC):
    """Something that holds of a sample or does not."""

    @abstractmethod
    def holds(self, view: View) -> bool:
        """Whether it holds."""

    def evidence(self, view: View) -> Iterator[Span]:
        """The words that made it hold; nothing when it speaks of what is absent."""
        return iter(())


@dataclass(frozen=True)
class Words(Predicate):
    """How many distinct words of `a` are present in `b`, missing from it, or present in percent.

    Holds of no sample in which `a` has no words.
    """

    a: Part
    b: Part
    measure: Literal["present", "missing", "percent"]
    compare: Comparison
    n: float

    @cached_property
    def _test(self) -> Callable[[float, float], bool]:
        return _COMPARE[self.compare]

    def holds(self, view: View) -> bool:
        a = self.a.of(view).bag
        if not a:
            return False
        present = len(a & self.b.of(view).bag)
        if self.measure == "present":
            return self._test(present, self.n)
        if self.measure == "missing":
            return self._test(len(a) - present, self.n)
        return self._test(100.0 * present / len(a), self.n)

    def evidence(self, view: View) -> Iterator[Span]:
        a, b = self.a.of(view), self.b.of(view)
        shared = a.bag & b.bag
        if not shared:
            yield from _whole(a)
            yield from _whole(b)
            return
        yield from _runs(b, shared)
        if len(shared) < len(a.bag):
            yield from _runs(a, a.bag - shared)


@dataclass(frozen=True)
class Matches(Predicate):
    """`a` is `b` word for word, or stands in it as a phrase, at its start or at its end."""

    a: Part
    b: Part
    how: Literal["same", "phrase", "start", "end"]

    def holds(self, view: View) -> bool:
        a, b = self.a.of(view).words, self.b.of(view)
        if not a:
            return False
        if self.how == "same":
            return a == b.words
        if self.how == "phrase":
            return b.find(a) >= 0
        return b.words[: len(a)] == a if self.how == "start" else b.words[-len(a) :] == a

    def evidence(self, view: View) -> Iterator[Span]:
        a, b = self.a.of(view), self.b.of(view)
        at = b.find(a.words) if self.how != "end" else len(b.words) - len(a.words)
        yield b, at, at + len(a.words)


@dataclass(frozen=True)
class Contains(Predicate):
    """`a` has one of the terms (or all of them), anywhere, at its start or at its end."""

    a: Part
    terms: tuple[str, ...]
    where: Literal["anywhere", "start", "end"] = "anywhere"
    every: bool = False

    @cached_property
    def _terms(self) -> tuple[tuple[str, ...], ...]:
        return tuple(term for term in (stems(t) for t in self.terms) if term)

    @cached_property
    def _single(self) -> frozenset[str] | None:
        """All terms, when a set test is enough."""
        plain = self.where == "anywhere" and not self.every and all(len(term) == 1 for term in self._terms)
        return frozenset(term[0] for term in self._terms) if plain else None

    @cached_property
    def _heads(self) -> frozenset[str]:
        return frozenset(term[0] for term in self._terms)

    def holds(self, view: View) -> bool:
        text = self.a.of(view)
        if self._single is not None:
            return not self._single.isdisjoint(text.bag)
        if self._heads.isdisjoint(text.bag):
            return False
        found = (self._at(text, term) >= 0 for term in self._terms)
        return bool(self._terms) and (all(found) if self.every else any(found))

    def _at(self, text: Text, term: tuple[str, ...]) -> int:
        if self.where == "start":
            return 0 if text.words[: len(term)] == term else -1
        if self.where == "end":
            return len(text.words) - len(term) if text.words[-len(term) :] == term else -1
        return text.find(term)

    def evidence(self, view: View) -> Iterator[Span]:
        text = self.a.of(view)
        for term in self._terms:
            at = self._at(text, term)
            if at >= 0:
                yield text, at, at + len(term)


@dataclass(frozen=True)
class Length(Predicate):
    """How many words or characters `a` has; 0 words: it is empty."""

    a: Part
    unit: Literal["words", "characters"]
    compare: Comparison
    n: float

    def holds(self, view: View) -> bool:
        text = self.a.of(view)
        size = len(text.words) if self.unit == "words" else len(text.raw)
        return _COMPARE[self.compare](size, self.n)

    def evidence(self, view: View) -> Iterator[Span]:
        return _whole(self.a.of(view))


@dataclass(frozen=True)
class Names(Predicate):
    """`a` names something of a kind: a colour, a number, a measure …"""

    a: Part
    kind: Kind

    def holds(self, view: View) -> bool:
        return bool(self.a.of(view).values(self.kind))

    def evidence(self, view: View) -> Iterator[Span]:
        text = self.a.of(view)
        place = self.kind.position(text)
        if place is not None:
            yield text, *place


@dataclass(frozen=True)
class Agrees(Predicate):
    """How what `a` names of a kind stands to what `b` names.

    `same`: all of it is named by `b` too; `missing`: some of it is not; `differs`: both name the kind
    and agree on nothing (measures: in a unit that both use).
    """

    a: Part
    b: Part
    kind: Kind
    how: Literal["same", "missing", "differs"]

    def holds(self, view: View) -> bool:
        a = self.a.of(view).values(self.kind)
        if not a:
            return False
        b = self.b.of(view).values(self.kind)
        if self.how == "differs":
            return self.kind.conflicts(a, b)
        return (a <= b) == (self.how == "same")

    def evidence(self, view: View) -> Iterator[Span]:
        yield from Names(self.a, self.kind).evidence(view)
        yield from Names(self.b, self.kind).evidence(view)


@dataclass(frozen=True)
class Not(Predicate):
    """The part does not hold."""

    part: Predicate

    def holds(self, view: View) -> bool:
        return not self.part.holds(view)


@dataclass(frozen=True)
class All(Predicate):
    """Every part holds; with no parts, always."""

    parts: tuple[Predicate, ...]

    def holds(self, view: View) -> bool:
        for part in self.parts:  # noqa: SIM110 (a generator costs more than the parts)
            if not part.holds(view):
                return False
        return True

    def evidence(self, view: View) -> Iterator[Span]:
        for part in self.parts:
            yield from part.evidence(view)


@dataclass(frozen=True)
class AnyOf(Predicate):
    """At least one part holds."""

    parts: tuple[Predicate, ...]

    def holds(self, view: View) -> bool:
        return any(part.holds(view) for part in self.parts)

    def evidence(self, view: View) -> Iterator[Span]:
        held = next((part for part in self.parts if part.holds(view)), None)
        return iter(()) if held is None else held.evidence(view)


ALWAYS = All(())


def quotes(predicate: Predicate, view: View) -> tuple[str, ...]:
    """Verbatim spans of the sample that made a predicate hold, at most four, each of two words where it can be."""
    spans = [_widened(span) for span in predicate.evidence(view)]
    if not spans:
        spans = [span for text in view.values() for span in _whole(text)]
    return tuple(dict.fromkeys(text.quote(start, stop) for text, start, stop in spans))[:4]


def _whole(text: Text) -> Iterator[Span]:
    if text.words:
        yield text, 0, min(len(text.words), _QUOTED_WORDS)


def _runs(text: Text, bag: frozenset[str]) -> Iterator[Span]:
    """Unbroken runs of words that are in the bag."""
    start: int | None = None
    for i, word in enumerate((*text.words, "")):
        if word in bag:
            start = i if start is None else start
        elif start is not None:
            yield text, start, i
            start = None


def _widened(span: Span) -> Span:
    """A single word is hard to check by eye: take a neighbour in."""
    text, start, stop = span
    if stop - start > 1:
        return span
    return (text, start - 1, stop) if start else (text, start, min(stop + 1, len(text.words)))
