"""The grammar of rules: predicates written as English sentences, and sentences read as predicates.

Reading goes in two steps. `_plain` rewrites a sentence into a small controlled English (fields become
`@0`, quoted terms `§0`, synonyms one word); `_FORMS` lists the sentences of that English. Connectives
split what is not one sentence. Whatever is left over is not followed, and the caller is told so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from piar.llm.predicates import (
    Agrees,
    All,
    AnyOf,
    Comparison,
    Contains,
    Length,
    Matches,
    Names,
    Not,
    Part,
    Predicate,
    Words,
)
from piar.llm.words import KINDS, Kind

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
        found = _PART_GROUPS.fullmatch(text)
        assert found is not None
        pick: Any = found[1] or ""
        side: Any = found[3] or ""
        return Part(self.fields[int(found[2])], pick, side, self.terms(found[4]) if side else ())

    def kind(self, name: str) -> Kind:
        """A kind by its name, singular or plural."""
        return next(kind for kind in reversed(self.kinds) if name in _kind_names(kind))


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
    return _clauses(_plain(text, reading), reading)


# What a field may be called when the sample has no field of that very name.
_CALLED = (
    ("query", "search", "search query", "search term", "search phrase", "request", "question", "keyword"),
    ("title", "name", "product", "product title", "product name", "item", "item title", "item name", "text",
     "document", "entity", "result", "offer", "listing"),
)  # fmt: skip


@lru_cache(maxsize=256)
def _field_names(fields: tuple[str, ...]) -> tuple[re.Pattern[str], Mapping[str, int]]:
    names = {name.lower().replace("_", " "): i for i, name in enumerate(fields)}
    for group in _CALLED:
        owners = [names[called] for called in group if called in names]
        if owners:
            for called in group:
                names.setdefault(called, owners[0])
    known = sorted(names, key=len, reverse=True)
    pattern = r"\b(?:(?:the|an?|its|their|this) |(?<!not ))(" + "|".join(map(re.escape, known)) + r")\b"
    return re.compile(pattern + r"(?:'s?)?(?: (?:field|string|column)\b)?"), names


_QUOTED = re.compile(r'"([^"\n]{1,200})"|(?<!\w)\'([^\'\n]{1,60}?)\'(?!\w)|`([^`\n]{1,60})`')
_MARKS = re.compile(r"§\d+(?:(?:,? (?:or|and|/)|,) (?:(?:word|term|phrase)s? )?§\d+)+")

# Synonyms, applied in order. The controlled English has: every, no, some, word, appears in, missing from,
# contains, same as, differs from, and the comparisons.
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
        (r"\b(?:occurs?|is present|are present|is found|are found|shows? up|is included|are included|is contained"
         r"|are contained|is mentioned|are mentioned|appear|is repeated|are repeated|stands?|can be found|is|are)"
         r" (?:in|within|inside|among)\b(?! same)", "appears in"),
        (r"\b(?:appears?|occurs?|is found|are found) (?:within|inside|in)\b", "appears in"),
        (r"\b(?:contain|includes?|mentions?|holds?|carry|carries|says?|names?|covers|states?|containing|mentioning"
         r"|naming|including|specif(?:y|ies)|asks? for|features?)\b", "contains"),
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
)  # fmt: skip
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


def _plain(text: str, reading: Reading) -> str:
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


_P = r"((?:(?:first|last) word of )?@\d(?: (?:before|after) §\d+)?)"
_PART_GROUPS = re.compile(r"(?:(first|last) word of )?@(\d)(?: (before|after) (§\d+))?")
_SINGLE = r"((?:first|last) word of @\d(?: (?:before|after) §\d+)?)"
_N = r"(?:(>=|<=|=|>|<) )?(\d+(?:\.\d+)?)"
_T = r"(?:some of |some |1 of |every of |every )?(§\d+)"

_Build = Callable[[Reading, re.Match[str]], Predicate]
_FORMS: list[tuple[re.Pattern[str] | str, _Build]] = []


def _form(*patterns: str) -> Callable[[_Build], _Build]:
    def keep(build: _Build) -> _Build:
        _FORMS.extend((p if "KIND" in p else re.compile(p), build) for p in patterns)
        return build

    return keep


def _compare(text: str | None) -> Comparison:
    return text or "="  # type: ignore[return-value]


@_form(rf"(every|no|some) word of {_P} (appears in|missing from) {_P}")
def _quantified(r: Reading, m: re.Match[str]) -> Predicate:
    return _coverage(m[1], m[3] == "missing from", r.part(m[2]), r.part(m[4]))


@_form(rf"{_P} (not )?contains (every|no|some) word of {_P}")
def _containing(r: Reading, m: re.Match[str]) -> Predicate:
    found = _coverage(m[3], False, r.part(m[4]), r.part(m[1]))
    return Not(found) if m[2] else found


def _coverage(quantity: str, missing: bool, a: Part, b: Part) -> Words:
    if missing:
        compare, n, measure = {"every": ("=", 0, "present"), "no": ("=", 0, "missing"), "some": (">=", 1, "missing")}[
            quantity
        ]
    else:
        compare, n, measure = {"every": ("=", 0, "missing"), "no": ("=", 0, "present"), "some": (">=", 1, "present")}[
            quantity
        ]
    return Words(a, b, measure, compare, n)  # type: ignore[arg-type]


@_form(rf"{_N} word of {_P} (appears in|missing from) {_P}")
def _counted(r: Reading, m: re.Match[str]) -> Predicate:
    measure: Any = "present" if m[4] == "appears in" else "missing"
    return Words(r.part(m[3]), r.part(m[5]), measure, _compare(m[1]), float(m[2]))


@_form(rf"{_P} contains {_N} word of {_P}", rf"{_P} (?:not contains|is missing) {_N} word of {_P}")
def _contains_counted(r: Reading, m: re.Match[str]) -> Predicate:
    measure: Any = "present" if re.search(r"\d contains ", m[0]) else "missing"
    return Words(r.part(m[4]), r.part(m[1]), measure, _compare(m[2]), float(m[3]))


@_form(rf"{_N} % (?:of )?word of {_P} (appears in|missing from) {_P}")
def _percent(r: Reading, m: re.Match[str]) -> Predicate:
    compare, n = _compare(m[1]), float(m[2])
    if m[4] == "missing from":
        compare = {">=": "<=", "<=": ">=", ">": "<", "<": ">", "=": "="}[compare]  # type: ignore[assignment]
        n = 100 - n
    return Words(r.part(m[3]), r.part(m[5]), "percent", compare, n)


@_form(rf"{_P} contains {_N} % (?:of )?word of {_P}")
def _contains_percent(r: Reading, m: re.Match[str]) -> Predicate:
    return Words(r.part(m[4]), r.part(m[1]), "percent", _compare(m[2]), float(m[3]))


@_form(rf"every word of {_P} (?:but|except)(?: for)? {_N} appears in {_P}")
def _all_but(r: Reading, m: re.Match[str]) -> Predicate:
    return Words(r.part(m[1]), r.part(m[4]), "missing", _compare(m[2]), float(m[3]))


@_form(rf"{_P} and {_P} (?:share|has) (no|some|{_N}) word(?: in common)?")
def _shared(r: Reading, m: re.Match[str]) -> Predicate:
    a, b = r.part(m[1]), r.part(m[2])
    if m[3] in ("no", "some"):
        return _coverage(m[3], False, a, b)
    return Words(a, b, "present", _compare(m[4]), float(m[5]))


@_form(rf"{_SINGLE} (appears in|missing from) {_P}")
def _one_word(r: Reading, m: re.Match[str]) -> Predicate:
    found = Words(r.part(m[1]), r.part(m[3]), "present", ">=", 1)
    return found if m[2] == "appears in" else Not(found)


@_form(rf"{_P} contains {_SINGLE}")
def _contains_one_word(r: Reading, m: re.Match[str]) -> Predicate:
    return Words(r.part(m[2]), r.part(m[1]), "present", ">=", 1)


@_form(rf"{_P} appears (?:as phrase|word for word|as is|verbatim) ?(?:in )?{_P}", rf"{_P} appears in {_P}")
def _phrase(r: Reading, m: re.Match[str]) -> Predicate:
    return Matches(r.part(m[1]), r.part(m[2]), "phrase")


@_form(rf"{_P} contains (?:phrase of )?{_P}(?: as phrase)?")
def _contains_phrase(r: Reading, m: re.Match[str]) -> Predicate:
    return Matches(r.part(m[2]), r.part(m[1]), "phrase")


@_form(rf"{_P} (?:is )?same as {_P}", rf"{_P} and {_P} is (?:same|identical|equal)")
def _same(r: Reading, m: re.Match[str]) -> Predicate:
    return Matches(r.part(m[1]), r.part(m[2]), "same")


@_form(rf"{_P} (starts|ends) with {_P}")
def _starts(r: Reading, m: re.Match[str]) -> Predicate:
    return Matches(r.part(m[3]), r.part(m[1]), "start" if m[2] == "starts" else "end")


@_form(rf"{_P} (contains|starts with|ends with|has) {_T}")
def _contains(r: Reading, m: re.Match[str]) -> Predicate:
    where: Any = {"starts with": "start", "ends with": "end"}.get(m[2], "anywhere")
    some = re.search(r"(?:some|1)(?: of)? §", m[0])
    return Contains(r.part(m[1]), r.terms(m[3]), where, r.joiner(m[3]) == "and" and not some)


@_form(rf"{_P} contains no(?: of)? {_T}")
def _contains_none(r: Reading, m: re.Match[str]) -> Predicate:
    return Not(Contains(r.part(m[1]), r.terms(m[2])))


@_form(rf"(no |some |1 of )?(?:of )?(§\d+) appears in {_P}")
def _terms_in(r: Reading, m: re.Match[str]) -> Predicate:
    every = r.joiner(m[2]) == "and" and not m[1]
    found = Contains(r.part(m[3]), r.terms(m[2]), "anywhere", every)
    return Not(found) if m[1] == "no " else found


@_form(rf"{_P} (?:has|contains|is) {_N} (word|characters?|letters?)(?: long)?")
def _length(r: Reading, m: re.Match[str]) -> Predicate:
    return Length(r.part(m[1]), "words" if m[4] == "word" else "characters", _compare(m[2]), float(m[3]))


@_form(rf"{_P} (?:is )?(?:empty|blank|missing|absent)", rf"{_P} (?:has|contains) no word")
def _empty(r: Reading, m: re.Match[str]) -> Predicate:
    return Length(r.part(m[1]), "words", "=", 0)


@_form(rf"{_P} (?:contains|has) (?:some |no )?KIND")
def _names(r: Reading, m: re.Match[str]) -> Predicate:
    found = Names(r.part(m[1]), r.kind(m["kind"]))
    return Not(found) if re.search(r"\bno ", m[0]) else found


@_form(
    rf"(?:some |every )?KIND (?:of|in|from) {_P} (missing from|appears in|(?:is )?same (?:in|as)|differs from)"
    rf" (?:that of |that in |KIND (?:of|in) )?{_P}",
    rf"(?:some |every )?KIND (?:of|in|from) {_P} (not appears in) {_P}",
)
def _agrees(r: Reading, m: re.Match[str]) -> Predicate:
    how: Any = {"missing from": "missing", "not appears in": "missing", "differs from": "differs"}.get(m[3], "same")
    return Agrees(r.part(m[2]), r.part(m[4]), r.kind(m["kind"]), how)


@_form(
    rf"{_P} and {_P} (?:contains|has) (different|same) KIND",
    rf"KIND (?:of|in) {_P} and (?:of |in )?{_P} (differs?|is different|is same)",
)
def _both(r: Reading, m: re.Match[str]) -> Predicate:
    parts = [r.part(text) for text in m.groups() if text and "@" in text]
    how: Any = "same" if re.search(r"\bsame\b", m[0]) else "differs"
    return Agrees(parts[0], parts[1], r.kind(m["kind"]), how)


@_form(rf"{_P} contains (?:another|different|other) KIND (?:than|from) {_P}")
def _another(r: Reading, m: re.Match[str]) -> Predicate:
    return Agrees(r.part(m[3]), r.part(m[1]), r.kind(m["kind"]), "differs")


_BARE = r"[a-z0-9][a-z0-9-]*(?: (?!or\b|and\b)[a-z0-9-]+)?"


@_form(rf"{_P} (?:contains|has) (?!(?:it|them|these|those|so|too|some|no|every)\b)({_BARE}(?:(?:, or|,| or) {_BARE})*)")
def _unquoted(r: Reading, m: re.Match[str]) -> Predicate:
    """Terms that somebody wrote without quotes: at most two words each."""
    return Contains(r.part(m[1]), tuple(t.strip() for t in re.split(r",? or |, ", m[2])))


def _kind_names(kind: Kind) -> tuple[str, ...]:
    name = kind.name
    plural = name[:-1] + "ies" if name.endswith("y") else name + "s"
    more = {"measure": ("size or weight", "measurement", "measurements"), "number": ("digit", "digits"),
            "audience": ("gender", "genders", "age group"), "pack size": ("quantity", "quantities")}  # fmt: skip
    return (name, plural, *more.get(name, ()))


@lru_cache(maxsize=64)
def _forms(kinds: tuple[Kind, ...]) -> tuple[tuple[re.Pattern[str], _Build], ...]:
    names = sorted((name for kind in kinds for name in _kind_names(kind)), key=len, reverse=True)
    alternatives = "|".join(map(re.escape, names))

    def fill(pattern: str) -> re.Pattern[str]:
        first = pattern.replace("KIND", f"(?P<kind>{alternatives})", 1)
        return re.compile(first.replace("KIND", f"(?:{alternatives})"))

    return tuple((fill(p) if isinstance(p, str) else p, build) for p, build in _FORMS)


# -- clauses ------------------------------------------------------------------------------------

_LEAD = re.compile(r"^(?:(?:but|and|or|then|so|if|when|whenever|where|provided that|as long as|that|because) )+")
_UNLESS = re.compile(r",? (?:unless|except (?:when|if|where|that)|but not (?:when|if)) ")
_OR = re.compile(r",? or (?:if |when )?")
_AND = re.compile(r",? (?:and|but|while|whereas|yet|although|though)(?: (?:if|when|where))? |, ")
_ELIDED = re.compile(rf"{_P}(?: (not))?(?: contains)?(?: (?:some|1|no|it|too|as well|of|them|these|those|so))*")
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
    for pattern, build in _forms(reading.kinds):
        found = pattern.fullmatch(text)
        if found:
            return build(reading, found)
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
