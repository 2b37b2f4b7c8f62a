"""The grammar of rules: predicates written as English sentences, and sentences read as predicates.

Reading goes in three steps. A sentence is put into controlled English (`piar.offline.controlled_english`); connectives
split it into clauses; each clause is one of the sentences of `piar.offline.sentence_forms`. What cannot be read so is
not followed, and the caller is told.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from piar.offline.controlled_english import Reading, plain
from piar.offline.predicates import Agrees, All, AnyOf, Contains, Length, Matches, Names, Not, Part, Predicate, Words
from piar.offline.sentence_forms import OPERAND, read_form
from piar.offline.words import KINDS, Kind

# -- writing ------------------------------------------------------------------------------------

_COMPARED = {">=": "at least", "<=": "at most", "=": "exactly", ">": "more than", "<": "fewer than"}


def to_text(predicate: Predicate) -> str:
    """A predicate as a clause of plain English without a full stop; `parse` reads it back equal."""
    if isinstance(predicate, Not):
        return _negated(predicate.part)
    if isinstance(predicate, All | AnyOf):
        return _joined(predicate)
    return _atom(predicate)


def sentence(predicate: Predicate) -> str:
    """`to_text` with a capital letter and a full stop."""
    text = to_text(predicate)
    return text[:1].upper() + text[1:] + "."


def part_text(part: Part) -> str:
    """`the query`, `the last word of the query`, `the part of the title after "for"`."""
    name = f"the {part.field.replace('_', ' ')}"
    if part.side:
        name = f"the part of {name} {part.side} {_listed(part.terms, 'or')}"
    return f"the {part.pick} word of {name}" if part.pick else name


def _listed(terms: Sequence[str], joiner: str) -> str:
    quoted = [f'"{term}"' for term in terms]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f" {joiner} {quoted[-1]}"


def _atom(predicate: Predicate) -> str:
    match predicate:
        case Words():
            return _words_text(predicate)
        case Matches(a, b, how):
            verb = {"same": "is the same as", "phrase": "appears as a phrase in"}.get(how)
            if verb is None:
                return f"{part_text(b)} {'starts' if how == 'start' else 'ends'} with {part_text(a)}"
            return f"{part_text(a)} {verb} {part_text(b)}"
        case Contains(a, terms, where, every):
            verb = {"anywhere": "contains", "start": "starts with", "end": "ends with"}[where]
            return f"{part_text(a)} {verb} {_listed(terms, 'and' if every else 'or')}"
        case Length(a, unit, compare, n):
            noun = unit.removesuffix("s") if n == 1 else unit
            return f"{part_text(a)} is empty" if n == 0 else f"{part_text(a)} has {_COMPARED[compare]} {n:g} {noun}"
        case Names(a, kind):
            return f"{part_text(a)} names {_with_article(kind.name)}"
        case Agrees(a, b, kind, how):
            verb = {"same": "is the same in", "missing": "is missing from", "differs": "differs from that of"}[how]
            return f"the {kind.name} of {part_text(a)} {verb} {part_text(b)}"
    raise TypeError(f"not a predicate: {predicate!r}")


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _words_text(p: Words) -> str:
    a, b = part_text(p.a), part_text(p.b)
    if p.a.pick in ("first", "last") and (p.measure, p.compare, p.n) == ("present", ">=", 1):
        return f"{a} appears in {b}"
    if (p.compare, p.n) == ("=", 0) and p.measure != "percent":
        return f"{'no' if p.measure == 'present' else 'every'} word of {a} appears in {b}"
    if p.measure == "percent":
        return f"{_COMPARED[p.compare]} {p.n:g} percent of the words of {a} appear in {b}"
    noun, plural = ("word", "s") if p.n == 1 else ("words", "")
    verb = f"appear{plural} in" if p.measure == "present" else f"{'is' if plural else 'are'} missing from"
    return f"{_COMPARED[p.compare]} {p.n:g} {noun} of {a} {verb} {b}"


def _negated(part: Predicate) -> str:
    text = to_text(part)
    if isinstance(part, All | AnyOf | Not):
        return f"it is not true that ({text})"
    if isinstance(part, Words) and text.startswith(("the first word", "the last word")):
        return text.replace(" appears in ", " does not appear in ")
    for verb, negative in _NEGATIVES:
        if verb in text:
            head, _, tail = text.partition(verb)
            return f"{head}{negative}{tail}"
    return f"it is not true that ({text})"


_NEGATIVES = (
    (" contains ", " does not contain "),
    (" names ", " does not name "),
    (" starts with ", " does not start with "),
    (" ends with ", " does not end with "),
    (" appears as ", " does not appear as "),
    (" is the same ", " is not the same "),
    (" is empty", " is not empty"),
)


def _joined(predicate: All | AnyOf) -> str:
    if not predicate.parts:
        return "otherwise"
    if isinstance(predicate, AnyOf):
        return " or ".join(_bracketed(part) for part in predicate.parts)
    said: list[str] = []
    for i, part in enumerate(predicate.parts):
        before = predicate.parts[i - 1] if i else None
        elided = _elided(before, part)
        said.append(f"but {elided}" if elided else ("and " if i else "") + _bracketed(part))
    return " ".join(said)


def _bracketed(part: Predicate) -> str:
    return f"({to_text(part)})" if isinstance(part, All | AnyOf) else to_text(part)


def _elided(before: Predicate | None, part: Predicate) -> str | None:
    """`but the query does not`, when the part denies of another field what was just said."""
    if isinstance(before, Contains | Names) and isinstance(part, Not) and isinstance(part.part, Contains | Names):
        other = part.part.a
        if other != before.a and replace(part.part, a=before.a) == before:
            return f"{part_text(other)} does not"
    return None


# -- reading ------------------------------------------------------------------------------------


def parse(text: str, fields: tuple[str, ...], kinds: tuple[Kind, ...] = KINDS) -> Predicate | None:
    """Read a sentence as a predicate.

    Args:
        text: one clause or sentence, without the verdict that it leads to.
        fields: names of the sample's fields.
        kinds: known classes of words.

    Returns:
        The predicate, or None when the sentence cannot be followed.
    """
    return _parse(text[:2000], fields, kinds)


@lru_cache(maxsize=8192)
def _parse(text: str, fields: tuple[str, ...], kinds: tuple[Kind, ...]) -> Predicate | None:
    reading = Reading(fields, kinds)
    return _clauses(plain(text, reading), reading)


_LEAD = re.compile(r"^(?:(?:but|and|or|then|so|if|when|whenever|where|provided that|as long as|that|because) )+")
_UNLESS = re.compile(r",? (?:unless|except (?:when|if|where|that)|but not (?:when|if)) ")
_OR = re.compile(r",? or (?:if |when )?")
_AND = re.compile(r",? (?:and|but|while|whereas|yet|although|though)(?: (?:if|when|where))? |, ")
_ELIDED = re.compile(rf"{OPERAND}(?: (not))?(?: contains)?(?: (?:some|1|no|it|too|as well|of|them|these|those|so))*")
_BRACKETED = re.compile(r"\(([^()]*)\)")


def _clauses(text: str, reading: Reading) -> Predicate | None:
    """A text of the controlled English, with brackets, negations and connectives."""
    inner: dict[str, Predicate | None] = {}

    def keep(found: re.Match[str]) -> str:
        mark = f"¤{len(inner)}"
        inner[mark] = _split(" ".join(found[1].split()), reading, inner)
        return f" {mark} "

    while _BRACKETED.search(text):
        text = _BRACKETED.sub(keep, text, count=1)
    return _split(" ".join(text.split()), reading, inner)


def _split(text: str, reading: Reading, read: dict[str, Predicate | None]) -> Predicate | None:
    """A clause, or clauses joined by connectives; each distinct text is read once, so that nonsense costs little."""
    text = _LEAD.sub("", text.strip(" ,"))
    if text not in read:
        read[text] = None
        atom = _read_atom(text, reading, read)
        read[text] = _connected(text, reading, read) if atom is None else atom
    return read[text]


def _connected(text: str, reading: Reading, read: dict[str, Predicate | None]) -> Predicate | None:
    for connective, build in ((_UNLESS, _unless), (_OR, _either), (_AND, _both_hold)):
        for found in connective.finditer(text):
            left = _split(text[: found.start()], reading, read)
            if left is None:
                continue
            right = _split(text[found.end() :], reading, read) or _elision(text[found.end() :], left, reading)
            if right is not None:
                return build(left, right)
    return None


def _read_atom(text: str, reading: Reading, read: Mapping[str, Predicate | None]) -> Predicate | None:
    if text.startswith("nottrue "):
        rest = text.removeprefix("nottrue ")
        part = read[rest] if rest in read else _read_atom(rest, reading, read)
        return None if part is None else Not(part)
    found = read_form(text, reading)
    if found is not None:
        return found
    positive = re.sub(
        r"\b(?:is )?not (?=contains|appears|starts|ends|is|same|has|empty|blank|missing)", "", text, count=1
    )
    if positive != text:
        part = _read_atom(positive.replace("  ", " "), reading, read)
        return None if part is None else Not(part)
    return None


def _elision(text: str, left: Predicate, reading: Reading) -> Predicate | None:
    """`the query does not`: what was last said, of another field."""
    found = _ELIDED.fullmatch(_LEAD.sub("", text.strip(" ,")))
    while isinstance(left, All | AnyOf) and left.parts:
        left = left.parts[-1]
    said = left.part if isinstance(left, Not) else left
    if found is None or not isinstance(said, Contains | Names):
        return None
    moved = replace(said, a=reading.part(found[1]))
    return Not(moved) if found[2] else moved


def _unless(left: Predicate, right: Predicate) -> Predicate:
    return All((*_parts(left, All), Not(right)))


def _either(left: Predicate, right: Predicate) -> Predicate:
    return AnyOf((*_parts(left, AnyOf), *_parts(right, AnyOf)))


def _both_hold(left: Predicate, right: Predicate) -> Predicate:
    return All((*_parts(left, All), *_parts(right, All)))


def _parts(predicate: Predicate, joined: type[All] | type[AnyOf]) -> tuple[Predicate, ...]:
    return predicate.parts if isinstance(predicate, joined) else (predicate,)
