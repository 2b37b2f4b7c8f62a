"""Pools that never enter the store: Parquet in, Parquet out, rows in order, memory bounded.

A file is judged in slices (`judged_file`); one whose output is there is skipped. Each slice of a teacher has a small
store of its own in a work folder beside the output, so that an answer is durable when it arrives: a run that was cut
short goes on at the slice it was in, asking only what it does not have. A student judges a file that was cut short
again. Files are dealt to processes by number, one process a device.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from piar.judging.judged_file import TIER, Slice, judge_file, samples_of
from piar.judging.labeller import Labeller
from piar.judging.outcome import MORE, LabelReport, OnProgress, Progress, counted
from piar.judging.requests import Assignment, Questions
from piar.judging.session import Respondent
from piar.judging.students import student_verdicts
from piar.judging.votes import rounds
from piar.llm.base import Request
from piar.llm.cost import Budget
from store.calibrated import calibrated_verdicts
from store.calibration import Calibration
from store.cascade import PEOPLE, Cascade
from store.db import Store
from store.errors import PiarError, UsageError
from store.ids import short_hash
from store.journal import Journal
from store.task import Task
from store.turns import alone
from store.types import Instruction, Sample, Usage, Verdict

if TYPE_CHECKING:
    from trainers.students import AnyStudent

SLICE_ROWS = 20_000
AskSecond = Callable[[list[Sample], Path], list[Verdict]]  # with the folder that keeps what it answered


@dataclass
class PoolReport:
    """What judging pools did.

    Attributes:
        rows: rows judged, of whole files.
        cached: verdicts that an earlier run of the same command had paid for.
        labelled: rows that have a grade.
        failed: class of failure -> requests.
        reason: why the last request that failed did.
        priced: whether a price is set; without one, `cost_usd` is 0 and means nothing.
        tiers: of a cascade, who decided -> rows.
        handed_on: why rows are left for people -> how many.
    """

    files: int = 0
    skipped: int = 0
    rows: int = 0
    asked: int = 0
    cached: int = 0
    labelled: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    reason: str = ""
    priced: bool = True
    tiers: Counter[str] = field(default_factory=Counter)
    handed_on: Counter[str] = field(default_factory=Counter)

    @property
    def hopeless(self) -> bool:
        """Whether something was asked and no row has a grade."""
        return self.asked > 0 and not self.labelled

    def count(self, judged: tuple[int, int] | None) -> None:
        """Count a file: its rows and those with a grade; None for one that was skipped."""
        rows, labelled = judged or (0, 0)
        self.files, self.skipped = self.files + 1, self.skipped + (judged is None)
        self.rows, self.labelled = self.rows + rows, self.labelled + labelled

    def add(self, done: LabelReport) -> None:
        """Count what a slice was asked."""
        self.reason = done.reason or self.reason
        self.failed.update(done.failed)
        for name in ("asked", "cached", "cost_usd", "tokens_in", "tokens_cached", "tokens_out"):
            setattr(self, name, getattr(self, name) + getattr(done, name))

    def with_slice(self, now: Progress, rows_after: int, votes: int) -> Progress:
        """How far all is when the present slice is as far as `now`, with this many rows after it."""
        usage, done = now.usage, self.asked + self.cached
        return Progress(
            done + now.done,
            None if now.total is None else done + now.total + rows_after * votes,
            self.cost_usd + now.cost_usd,
            self.failed + Counter(now.failed),
            self.asked + now.asked,
            Usage(self.tokens_in + usage.prompt, self.tokens_cached + usage.cached, self.tokens_out + usage.completion),
        )


@dataclass(frozen=True)
class Pool:
    """How to judge the rows of Parquet files.

    Attributes:
        slice_rows: rows judged, and held in memory, at a time.
        calibration: of the teacher under the instruction, where it has one.
    """

    task: Task
    respondent: Respondent
    instruction: Instruction
    budget: Budget | None = None
    slice_rows: int = SLICE_ROWS
    calibration: Calibration | None = None

    def label(self, source: Path, target: Path, on_progress: OnProgress = lambda progress: None) -> PoolReport:
        """Judge every row of a file; the output has its columns and those of `OUTPUT`.

        Raises:
            UsageError: no Parquet file, or one that lacks a field of the task.
            PiarError: the judge cannot be asked at all, or the budget is spent; what is paid for is kept.
        """
        report, work = PoolReport(priced=self.respondent.model.priced), target.with_name(f"{target.name}.work")
        first_votes = len(rounds(self.respondent.label.votes, self.respondent.label.sure)[0])

        def judge(now: Slice) -> list[list[Verdict]]:
            def show(state: Progress) -> None:
                on_progress(report.with_slice(state, now.rows_after, first_votes))

            said = self.ask(now.samples, work / f"{now.number:05}", report, show)
            if not now.rows_after and report.failed["budget"]:
                raise PiarError(
                    f"The budget is spent: {report.failed['budget']:,} rows of {source.name} were not asked.",
                    MORE,
                )
            return said

        with alone(work / "pool.lock", "piar label"):
            report.count(judge_file(source, target, self.task, judge, self.slice_rows, self._mark()))
            shutil.rmtree(work, ignore_errors=True)
        return report

    def _mark(self) -> str:
        """A hash of all that shapes this judge's grades, but the labelled samples that it is shown."""
        label, calibration = self.respondent.label, self.calibration and self.calibration.model_dump(mode="json")
        asked = Questions(self.task, self.respondent).digest(self.instruction)
        return short_hash([self.respondent.judge, asked, label.votes, label.sure, calibration], 32)

    def requests(self, source: Path, votes: int) -> Iterator[Request]:
        """What the first so many votes on every row would ask; nothing is asked.

        Raises:
            UsageError: as `label`.
        """
        questions = Questions(self.task, self.respondent)
        for samples in samples_of(source, self.task, self.slice_rows):
            questions.prepare(samples)
            for sample in samples:
                yield from (ask.request for ask in questions.asks(self.instruction, sample, range(votes)))

    def ask(
        self,
        samples: list[Sample],
        work: Path,
        report: PoolReport,
        show: OnProgress = lambda progress: None,
        run_id: str = "pool",
    ) -> list[list[Verdict]]:
        """The votes on each sample, calibrated; what the store and journal in `work` hold is not asked again.

        Args:
            run_id: answers that were paid for under the same one count against the budget again.

        Raises:
            PiarError: the judge cannot be asked at all.
        """
        said: dict[str, dict[int, Verdict]] = {sample.id: {} for sample in samples}
        work.mkdir(parents=True, exist_ok=True)
        journal = Journal(work / "journal")
        store = Store.create(work / "piar.duckdb", self.task)
        label = self.respondent.label
        with Labeller(self.respondent.session(store, journal, run_id, self.budget, show)) as labeller:
            wanted = Assignment(self.instruction, samples, label.votes, label.sure, self.calibration)
            done = labeller.judge([wanted], lambda verdict: said[verdict.sample_id].update({verdict.vote: verdict}))
        journal.close()
        report.add(done)
        return self._calibrated([list(said[sample.id].values()) for sample in samples])

    def _calibrated(self, votes: list[list[Verdict]]) -> list[list[Verdict]]:
        if self.calibration is None:
            return votes
        flat = [verdict for said in votes for verdict in said]
        found = iter(calibrated_verdicts(flat, self.calibration, self.task.symbols))
        return [[next(found) for _ in said] for said in votes]


