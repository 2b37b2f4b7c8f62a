"""The words that a rule asks for, or that must be absent, and the fields where it looks for them.

Words that only divide a text (`before "for"`) are left out; of rules that cannot be followed, each quoted word counts,
wherever it stands.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from piar.offline.predicates import All, AnyOf, Contains, Not, Part, Predicate
from piar.offline.rule_reader import defined_kinds, follow, grade_names
from store.task import Task
from store.types import Rule

_QUOTED = re.compile(r'["“]([^"“”]{1,80})["”]')


@dataclass(frozen=True, slots=True)
class NamedWord:
    """A word or phrase that a rule names.

    Attributes:
        fields: where it is looked for.
        asked: whether the rule asks for it; else its absence.
    """

    word: str
    fields: tuple[str, ...]
    asked: bool


def named_words(task: Task, rule: Rule, rules: Sequence[Rule]) -> tuple[NamedWord, ...]:
    """The words of a rule, each once; none where it names none.

    Args:
        rules: all that stand with it: one may define what another names.
    """
    return tuple(dict.fromkeys(_named(task, rule, rules)))


def _named(task: Task, rule: Rule, rules: Sequence[Rule]) -> Iterator[NamedWord]:
    kinds = defined_kinds(r.text for r in rules)
    clauses = follow(rule, task.symbols, grade_names(task.grades), task.fields, kinds)
    if clauses:
        found = [word for clause in clauses for word in _conditions(clause.condition, asked=True)]
        asked = {named.word for named in found if named.asked}
        yield from (named for named in found if named.asked or named.word not in asked)
    else:
        yield from (NamedWord(word, task.fields, asked=True) for word in _QUOTED.findall(rule.text))


def _conditions(condition: Predicate, *, asked: bool) -> Iterator[NamedWord]:
    match condition:
        case Contains(Part(field), terms):
            yield from (NamedWord(term, (field,), asked) for term in terms)
        case Not(part):
            yield from _conditions(part, asked=not asked)
        case All(parts) | AnyOf(parts):
            yield from (word for part in parts for word in _conditions(part, asked=asked))
