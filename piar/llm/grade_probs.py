"""Grade probabilities from the log-probabilities of the token that carries the grade."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LEAST_MASS = 0.5  # with less than this on the grades, the model was not answering with a grade

_JSON_GRADE = re.compile(r'^\s*\{\s*"grade"\s*:\s*"?')
_BEFORE = re.compile(r'^(?:<think>.*?</think>)?[\s"`*]*', re.S)
_AROUND = " \t\r\n\"'`*.,:Ġ▁\u010a"  # blanks and quotes that tokenizers glue to a symbol


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token and the alternatives at its place: token text -> natural log-probability."""

    text: str
    top: Mapping[str, float]


def grade_probs(tokens: Sequence[Token], grades: Sequence[str]) -> dict[str, float] | None:
    """Probability of each grade at the token where the grade is spelled, or None when unknown.

    The grade is the first token of the text format and the first value of the JSON format. All
    alternatives that spell a grade count for it: `2`, ` 2`, `"2`, and `irr` for `irrelevant` when no
    other grade starts so. The result is normalised over the grades.
    """
    token = _grade_token(tokens)
    return None if token is None else normalise(token.top.items(), grades)


def normalise(top: Iterable[tuple[str, float]], grades: Sequence[str]) -> dict[str, float] | None:
    """Grade probabilities from (token text, log-probability) pairs; None when too little mass is on grades."""
    mass = dict.fromkeys(grades, 0.0)
    for text, logprob in top:
        grade = spelled(text, grades)
        if grade is not None:
            mass[grade] += math.exp(min(0.0, logprob))
    total = sum(mass.values())
    return {g: p / total for g, p in mass.items()} if total >= LEAST_MASS else None


def spelled(text: str, grades: Sequence[str]) -> str | None:
    """The one grade that a token spells or begins, ignoring case, blanks and quotes; None when unclear."""
    bare = text.strip(_AROUND).lower()
    fits = [grade for grade in grades if bare and grade.lower().startswith(bare)]
    return fits[0] if len(fits) == 1 else None


def _grade_token(tokens: Sequence[Token]) -> Token | None:
    whole = "".join(token.text for token in tokens)
    found = _JSON_GRADE.match(whole) or _BEFORE.match(whole)
    start, end = found.end() if found else 0, 0
    for token in tokens:
        end += len(token.text)
        if end > start:
            return token
    return None
