"""The one way to judge samples: render, ask what is not known yet, parse, record.

Evaluating a candidate instruction and labelling the store or a pool all pass through here. A request's key is a hash
of everything that shapes the answer, so nothing is paid for twice: adding a sample asks one request, changing the
instruction asks that version only. Each answer is in the journal before it counts; folding into the store can wait.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from types import TracebackType

from piar.judging.agenda import Agenda, Ballot
from piar.judging.earlier_verdicts import Known
from piar.judging.one_grade import OneGrade
from piar.judging.outcome import LabelReport, Progress, stop_if_hopeless
from piar.judging.requests import Ask, Assignment
from piar.judging.session import Session
from piar.judging.votes import rounds
from piar.llm.cost import Hold
from piar.llm.interrupts import patient
from store.ids import short_hash
from store.turns import Turn
from store.types import Completion, Usage, Verdict

OnVerdict = Callable[[Verdict], None]


class Labeller:
    """Judges samples for one run, remembering what is known. Use it as a context manager.

    A verdict recorded earlier under the same `run_id` is charged to the budget again, so that a run
    resumed after a crash decides exactly as an uninterrupted one.

    Args:
        session: who is asked, in which run.
        reuse: from now on, verdicts of the same model name at another endpoint count as answers of this one.
        watch: notices one grade for everything, which is told as a warning.
    """

    def __init__(self, session: Session, *, reuse: bool = False, watch: OneGrade | None = None) -> None:
        self.session, self.judge_name = session, session.judge
        self.store, self.budget = session.store, session.budget
        self._shown_at, self._watch = time.monotonic(), watch
        self._total: int | None = None
        self._failed: Counter[str] = Counter()
        # Others who ask the same judge for the same project take turns, chunk by chunk. What they ask from here on is
        # noticed, so what is known is read afterwards.
        name = f"asking-{short_hash(self.judge_name, 12)}.lock"
        self._turn = Turn(session.journal.folder / name, f"piar {session.run_id.partition('-')[0]}")
        session.journal.fold(session.store)
        self._known = Known(session.store, self.judge_name, run_id=session.run_id)
        self.agenda = Agenda(session.store, session, self._known, reuse=reuse)

    def __enter__(self) -> "Labeller":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.fold()

    def fold(self) -> None:
        """Bring everything that is in the journal into the store."""
        self._known.fold(self.session.journal)

    def judge(
        self,
        assignments: Sequence[Assignment],
        on_verdict: OnVerdict | None = None,
        *,
        only: Container[str] | None = None,
    ) -> LabelReport:
        """Judge every sample of every assignment; known verdicts are not asked again.

        Args:
            assignments: candidates of one round go in together, so that they are asked together.
            on_verdict: receives every verdict, known or new, in the order asked.
            only: keys of the requests that the client can answer; others that are not known are passed over.

        Raises:
            KeyboardInterrupt: after what was in flight has arrived and is kept.
            PiarError: a whole chunk failed in a way that the rest would, too.
        """
        self.agenda.origin.note()
        if self._watch:
            self._watch.begin(assignment.instruction.id for assignment in assignments)
        report, started = LabelReport(), time.monotonic()
        self._total, self._failed = _total(assignments), Counter()
        self._show(report, force=True)  # the clock of whoever shows it starts with the work, not before
        with patient() as interrupted:
            for ballots in self.agenda.chunks(assignments):
                try:
                    for verdict in self._judge_chunk(ballots, report, only):
                        report.count(verdict)
                        if on_verdict:
                            on_verdict(verdict)
                finally:
                    self._turn.release()
                self._show(report, force=True)
                if interrupted() or self.session.journal.due:
                    self.fold()
                if interrupted():
                    raise KeyboardInterrupt
        report.seconds = time.monotonic() - started
        return report

    # -- one chunk --------------------------------------------------------------------------

    def _judge_chunk(
        self, ballots: Sequence[Ballot], report: LabelReport, only: Container[str] | None
    ) -> Iterator[Verdict]:
        for number, asked in enumerate(self.agenda.rounds(ballots)):
            if number and self._total is not None:
                self._total += sum(len(asks) for _, asks in asked)
            verdicts = self._answers([ask for _, asks in asked for ask in asks], report, only)
            for ballot, asks in asked:
                yield from ballot.record(asks, verdicts)
        report.unsure += sum(not ballot.sure(self.agenda.symbols) for ballot in ballots)

    def _answers(self, asks: Sequence[Ask], report: LabelReport, only: Container[str] | None) -> dict[str, Verdict]:
        """Verdicts by key: known ones, then what the budget allows to ask, then those it does not."""
        known = self._known.find(asks)
        if any(ask.request.key not in known for ask in asks) and self._another_asked():
            self._known.catch_up(self.session.journal)
            known = self._known.find(asks)
        report.cached += len(known)
        for ask in asks:
            if ask.request.key in known:
                self._notice(known[ask.request.key], ask)
        for key in known:
            paid = self._known.charge(key)
            if paid.calls:
                self.budget.reserve(paid)
                self.budget.settle(paid, paid)
        open_asks = {a.request.key: a for a in asks if a.request.key not in known}
        wanted = [ask for key, ask in open_asks.items() if only is None or key in only]
        while wanted and (holds := self._reserve(wanted)):
            known.update(self._ask(wanted[: len(holds)], holds, report))
            wanted = wanted[len(holds) :]
        known.update((a.request.key, self._unasked(a)) for a in wanted)
        return known

    def _notice(self, verdict: Verdict, ask: Ask) -> None:
        if self._watch and (words := self._watch.see(verdict, ask.group)):
            warnings.warn(words, stacklevel=2)

    def _another_asked(self) -> bool:
        """Wait for our turn to ask; whether another process may have asked the same meanwhile."""
        with patient() as interrupted:
            return self._turn.take(interrupted)

    def _ask(self, asks: Sequence[Ask], holds: Sequence[Hold], report: LabelReport) -> dict[str, Verdict]:
        """Send requests whose first attempt is reserved; each answer is in the journal before it counts."""
        by_key = {a.request.key: a for a in asks}
        verdicts: dict[str, Verdict] = {}

        def keep(completion: Completion) -> None:
            verdict = self.agenda.questions.verdict(completion, by_key[completion.key], self.judge_name)
            self.session.journal.append("teacher", self.session.run_id, completion, verdict)
            self._known.add(verdict)
            verdicts[completion.key] = verdict
            report.add(completion)
            if verdict.grade is None:
                self._failed[verdict.failure or "malformed"] += 1
            self._notice(verdict, by_key[completion.key])
            self._show(report)

        requests = [replace(ask.request, hold=hold) for ask, hold in zip(asks, holds, strict=True)]
        with self.session.journal.room():
            completions = self.session.client.generate(requests, keep)
        for hold, completion in zip(holds, completions, strict=True):
            hold.settle(completion)
        stop_if_hopeless(completions)
        return verdicts | {c.key: self._unasked(by_key[c.key]) for c in completions if c.key not in verdicts}

    # -- budget -----------------------------------------------------------------------------

    def _reserve(self, asks: Sequence[Ask]) -> list[Hold]:
        """What is set aside for these requests, in order, as far as the budget reaches."""
        holds = (self.budget.hold(self.session.ceiling(ask.request)) for ask in asks)
        return [hold for hold in takewhile(lambda hold: hold is not None, holds) if hold is not None]

    def _unasked(self, ask: Ask) -> Verdict:
        return Verdict(
            ask.request.key, ask.sample_id, self.judge_name, ask.instruction, ask.vote, None, failure="budget"
        )

    # -- pace -------------------------------------------------------------------------------

    def _show(self, report: LabelReport, *, force: bool = False) -> None:
        moment = time.monotonic()
        if self.session.on_progress and (force or moment - self._shown_at > 0.2):
            self._shown_at = moment
            usage = Usage(report.tokens_in, report.tokens_cached, report.tokens_out)
            done = report.asked + report.cached
            self.session.on_progress(
                Progress(done, self._total, report.cost_usd, dict(self._failed), report.asked, usage)
            )


def _total(assignments: Sequence[Assignment]) -> int | None:
    """Verdicts that are asked at least."""
    sizes = [len(b.samples) * len(rounds(b.votes, b.sure)[0]) for b in assignments if isinstance(b.samples, Sequence)]
    return sum(sizes) if len(sizes) == len(assignments) else None