def score_files(
    student: "AnyStudent",
    files: Sequence[Path],
    out: Path,
    *,
    name: str,
    fingerprint: str = "",
    trace: bool = False,
    shard: tuple[int, int] = (0, 1),
    slice_rows: int = SLICE_ROWS,
    cascade: tuple[Cascade, AskSecond | None] | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> PoolReport:
    """Let a student judge every row of Parquet files; each gets a file of the same name in `out`.

    In a cascade the second judge is asked about rows that the student is not sure of; a row of which neither is sure
    gets no grade. A second judge that is down leaves a slice's rows to people.

    Args:
        name: of the judge, `student:PATH`.
        fingerprint: of its folder (`trainers.checkpoint`), by which its grades are known again.
        trace: also write the answer that follows the grade.
        shard: (i, n): every n-th file from the i-th on, in the order of their names.
        cascade: by which rows are decided, and its second judge.
        on_progress: told how far a file is.

    Raises:
        UsageError: two files of one name, no such share, or a file that does not fit the student's task.
        PiarError: the budget is spent; what is paid for is kept. Or there are grades of another judge or file.
    """
    ordered, (part, parts) = by_name(files), shard
    if not 0 <= part < parts:
        raise UsageError(f"There is no share {part}/{parts}.", f"Count from 0/{parts} to {parts - 1}/{parts}.")

    def judge(work: Path, now: Slice) -> list[list[Verdict]]:
        before = now.number * slice_rows
        tell = counted(before + len(now.samples) + now.rows_after, on_progress, before)
        said = student_verdicts(student, name, now.samples, trace=trace, on_progress=tell)
        report.asked += len(said)
        if cascade is not None:
            said = _closed(*cascade, student.task, now.samples, said, work / f"{now.number:05}", report)
        return [[verdict] for verdict in said]

    report, closed = PoolReport(), cascade and cascade[0].model_dump(mode="json")
    mark = short_hash([fingerprint, trace, closed], 32)
    on_progress(Progress(0, None))
    for source in ordered[part::parts]:
        work, more = out / f"{source.name}.work", () if cascade is None else (TIER,)
        target, here = out / source.name, partial(judge, work)
        report.count(judge_file(source, target, student.task, here, slice_rows, mark, more))
        shutil.rmtree(work, ignore_errors=True)
    return report


def by_name(files: Sequence[Path]) -> list[Path]:
    """Files in the order of their paths.

    Raises:
        UsageError: two have the same name, and would have the same output.
    """
    twice = [name for name, n in Counter(path.name for path in files).items() if n > 1]
    if twice:
        raise UsageError(f"Two files are called {twice[0]}.", "Score their folders apart, each with its own -o.")
    return sorted(files)


def _closed(
    cascade: Cascade,
    ask: AskSecond | None,
    task: Task,
    samples: list[Sample],
    firsts: list[Verdict],
    work: Path,
    report: PoolReport,
) -> list[Verdict]:
    """Who decides each row of a slice; see `store.cascade`."""
    handed = cascade.handed_on(firsts, task.symbols)
    seconds: Sequence[Verdict] | str = ""
    if handed and ask is not None:
        try:
            seconds = ask([samples[place] for place in handed], work)
        except PiarError as error:
            seconds = f"{cascade.tiers[1].name}: {error.message}"
        if spent := sum(verdict.failure == "budget" for verdict in seconds if not isinstance(verdict, str)):
            raise PiarError(
                f"The budget is spent: {spent:,} rows that the student handed on were not asked.",
                MORE,
            )
    said = cascade.closed(firsts, handed, seconds, task.symbols)
    report.tiers.update(verdict.judge.partition(":")[0] for verdict in said)
    report.handed_on.update(verdict.failure for verdict in said if verdict.judge == PEOPLE and verdict.failure)
    return said
