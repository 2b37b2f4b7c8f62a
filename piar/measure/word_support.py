"""How many rows and groups stand behind each word that a rule asks for.

Words that only divide a text (`before "for"`) are left out; of rules that the offline reader cannot follow, each quoted
word counts, wherever it stands.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from piar.offline.predicates import All, AnyOf, Contains, Not, Part, Predicate
from piar.offline.rule_reader import defined_kinds, follow, grade_names
from piar.offline.words import Text, read_text
from store.db import Store, quote
from store.types import Rule

_QUOTED = re.compile(r'["“]([^"“”]{1,80})["”]')


@dataclass(frozen=True, slots=True)
class Support:
    """A word or phrase, and the labelled train and dev rows that have it.

    Attributes:
        asked: whether the rule asks for it; else its absence.
        agree: of these rows, those whose true grade is the rule's.
    """

    term: str
    asked: bool
    rows: int
    groups: int
    agree: int

    def sentence(self) -> str:
        """In words."""
        told = f"“{self.term}” {self.rows:,} rows, {self.groups:,} groups"
        return f"{told}, {100 * self.agree / self.rows:.0f} % right" if self.asked and self.rows else told


@dataclass(frozen=True, slots=True)
class _Term:
    word: str
    fields: tuple[str, ...]
    asked: bool


@dataclass(frozen=True, slots=True)
class _Row:
    group: str
    truth: str
    texts: dict[str, Text]


def support(store: Store, rules: Sequence[Rule]) -> dict[str, tuple[Support, ...]]:
    """Rule id -> the support of each word that it names; rules that name none are left out.

    Train and dev only: holdout and test stay closed to who edits rules.
    """
    named = {rule.id: (rule, terms) for rule in rules if (terms := tuple(dict.fromkeys(_terms(store, rule, rules))))}
    rows = _labelled(store) if named else []
    return {name: tuple(_support(term, rule, rows) for term in terms) for name, (rule, terms) in named.items()}


def _terms(store: Store, rule: Rule, rules: Sequence[Rule]) -> Iterator[_Term]:
    fields, task = store.task.fields, store.task
    names = grade_names(task.grades)
    kinds = defined_kinds(r.text for r in rules)
    clauses = follow(rule, task.symbols, names, fields, kinds)
    if clauses:
        found = [term for clause in clauses for term in _named(clause.condition, asked=True)]
        asked = {term.word for term in found if term.asked}
        yield from (term for term in found if term.asked or term.word not in asked)
    else:
        yield from (_Term(word, fields, asked=True) for word in _QUOTED.findall(rule.text))


def _named(condition: Predicate, *, asked: bool) -> Iterator[_Term]:
    match condition:
        case Contains(Part(field), terms):
            yield from (_Term(term, (field,), asked) for term in terms)
        case Not(part):
            yield from _named(part, asked=not asked)
        case All(parts) | AnyOf(parts):
            yield from (term for part in parts for term in _named(part, asked=asked))


def _labelled(store: Store) -> list[_Row]:
    """The labelled rows of train and dev, their fields read."""
    names = store.task.fields
    fields = ", ".join(f"s.{quote(name)}" for name in names)
    frame = store.frame(
        f"select s.group_key, t.grade, {fields} from samples s join truth t using (sample_id) "
        "where s.split in ('train', 'dev')"
    )
    return [
        _Row(group, grade, {name: read_text(text or "") for name, text in zip(names, texts, strict=True)})
        for group, grade, *texts in frame.rows()
    ]


def _support(term: _Term, rule: Rule, rows: Iterable[_Row]) -> Support:
    words = read_text(term.word).words
    having = [row for row in rows if any(row.texts[name].find(words) >= 0 for name in term.fields)]
    agree = sum(row.truth == rule.grade for row in having)
    return Support(term.word, term.asked and rule.grade is not None, len(having), len({r.group for r in having}), agree)
