"""Adaptive votes: one opinion where the judge is sure, three or five where it is not.

The order of rules is not permuted between votes: here the first rule that fits decides, so another order
would be another policy.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from piar.label import Batch, Labeller
from store.types import Instruction, Sample, Verdict

STEPS = (1, 3, 5)
SURE = 0.9


@dataclass(frozen=True, slots=True)
class Ballot:
    """All opinions on one sample.

    Attributes:
        grade: what most say, None when no vote has a grade.
        confidence: mean probability of that grade over the votes; a vote without probabilities counts as 1 or 0.
        votes: opinions asked.
    """

    sample_id: str
    grade: str | None
    confidence: float
    votes: int


def vote(
    labeller: Labeller,
    instruction: Instruction,
    samples: Sequence[Sample],
    *,
    steps: Sequence[int] = STEPS,
    sure: float = SURE,
) -> list[Ballot]:
    """Ask each sample until the judge is sure, at most `steps[-1]` times.

    Args:
        steps: votes a sample has after each round of asking, ascending.
        sure: confidence from which on no more is asked. One vote without probabilities is never sure.

    Returns:
        one ballot per sample, in order.
    """
    verdicts: dict[str, list[Verdict]] = {sample.id: [] for sample in samples}
    ballots: dict[str, Ballot] = {}
    symbols, asked, open_samples = labeller.store.task.symbols, 0, list(samples)
    for step in steps:
        batch = Batch(instruction, open_samples, votes=step - asked, first_vote=asked)
        labeller.judge([batch], lambda verdict: verdicts[verdict.sample_id].append(verdict))
        asked = step
        for sample in open_samples:
            ballots[sample.id] = count(sample.id, verdicts[sample.id], symbols)
        open_samples = [s for s in open_samples if not _settled(ballots[s.id], verdicts[s.id], sure)]
        if not open_samples:
            break
    return [ballots[sample.id] for sample in samples]


def count(sample_id: str, verdicts: Sequence[Verdict], symbols: Sequence[str]) -> Ballot:
    """Count votes: probabilities are averaged; a tie goes to the lower grade."""
    mass: Counter[str] = Counter()
    graded = [verdict for verdict in verdicts if verdict.grade is not None]
    for verdict in graded:
        if verdict.probs is not None:
            mass.update(dict(zip(symbols, verdict.probs, strict=True)))
        else:
            mass[verdict.grade or ""] += 1
    if not graded:
        return Ballot(sample_id, None, 0.0, len(verdicts))
    best = max(symbols, key=lambda symbol: mass[symbol])
    return Ballot(sample_id, best, round(mass[best] / len(graded), 6), len(verdicts))


def _settled(ballot: Ballot, verdicts: Sequence[Verdict], sure: float) -> bool:
    graded = [verdict for verdict in verdicts if verdict.grade is not None]
    told = len(graded) > 1 or any(verdict.probs is not None for verdict in graded)
    return told and ballot.confidence >= sure
