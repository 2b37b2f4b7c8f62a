"""Grade probabilities from the log-probabilities of the tokens that spell the grade.

The tokens are aligned to the answer's text first: servers also send tokens of thinking that the text does not hold,
or tokens of a part of it. Where that is not certain, or what is found contradicts the grade, there are no
probabilities, with the reason.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from store.answer_text import THINKING, Unreadable, find_grade

if TYPE_CHECKING:
    from piar.llm.base import Request

LEAST_MASS = 0.5  # with less than this on the grades, the model was not answering with a grade

# Marks that tokenizers write for blanks and line ends, in servers that send vocabulary entries for text.
_VOCABULARY = (("Ġ", " "), ("▁", " "), ("\u010a", "\n"), ("<0x0A>", "\n"))
_LEADING = b" \t\r\n\"'`*:_"  # what tokenizers glue to the front of a grade
SURE = 0.99  # from which on the other tokens do not matter
_LONG = 30  # bytes of an answer that are not in thinking by chance
_ENDS_OF_THINKING = tuple(closing.encode() for _, closing in THINKING)


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token and the alternatives at its place, itself among them: token text -> natural log-probability.

    Bytes that are no whole character are written as `surrogateescape` does.
    """

    text: str
    top: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GradeProbs:
    """Grade symbol -> probability, adding up to 1; or None and why, unless the answer itself is unreadable."""

    probs: dict[str, float] | None
    reason: str = ""


def grade_probs(tokens: Sequence[Token], grades: Sequence[str], text: str, *, likeliest: bool = False) -> GradeProbs:
    """Probability of each grade where the answer spells it.

    A grade of several tokens has the product of their probabilities. An alternative counts for the grade that it
    spells (`2`, ` 2`, `"2`) or alone begins (`irr` for `irrelevant`); one that is a grade and begins another (`1` of
    `1` and `10`) is parted by what follows it in the answer, and is itself where it does not stand in the answer.
    What is found is normalised over the grades.

    Args:
        text: the answer as it is read.
        likeliest: the answer's grade must be the likeliest, as it is at temperature 0.
    """
    try:
        found = find_grade(text, grades)
    except Unreadable:
        return GradeProbs(None)
    start, end = (len(_utf8(text[:place])) for place in (found.start, found.end))
    if start == end:
        return GradeProbs(None, "the grade is not spelled as in the task")
    for pieces in _spellings(tokens):
        offset = _offset(b"".join(piece for piece, _ in pieces), _utf8(text))
        if offset is not None:
            try:
                mass = _mass(pieces, offset + start, offset + end, tuple(grades), found.grade)
                return GradeProbs(_checked(mass, found.grade, likeliest))
            except Unreadable as unknown:
                return GradeProbs(None, str(unknown))
    return GradeProbs(None, "the tokens with log-probabilities are not those of the answer's text")


def choose(probs: Mapping[str, float], request: "Request") -> str:
    """The likeliest grade, or at a temperature above 0 a draw that depends on the request's key and seed alone."""
    if not request.temperature:
        return max(probs, key=lambda grade: probs[grade])
    weights = [p ** (1 / request.temperature) for p in probs.values()]
    return random.Random(f"{request.key}:{request.seed}").choices(list(probs), weights)[0]


def _checked(mass: Mapping[str, float], grade: str, likeliest: bool) -> dict[str, float]:
    """The mass as shares of all; raises `Unreadable`."""
    total = sum(mass.values())
    if total < LEAST_MASS:
        raise Unreadable("too little of the probability is on grades")
    if not mass[grade] or (likeliest and mass[grade] < max(mass.values()) - 1e-9):
        raise Unreadable("the log-probabilities contradict the grade")
    return {g: p / total for g, p in mass.items()}


# -- aligning -------------------------------------------------------------------------------

_Piece = tuple[bytes, Mapping[bytes, float]]


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _spellings(tokens: Sequence[Token]) -> Iterator[list[_Piece]]:
    """The tokens as bytes; then, should those not fit the text, with the marks of vocabularies read as blanks."""
    for marks in ((), _VOCABULARY):
        yield [(_bytes(token.text, marks), {_bytes(t, marks): lp for t, lp in token.top.items()}) for token in tokens]


def _bytes(text: str, marks: Iterable[tuple[str, str]]) -> bytes:
    for mark, meaning in marks:
        text = text.replace(mark, meaning)
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return _utf8(text)


def _offset(written: bytes, answer: bytes) -> int | None:
    """Where the answer's text begins in what was generated, negative when its blanks were not; None when unclear."""
    bare = answer.strip()
    blanks, place = answer.find(bare[:1]), len(written)
    while bare and (place := written.rfind(bare[:1], 0, place)) >= 0:
        shared = min(len(written) - place, len(bare))
        if written.startswith(bare[:shared], place):
            before = written[:place].rstrip().lower()
            if not before or before.endswith(_ENDS_OF_THINKING) or shared == len(bare) >= _LONG:
                return place - blanks
    return None


# -- reading --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a beginning of an answer may be: a grade, should nothing follow; `open` where another may still come."""

    grade: str | None
    open: bool = False


@lru_cache(maxsize=64)
def _names(grades: tuple[str, ...], folded: bool) -> dict[bytes, str]:
    return {_utf8(grade.lower() if folded else grade): grade for grade in reversed(grades)}


def _reading(written: bytes, grades: tuple[str, ...]) -> _Reading:
    """The grade that `written` spells or alone begins, after blanks and quotes; exact case before any."""
    for folded in (False, True):
        names, bare = _names(grades, folded), written.lower() if folded else written
        for said in dict.fromkeys((bare, bare.lstrip(_LEADING))):
            longer = [name for name in names if name.startswith(said)] if said else []
            if longer:
                grade = names.get(said) or (names[longer[0]] if len(longer) == 1 else None)
                return _Reading(grade, len(longer) > 1)
            ended = [name for name in names if said.startswith(name) and not said[len(name) : len(name) + 1].isalnum()]
            if ended:
                return _Reading(names[max(ended, key=len)])
    return _Reading(None)


def _mass(pieces: Sequence[_Piece], start: int, end: int, grades: tuple[str, ...], grade: str) -> dict[str, float]:
    """What each grade's spellings add up to, where bytes `start` to `end` spell `grade`.

    Follows the answer from the token with the first byte until it can be no other grade, at most one token beyond.

    Raises:
        Unreadable: the tokens do not reach so far, or have no alternatives.
    """
    mass, path, sure, place, told = dict.fromkeys(grades, 0.0), b"", 1.0, 0, False
    for piece, top in pieces:
        place += len(piece)
        if place <= start:
            continue
        lead = b"" if path else piece[: max(0, len(piece) - (place - start))]
        for alternative, logprob in top.items():
            fits = alternative.startswith(lead)
            if alternative != piece and (fits or not lead.strip(_LEADING)):
                read = _reading(path + (alternative[len(lead) :] if fits else alternative), grades).grade
                if read is not None:
                    mass[read] += sure * math.exp(logprob)
        sure, told = sure * math.exp(top.get(piece, -math.inf)), told or bool(top.keys() - {piece})
        path += piece[len(lead) :]
        here = _reading(path, grades)
        if place > end or (place == end and not here.open):
            break
    if place < end:
        raise Unreadable("the tokens with log-probabilities end before the grade")
    if not told and sure < SURE:
        raise Unreadable("no alternatives come with the log-probabilities")
    mass[grade] += sure
    return mass
