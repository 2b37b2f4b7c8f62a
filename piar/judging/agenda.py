"""What judging samples would ask: every request, less those that are answered. Nothing is sent from here."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice, takewhile

from piar.judging.earlier_verdicts import ANSWERED, Known
from piar.judging.origin import Origin
from piar.judging.requests import Ask, Assignment, Questions
from piar.judging.session import Respondent
from piar.judging.votes import rounds, sure_enough
from piar.llm.base import Request
from piar.llm.cost import Budget
from piar.llm.settings import require_price
from store.calibrated import calibrated_verdicts
from store.db import Store
from store.types import Sample, Verdict


class Ballot:
    """One sample under one instruction: what was said of it so far, and whether more is to be asked."""

    def __init__(self, assignment: Assignment, sample: Sample) -> None:
        self.assignment, self.sample = assignment, sample
        self.rounds = rounds(assignment.votes, assignment.sure)
        self.verdicts: list[Verdict] = []
        self.closed = False

    def wants(self, number: int, symbols: Sequence[str]) -> bool:
        """Whether the votes of this round are to be asked."""
        return not self.closed and number < len(self.rounds) and (number == 0 or not self.sure(symbols))

    def sure(self, symbols: Sequence[str]) -> bool:
        """Whether the votes so far are as sure as was asked for."""
        wanted, calibration = self.assignment.sure, self.assignment.calibration
        if wanted is None:
            return True
        said = calibrated_verdicts(self.verdicts, calibration, symbols) if calibration else self.verdicts
        return sure_enough(said, symbols, wanted)

    def record(self, asks: Sequence[Ask], verdicts: Mapping[str, Verdict]) -> list[Verdict]:
        """Take in a round; an answer that is missing or never came ends the asking."""
        said = [verdicts[ask.request.key] for ask in asks if ask.request.key in verdicts]
        self.closed = len(said) < len(asks) or any(v.grade is None and v.failure not in ANSWERED for v in said)
        self.verdicts += said
        return said


class Agenda:
    """The requests that samples take, round by round; a forecast and a labeller both go by it.

    Args:
        respondent: who would be asked.
        known: what it has said already.
        reuse: from now on, verdicts of the same model name at another endpoint count as answers of this one.
    """

    def __init__(self, store: Store, respondent: Respondent, known: Known, *, reuse: bool = False) -> None:
        self.symbols, self.known, self._chunk = store.task.symbols, known, respondent.label.chunk
        self.origin = Origin(store, respondent.judge, respondent.model)
        if reuse:
            self.origin.adopt()
        if news := self.origin.news():
            warnings.warn(news, stacklevel=3)
        self.questions = Questions(store.task, respondent, origin=self.origin.mark)

    def requests(self, assignments: Sequence[Assignment]) -> Iterator[Request]:
        """Every request of these assignments, known or not, in order."""
        for ballots in self.chunks(assignments):
            for ballot in ballots:
                wanted = ballot.assignment
                for ask in self.questions.asks(wanted.instruction, ballot.sample, range(wanted.votes)):
                    yield ask.request

    def pending(self, assignments: Sequence[Assignment]) -> Iterator[Request]:
        """The requests that would be sent next, in order.

        With adaptive votes: those that do not depend on an answer which is still to come.
        """
        for ballots in self.chunks(assignments):
            for asked in self.rounds(ballots):
                asks = [ask for _, asks in asked for ask in asks]
                known = self.known.find(asks)
                yield from {a.request.key: a.request for a in asks if a.request.key not in known}.values()
                for ballot, own in asked:
                    ballot.record(own, known)

    def chunks(self, assignments: Sequence[Assignment]) -> Iterator[list[Ballot]]:
        """The assignments' ballots, so many as are handed to the client at a time."""
        ballots = (Ballot(assignment, sample) for assignment in assignments for sample in assignment.samples)
        while chunk := list(islice(ballots, self._chunk)):
            self.questions.prepare([ballot.sample for ballot in chunk])
            yield chunk

    def rounds(self, ballots: Sequence[Ballot]) -> Iterator[list[tuple[Ballot, list[Ask]]]]:
        """Round after round, the ballots that want more and what they ask; the caller records what was said."""
        for number in count():
            asked = [
                (b, list(self.questions.asks(b.assignment.instruction, b.sample, b.rounds[number])))
                for b in ballots
                if b.wants(number, self.symbols)
            ]
            if not asked:
                return
            yield asked


def affordable(requests: Iterable[Request], respondent: Respondent, budget: Budget | None) -> Iterator[Request]:
    """Of these requests, in order, those that a budget can hold at their highest cost.

    Raises:
        UsageError: a cap in dollars, and a model without a price.
    """
    cap = budget or Budget()
    require_price(respondent.model, cap)
    return takewhile(lambda request: cap.reserve(respondent.ceiling(request)), requests)
