"""Adaptive votes: one opinion where the judge is sure, three or five where it is not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from store.types import Verdict


@dataclass(frozen=True, slots=True)
class Tally:
    """What all opinions on one sample come to.

    Attributes:
        grade: what most say, None when no vote has a grade.
        confidence: mean probability of that grade over the votes; a vote without probabilities counts as 1 or 0.
        probs: the same mean for every grade, in the task's order.
        told: whether the confidence means anything: several votes, or one with probabilities.
    """

    grade: str | None
    confidence: float = 0.0
    probs: tuple[float, ...] = ()
    told: bool = False


def rounds(votes: int, sure: float | None) -> tuple[range, ...]:
    """Which votes are asked together: all at once, or with `sure` the first, then up to three, five, … of them."""
    if sure is None:
        return (range(votes),)
    ends = [*range(1, votes, 2), votes]
    return tuple(range(start, end) for start, end in zip([0, *ends], ends, strict=False))


def count(verdicts: Sequence[Verdict], symbols: Sequence[str]) -> Tally:
    """Count votes: the grade that most name; a tie goes to the likelier one by their mean, then to the lower.

    Args:
        symbols: the task's grades, ascending.
    """
    graded = [verdict for verdict in verdicts if verdict.grade is not None]
    if not graded:
        return Tally(None)
    mass: Counter[str] = Counter()
    said = Counter(verdict.grade for verdict in graded)
    for verdict in graded:
        if verdict.probs is not None:
            mass.update(dict(zip(symbols, verdict.probs, strict=True)))
        else:
            mass[verdict.grade or ""] += 1
    probs = tuple(round(mass[symbol] / len(graded), 6) for symbol in symbols)
    best = max(range(len(symbols)), key=lambda place: (said[symbols[place]], probs[place]))
    told = len(graded) > 1 or graded[0].probs is not None
    return Tally(symbols[best], probs[best], probs, told)


def sure_enough(verdicts: Sequence[Verdict], symbols: Sequence[str], sure: float) -> bool:
    """Whether no more opinions are needed. One vote without probabilities is never sure."""
    tally = count(verdicts, symbols)
    return tally.told and tally.confidence >= sure
