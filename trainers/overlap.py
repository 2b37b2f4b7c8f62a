"""What two texts have in common letter by letter: shares of words and of runs of three characters."""

import re

CHARACTERS = 2_000  # of a text that are looked at
_WORD = re.compile(r"\w+")

Parts = tuple[frozenset[str], frozenset[str]]  # words, and runs of three characters


def parts(text: str) -> Parts:
    """A text's words and runs of three characters, in lower case."""
    lower = text[:CHARACTERS].lower()
    return frozenset(_WORD.findall(lower)), frozenset(lower[i : i + 3] for i in range(len(lower) - 2))


def overlap(asked: Parts, other: Parts) -> tuple[float, float, float, float]:
    """Of the first's words the share in the other, Jaccard of both, of its runs the share in the other's, and the
    other's length in words (1 from twenty on)."""
    (words, runs), (other_words, other_runs) = asked, other
    return (
        share(words, other_words),
        len(words & other_words) / max(1, len(words | other_words)),
        share(runs, other_runs),
        min(1.0, len(other_words) / 20),
    )


def share(some: frozenset[str], others: frozenset[str]) -> float:
    """The share of the first that is in the second; 0 where there is nothing."""
    return len(some & others) / max(1, len(some))


def compared(first: Parts, second: Parts) -> tuple[float, ...]:
    """`overlap`, and the second's shares in the first: `COMPARED` figures."""
    return *overlap(first, second), share(second[0], first[0]), share(second[1], first[1])


COMPARED = 6
