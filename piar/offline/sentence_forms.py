"""The sentences of the controlled English, each with the predicate that it stands for."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from piar.offline.controlled_english import Reading, kind_names
from piar.offline.predicates import Agrees, Comparison, Contains, Length, Matches, Names, Not, Part, Predicate, Words
from piar.offline.words import Kind

OPERAND = r"((?:(?:first|last) word of )?@\d(?: (?:before|after) §\d+)?)"
_P = OPERAND
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


@lru_cache(maxsize=64)
def _forms(kinds: tuple[Kind, ...]) -> tuple[tuple[re.Pattern[str], _Build], ...]:
    names = sorted((name for kind in kinds for name in kind_names(kind)), key=len, reverse=True)
    alternatives = "|".join(map(re.escape, names))

    def fill(pattern: str) -> re.Pattern[str]:
        first = pattern.replace("KIND", f"(?P<kind>{alternatives})", 1)
        return re.compile(first.replace("KIND", f"(?:{alternatives})"))

    return tuple((fill(p) if isinstance(p, str) else p, build) for p, build in _FORMS)


def read_form(text: str, reading: Reading) -> Predicate | None:
    """The predicate of one sentence, or None when it is no sentence of the controlled English."""
    for pattern, build in _forms(reading.kinds):
        found = pattern.fullmatch(text)
        if found:
            return build(reading, found)
    return None
