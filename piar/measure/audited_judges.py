"""Judges as an audit asks them: what each is shown of a question, and the grade that it gives.

A teacher's answers to unaltered samples are its verdicts. All others are kept under keys of their own, with the role
`probe` and without a verdict, so that nothing that reads verdicts ever sees them; nothing is asked or paid for twice.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from piar.judging.agenda import Agenda
from piar.judging.ask_once import ask_once, unanswered
from piar.judging.labeller import Labeller
from piar.judging.outcome import OnProgress, counted, stop_if_hopeless
from piar.judging.requests import Assignment, Questions
from piar.judging.session import Respondent
from piar.judging.students import student_of
from piar.llm.base import Request, template_of
from piar.measure.probes import Question
from store.db import Store
from store.ids import content_id
from store.judges import Judge
from store.trace import parse_trace
from store.types import Completion

if TYPE_CHECKING:
    from trainers.students import AnyStudent

FIRST = "first"  # the question as it is
AGAIN = ("twice", "control")  # the same once more, and once more
Grades = list[str | None]
Parts = Mapping[str, Sequence[Question]]  # `FIRST`, one of `AGAIN` or the name of a probe -> its questions


class Audited(Protocol):
    """A judge that is audited."""

    @property
    def judge(self) -> Judge:
        """Whose verdicts."""

    def shown(self, questions: Sequence[Question]) -> Sequence[Hashable]:
        """What the judge reads of each question: equal where it cannot tell two apart."""

    def grades(self, parts: Parts) -> dict[str, Grades]:
        """The grade of each question of each part, None where no answer could be read."""


class _Asks:
    """The requests behind questions; nothing is asked."""

    def __init__(self, agenda: Agenda, respondent: Respondent) -> None:
        self._respondent, self._mark = respondent, agenda.origin.mark
        self._renderers: dict[tuple[str, ...], Questions] = {}

    def of(self, kind: str, questions: Sequence[Question]) -> list[Request]:
        """One request a question; a repeated one has a key of its own."""
        requests = [self._request(asked) for asked in questions]
        return [replace(r, key=content_id("probe", kind, r.key)) for r in requests] if kind in AGAIN else requests

    def _request(self, asked: Question) -> Request:
        grades = asked.task.symbols
        if grades not in self._renderers:
            self._renderers[grades] = Questions(asked.task, self._respondent, origin=self._mark)
        [ask] = self._renderers[grades].asks(asked.instruction, asked.sample, range(1))
        return ask.request


class TeacherAudited:
    """The teacher, asked in a run.

    Args:
        on_progress: told how far each part is.

    Attributes:
        cached: answers that were known already.
        unpaid: answers that the budget did not reach.
    """

    def __init__(self, labeller: Labeller, instruction: str, on_progress: OnProgress | None = None) -> None:
        self.judge = Judge(labeller.judge_name, instruction)
        self._labeller, self._on_progress, self.cached, self.unpaid = labeller, on_progress, 0, 0
        self._asks = _Asks(labeller.agenda, labeller.session)

    def shown(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """The messages, and where the grades are no part of them, the grades in the order asked for."""
        typed = template_of(self._labeller.session.client) == "decide"
        requests = self._asks.of(FIRST, questions)
        return [(*(m.content for m in request.messages), *(request.grades if typed else ())) for request in requests]

    def grades(self, parts: Parts) -> dict[str, Grades]:
        """As of `Audited`; the first ones are verdicts.

        Raises:
            PiarError: the teacher cannot be asked at all.
        """
        first = {kind: self._verdicts(questions) for kind, questions in parts.items() if kind == FIRST}
        others = {kind: questions for kind, questions in parts.items() if kind != FIRST}
        read = iter(self._read([request for kind, asked in others.items() for request in self._asks.of(kind, asked)]))
        return first | {kind: list(islice(read, len(questions))) for kind, questions in others.items()}

    def _read(self, requests: Sequence[Request]) -> Grades:
        """The grades in answers that are kept without verdicts."""
        session, fresh = self._labeller.session, list[Completion]()
        done = counted(len(requests), self._on_progress) if requests else None

        def keep(completion: Completion) -> None:
            fresh.append(completion)
            if done:
                done(1)

        answers, wanted = dict[str, Completion](), list(requests)
        while wanted:
            # What the budget sets aside for an answer is its most; what that leaves of it pays for others.
            said = ask_once(session, wanted, role="probe", on_completion=keep)
            # What one probe makes too long is no reason to stop.
            stop_if_hopeless([c for c in fresh if c.failure is None or c.failure.kind != "request"])
            answers |= {answer.key: answer for answer in said}
            left = [r for r in wanted if (failed := answers[r.key].failure) and failed.kind == "budget"]
            wanted = left if len(left) < len(wanted) else []
        unpaid = sum(a.failure is not None and a.failure.kind == "budget" for a in answers.values())
        self.unpaid += unpaid
        self.cached += len(answers) - len(fresh) - unpaid
        told = [answers[request.key] for request in requests]
        traces = [parse_trace(a.text or "", session.store.task).trace if not a.failure else None for a in told]
        return [trace.grade if trace else None for trace in traces]

    def _verdicts(self, questions: Sequence[Question]) -> Grades:
        said: dict[str, str | None] = {}
        instruction, samples = questions[0].instruction, [asked.sample for asked in questions]
        report = self._labeller.judge(
            [Assignment(instruction, samples)], lambda verdict: said.update({verdict.sample_id: verdict.grade})
        )
        self._labeller.fold()
        report.require(self.judge.name)
        self.cached += report.cached
        self.unpaid += report.failed["budget"]
        return [said.get(sample.id) for sample in samples]


def would_ask(store: Store, agenda: Agenda, respondent: Respondent, parts: Parts) -> Iterator[Request]:
    """The requests that would be sent for these parts at most: what is known is not among them."""
    asks = _Asks(agenda, respondent)
    for questions in (parts[FIRST],) if parts.get(FIRST) else ():
        yield from agenda.pending([Assignment(questions[0].instruction, [asked.sample for asked in questions])])
    others = [request for kind, asked in parts.items() if kind != FIRST for request in asks.of(kind, asked)]
    yield from unanswered(store, others)


class StudentAudited:
    """A student, whose every answer is computed; nothing is kept."""

    def __init__(self, store: Store, path: str, on_progress: OnProgress | None = None) -> None:
        self.judge = Judge(f"student:{path}")
        self._student: AnyStudent = student_of(store, path)
        self._on_progress = on_progress

    def shown(self, questions: Sequence[Question]) -> list[tuple[int, ...]]:
        """The tokens that it reads."""
        return [tuple(tokens) for tokens in self._student.fitting([asked.sample.fields for asked in questions])]

    def grades(self, parts: Parts) -> dict[str, Grades]:
        """As of `Audited`, by its first token, calibrated as it serves."""
        asked = [question.sample.fields for questions in parts.values() for question in questions]
        said = iter(self._student.score(asked, on_progress=counted(len(asked), self._on_progress)))
        return {kind: [one.grade for one in islice(said, len(questions))] for kind, questions in parts.items()}
