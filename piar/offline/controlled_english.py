"""Controlled English: the few words that rules are reduced to before they are read.

Fields become `@0`, quoted terms `§0`, and synonyms one word: every, no, some, word, appears in, missing from,
contains, same as, differs from, and the comparisons.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from piar.offline.predicates import Part
from piar.offline.words import KINDS, Kind

PART = re.compile(r"(?:(first|last) word of )?@(\d)(?: (before|after) (§\d+))?")


@dataclass
class Reading:
    """What a sentence is read against.

    Attributes:
        fields: the sample's fields, in order.
        kinds: the classes of words that are known, those defined by the guideline included.
    """

    fields: tuple[str, ...]
    kinds: tuple[Kind, ...] = KINDS
    _terms: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def terms(self, mark: str) -> tuple[str, ...]:
        """The terms behind `§3`."""
        return self._terms[int(mark.lstrip("§"))][0]

    def joiner(self, mark: str) -> str:
        """`or`, `and`, or nothing for a single term."""
        return self._terms[int(mark.lstrip("§"))][1]

    def keep(self, terms: tuple[str, ...], joiner: str) -> str:
        """Put terms away and return their mark."""
        self._terms.append((terms, joiner))
        return f"§{len(self._terms) - 1}"

    def part(self, text: str) -> Part:
        """An operand of the controlled English."""
        found = PART.fullmatch(text)
        assert found is not None
        pick: Any = found[1] or ""
        side: Any = found[3] or ""
        return Part(self.fields[int(found[2])], pick, side, self.terms(found[4]) if side else ())

    def kind(self, name: str) -> Kind:
        """A kind by its name, singular or plural."""
        return next(kind for kind in reversed(self.kinds) if name in kind_names(kind))


def kind_names(kind: Kind) -> tuple[str, ...]:
    """What a kind may be called."""
    name = kind.name
    plural = name[:-1] + "ies" if name.endswith("y") else name + "s"
    more = {
        "measure": ("size or weight", "measurement", "measurements"),
        "number": ("digit", "digits"),
        "audience": ("gender", "genders", "age group"),
        "pack size": ("quantity", "quantities"),
    }
    return (name, plural, *more.get(name, ()))


# What a field may be called when the sample has no field of that very name.
_CALLED = (
    ("query", "search", "search query", "search term", "search phrase", "request", "question", "keyword"),
    (
        "title",
        "name",
        "product",
        "product title",
        "product name",
        "item",
        "item title",
        "item name",
        "text",
        "document",
        "entity",
        "result",
        "offer",
        "listing",
    ),
)


@lru_cache(maxsize=256)
def _field_names(fields: tuple[str, ...]) -> tuple[re.Pattern[str], Mapping[str, int]]:
    names = {name.lower().replace("_", " "): i for i, name in enumerate(fields)}
    for group in _CALLED:
        owners = [names[called] for called in group if called in names]
        if owners:
            for called in group:
                names.setdefault(called, owners[0])
    known = sorted((name for name in names if name.strip()), key=len, reverse=True) or ["\0"]
    pattern = r"(?<!\w)(?:(?:the|an?|its|their|this) |(?<!not ))(" + "|".join(map(re.escape, known)) + r")(?!\w)"
    return re.compile(pattern + r"(?:'s?)?(?: (?:field|string|column)\b)?"), names


_QUOTED = re.compile(r'"([^"\n]{1,200})"|(?<!\w)\'([^\'\n]{1,60}?)\'(?!\w)|`([^`\n]{1,60})`')
_MARKS = re.compile(r"§\d+(?:(?:,? (?:or|and|/)|,) (?:(?:word|term|phrase)s? )?§\d+)+")

# Applied in order.
_SYNONYMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"[“”„«»]", '"'),
        (r"\b(do|does|is|are|has|have|must|should|can|could)(?:n't|nt)\b", r"\1 not"),
        (r"\bcannot\b", "not"),
        (r"\b(?:it is not (?:true|the case) that|it is false that)\b", "nottrue"),
        (r"\b(?:must|should|shall|will|can|do|does|did|also|both|either|only|still|itself|simply|explicitly)\b", ""),
        (r"\b(?:none of|not a single|not any|zero|(?<![@§])(?<![<>=] )0)\b(?! %| percent)", "no"),
        (r"\b(?:at least|no fewer than|no less than|a minimum of)\b", ">="),
        (r"\b(?:at most|no more than|not more than|up to|a maximum of)\b", "<="),
        (r"\b(?:fewer than|less than|shorter than|under|below)\b", "<"),
        (r"\b(?:more than|longer than|over|above)\b", ">"),
        (r"\b(?:exactly|precisely|just)\b", "="),
        (r"\b(\d+) (?:or more)\b", r">= \1"),
        (r"\b(\d+) (?:or fewer|or less)\b", r"<= \1"),
        (r"\ba single\b", "= 1"),
        (r"\bhalf(?: of)?\b", "50 %"),
        (r" ?percent\b(?: of)?|% of\b|(?<=\d)%", " %"),
        (r"\b(?:all|each|every one|any and all)(?: of)?\b", "every"),
        (r"\b(?:any|one or more|something)(?: of)?\b", "some"),
        (r"\b(?:words|terms?|tokens?|keywords?)\b", "word"),
        (
            r"\b(?:occurs?|is present|are present|is found|are found|shows? up|is included|are included|is contained"
            r"|are contained|is mentioned|are mentioned|appear|is repeated|are repeated|stands?|can be found|is|are)"
            r" (?:in|within|inside|among)\b(?! same)",
            "appears in",
        ),
        (r"\b(?:appears?|occurs?|is found|are found) (?:within|inside|in)\b", "appears in"),
        (
            r"\b(?:contain|includes?|mentions?|holds?|carry|carries|says?|names?|covers|states?|containing|mentioning"
            r"|naming|including|specif(?:y|ies)|asks? for|features?)\b",
            "contains",
        ),
        (r"\b(?:lacks?|leaves? out|omits?|misses)\b", "not contains"),
        (r"\b(?:is|are) (?:missing|absent|not contained) (?:from|in)\b|\b(?:missing|absent) from\b", "missing from"),
        (r"\b(?:is|are) (?:identical to|equal to|exactly)\b|\bequals?\b|\b(?:is|are) same as\b", "same as"),
        (r"\bappear\b", "appears"),
        (r"\b(?:begins?|start) with\b", "starts with"),
        (r"\bend with\b", "ends with"),
        (r"\b(?:have|having|(?<!starts )(?<!ends )with)\b(?! §)", "has"),
        (r"\b(?:are|be|being)\b", "is"),
        (r"\b(?:color)(s?)\b", r"colour\1"),
        (r"\b(?:the|an?|of these|of those|of them|word|following|very)\b(?= §)", ""),
        (r"\b(?:the|an?)\b", ""),
    )
)
_NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
}


def plain(text: str, reading: Reading) -> str:
    """A sentence in the controlled English."""
    text = re.sub(r"[“”„«»]", '"', text.replace("’", "'")).replace("*", "")
    text = re.sub(r"[@§]", " ", text)
    text = _QUOTED.sub(lambda m: " " + reading.keep((m[1] or m[2] or m[3],), "") + " ", text).lower()
    text = " ".join(text.split())
    text = re.sub(r"(§\d+) ,", r"\1,", text)
    text = _MARKS.sub(lambda m: _merge(m[0], reading), text)
    text = re.sub(r"[.;:!?]+$", "", text.strip(" .;:!")).strip()
    pattern, names = _field_names(reading.fields)
    text = pattern.sub(lambda m: f"@{names[m[1]]}", text)
    text = re.sub(r"\b(" + "|".join(_NUMBERS) + r")\b(?! of (?!word|@))", lambda m: str(_NUMBERS[m[1]]), text)
    for synonym, new in _SYNONYMS:
        text = synonym.sub(new, text)
    text = re.sub(r"@(\d) word\b(?! of)", r"word of @\1", text)
    text = re.sub(r"\bword (?:in|from|that @(\d) contains|which appears in|that appears in) (?=@)", "word of ", text)
    text = re.sub(r"\b(?:part of|what comes in|portion of) (@\d) (before|after)\b", r"\1 \2", text)
    text = re.sub(r"\b(every|some|no) of\b", r"\1", text)
    text = re.sub(r"(?<=%) (?:of )?", " ", text)
    return " ".join(text.split())


def _merge(listing: str, reading: Reading) -> str:
    """`§0, §1 or §2` as one mark."""
    marks = re.findall(r"§\d+", listing)
    terms = tuple(term for mark in marks for term in reading.terms(mark))
    return reading.keep(terms, "and" if re.search(r"\band\b", listing) else "or")
