"""What the offline teacher can follow of rules: conditions that it can evaluate, each with the grade it leads to.

A rule is whatever names a grade and says when. Rules that cannot be followed are kept aside, so that a person can be
told about them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from piar.offline.grammar import parse
from piar.offline.predicates import ALWAYS, All, AnyOf, Not, Predicate
from piar.offline.words import KINDS, Kind, define
from store.types import PART_KINDS, Rule


@dataclass(frozen=True)
class Clause:
    """A rule that can be followed. A rule whose id is empty is cited as none."""

    rule: Rule
    grade: str
    condition: Predicate


@dataclass(frozen=True)
class Reading:
    """Rules in order, as far as they can be followed.

    Attributes:
        clauses: the rules that can be followed; the first that fits decides.
        unfollowed: rules and sentences with a verdict that cannot be followed.
    """

    clauses: tuple[Clause, ...]
    unfollowed: tuple[Rule, ...]


class NamedGrade(Protocol):
    """A grade that may be called by its name."""

    @property
    def symbol(self) -> str: ...

    @property
    def name(self) -> str: ...


def grade_names(grades: Iterable[NamedGrade]) -> dict[str, str]:
    """Lower-case name of a grade -> its symbol, for those that have a name."""
    return {grade.name.lower(): grade.symbol for grade in grades if grade.name}


def read_rules(
    rules: Sequence[Rule], grades: tuple[str, ...], names: Mapping[str, str], fields: tuple[str, ...]
) -> Reading:
    """Read rules and sentences.

    Args:
        rules: in order; sentences of prose have no id.
        grades: grade symbols.
        names: lower-case name of a grade -> its symbol.
        fields: names of the sample's fields.
    """
    kinds = defined_kinds(rule.text for rule in rules)
    clauses: list[Clause] = []
    unfollowed: list[Rule] = []
    for rule in rules:
        made = follow(rule, grades, names, fields, kinds)
        clauses += made
        if not made and (rule.grade or _verdict(rule.text, grades, names)[0]):
            unfollowed.append(rule)
    return Reading(tuple(clauses), tuple(unfollowed))


def follow(
    rule: Rule, grades: tuple[str, ...], names: Mapping[str, str], fields: tuple[str, ...], kinds: tuple[Kind, ...]
) -> list[Clause]:
    """What can be followed of a rule: one clause of one with an id, every sentence of running prose.

    Args:
        rule: the rule, or a sentence of prose.
        grades: grade symbols.
        names: lower-case name of a grade -> its symbol.
        fields: names of the sample's fields.
        kinds: known classes of words.
    """
    read = (_clause(part, grades, names, fields, kinds) for part in _parts(rule))
    made = [_within_parts(replace(clause, rule=rule), fields, kinds) for clause in read if clause]
    return made[:1] if rule.id else made


def defined_kinds(texts: Iterable[str]) -> tuple[Kind, ...]:
    """The known classes of words, and those that a guideline defines."""
    return KINDS + tuple(kind for text in texts if (kind := _definition(text)))


SENTENCE = re.compile(r'(?<=[.;!?])["”)]?\s+(?=[A-Z"“(0-9])')  # where one ends and the next begins


def _parts(rule: Rule) -> Iterator[Rule]:
    """The whole rule, then what stands after a label (`Accessory: …`), then its single sentences."""
    sentences = SENTENCE.split(rule.text)
    for text in (rule.text, *(sentences if len(sentences) > 1 else ())):
        yield replace(rule, text=text)
        label = re.match(r"^[^:\"§]{2,60}:\s+", text)
        if label:
            yield replace(rule, text=text[label.end() :])


# -- one rule -------------------------------------------------------------------------------------

_OTHERWISE = re.compile(
    r"^(?:(?:if |when(?:ever)? )?otherwise|else|in (?:all|any|every) other cases?|by default"
    r"|(?:everything|anything|all|any|the) (?:else|other|others|rest)(?: (?:pairs?|cases?|products?|results?|items?))?"
    r"|if no (?:other )?rule (?:fits|applies|matches)|if nothing else (?:fits|applies))\b[ ,:.]*",
    re.I,
)
_FILLER = (
    r"(?:must|should|shall|will|is|are|gets?|receives?|deserves?|be|to|give|assign|use|choose|answer|graded?|scored?|rated?|"
    r"mark(?:ed)?|label(?:led)?|judged?|verdict|rating|score|as|of|with|it|its|this|the|an?|pair|product|result|item|sample|"
    r"title|then|means?|:|=|->|→|=>)"
)
_STRONG = re.compile(r"grad|scor|rat|label|mark|giv|assign|answer|judg|deserv|get|receiv|verdict|choose|->|→|=>", re.I)


@lru_cache(maxsize=64)
def _verdict_patterns(grades: tuple[str, ...], names: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    symbols = "|".join(sorted(map(re.escape, (*grades, *names)), key=len, reverse=True))
    said = rf"[\"'`*]*\b({symbols})\b[\"'`*]*(?: \([\w -]+\))?(?! *(?:words?|characters?|%|percent|of\b|or\b))"
    within = re.compile(rf",?[\s>=→-]*\b(?:{_FILLER}\s*\b\s*)+[\s:=>→-]*{said}", re.I)
    leading = re.compile(
        rf"^(?:(?:grade|score|label|give|assign|rate|mark)\s+(?:it\s+)?)?{said}\s*(?:[:–—,-]+>?|if\b|when\b|for\b)",
        re.I,
    )
    return within, leading


def _verdict(text: str, grades: tuple[str, ...], names: Mapping[str, str]) -> tuple[str | None, str]:
    """The grade that a sentence leads to, and the sentence without it."""
    within, leading = _verdict_patterns(grades, tuple(names))
    symbols = {symbol.lower(): symbol for symbol in grades} | dict(names)
    found = leading.match(text)
    if found:
        return symbols[found[1].lower()], text[found.end() :]
    for found in within.finditer(text):
        if _STRONG.search(found[0]) or found[1].lower() in names:
            return symbols[found[1].lower()], (text[: found.start()] + " " + text[found.end() :]).strip()
    return None, text


def _clause(
    rule: Rule, grades: tuple[str, ...], names: Mapping[str, str], fields: tuple[str, ...], kinds: tuple[Kind, ...]
) -> Clause | None:
    said, condition = _verdict(rule.text, grades, names)
    grade = rule.grade if rule.grade in grades else said
    if grade is None:
        return None
    rest = condition.strip(" .,;:")
    otherwise = _OTHERWISE.match(rest)
    if otherwise:
        rest = rest[otherwise.end() :]
        if not rest:
            return Clause(rule, grade, ALWAYS)
    predicate = parse(rest, fields, kinds) if rest else None
    return None if predicate is None else Clause(rule, grade, predicate)


def _within_parts(clause: Clause, fields: tuple[str, ...], kinds: tuple[Kind, ...]) -> Clause:
    """The clause where one of the rule's `use when` holds and no `avoid when` does, as far as these can be followed."""
    said = {kind: [parse(p.text, fields, kinds) for p in clause.rule.parts if p.kind == kind] for kind in PART_KINDS}
    use = [condition for condition in said["use when"] if condition]
    limits: list[Predicate] = [Not(condition) for condition in said["avoid when"] if condition]
    if use and len(use) == len(said["use when"]):
        limits.append(AnyOf(tuple(use)))
    whole = clause.condition.parts if isinstance(clause.condition, All) else (clause.condition,)
    return replace(clause, condition=All((*whole, *limits))) if limits else clause


_DEFINITION = re.compile(
    r"^(?:by |the )?([a-z][a-z -]{1,30}?)(?: words| terms| names)?\s*(?::| are| is| means?| include| we mean)+"
    r"(?: one of| any of| words such as| such as)?:?\s*(?=[\"“])",
    re.I,
)


def _definition(text: str) -> Kind | None:
    """A class of words that a guideline defines: `Brands are "Arvo", "Belling" and "Cando".`"""
    found = _DEFINITION.match(text.strip())
    if not found:
        return None
    rest = text.strip()[found.end() :].replace("“", '"').replace("”", '"')
    terms = re.findall(r'"([^"]{1,60})"', rest)
    if re.sub(r'"[^"]*"|\b(?:and|or)\b|[\s,.;]', "", rest):
        return None
    name = found[1].lower().strip()
    return define(name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s"), terms)
