"""A project's cascade: fitted on dev, kept as one document; the teacher as its second judge in pools and servers."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from piar.project.asking import respondent, teacher_name
from piar.project.measuring import let_teach
from store.cascade import CASCADE, FIT, Cascade, read_cascade
from store.errors import PiarError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piar.judging.forecast import Forecast, Receipt
    from piar.judging.outcome import OnProgress
    from piar.judging.parquet_files import Pool
    from piar.llm.cost import Budget
    from piar.measure.cascade import FittedCascade, Paid
    from piar.project.workspace import Workspace
    from piar.query.status import Stale
    from store.calibration import Calibration
    from store.judges import Judge
    from store.types import Instruction, Sample, Verdict

REMEMBERED = 100_000  # answers of the teacher, beside those in its folder
TRUE_DEV = "split = 'dev' and sample_id in (select sample_id from truth)"


def cascade(
    project: "Workspace",
    tiers: "Sequence[str]",
    precision: float = 0.95,
    *,
    out: Path | None = None,
    instruction: str | None = None,
    budget: "Budget | None" = None,
    on_progress: "OnProgress | None" = None,
    seed: int = 0,
) -> "tuple[FittedCascade, Receipt]":
    """Find from which confidence on each judge may decide, and write it down; see `piar.measure.cascade`.

    What the judges have not said of dev's rows with truth is asked first. A cascade that decides nothing does not
    replace an earlier one of other judges, or of a higher precision, whose judges answer as they did.

    Args:
        tiers: `student:PATH`, `teacher` or `baseline:NAME`, at most two, in the order in which they decide.
        precision: that the rows of each judge must have by the lower bound.
        out: the document; `cascade.json` in the project's folder when None.
        instruction: what the teacher reads; `instruction.md` when None.

    Raises:
        UsageError: no judge, the same one twice, more than two, or an unknown one.
        PiarError: dev has no truth, or a judge said nothing of it.
    """
    from piar.judging.forecast import receipt
    from piar.measure.cascade import SPLIT, fit_cascade, rows_of, said
    from piar.measure.score import ready

    _require(project, tiers)
    rows, known, began = rows_of(project.store), 0, time.monotonic()
    config, detail = {"tiers": list(tiers), "precision": precision}, dict[str, Any]()
    with project.run("cascade", config, seed, detail) as run_id:

        def teach() -> "Judge":
            nonlocal known
            judge, known = let_teach(project, TRUE_DEV, instruction, run_id, budget, on_progress)
            return judge

        judges = [ready(project.store, name, SPLIT, run_id, teach, project.encoder, on_progress) for name in tiers]
        fitted = fit_cascade(
            rows,
            [(judge, said(project.store, judge, rows, seed=seed)) for judge in judges],
            precision,
            project.task.symbols,
            prints={judge.name: _fingerprint(project, judge) for judge in judges},
            took={judge.name: _paid(project, judge, on_progress) for judge in judges},
            seed=seed,
        )
        detail["cascade"] = fitted.cascade.model_dump(mode="json")
        path = out or project.folder / CASCADE
        if earlier := _still_good(project, path, fitted.cascade):
            fitted = fitted.model_copy(update={"instead": earlier})
        else:
            fitted.cascade.save(path)
    spent = receipt(project.store, run_id, known, time.monotonic() - began, priced=project.config.teacher.priced)
    return fitted, spent


def _still_good(project: "Workspace", path: Path, new: Cascade) -> Cascade | None:
    """The cascade that is kept at a path, where one that decides nothing has no reason to replace it."""
    if new.certified or not path.is_file():
        return None
    try:
        earlier = read_cascade(path)
    except UsageError:
        return None
    judges = [[tier.judge for tier in found.tiers] for found in (earlier, new)]
    overruled = judges[0] == judges[1] and new.target <= earlier.target
    return earlier if earlier.certified and not overruled and not _changed(project, earlier) else None


def stale_cascade(project: "Workspace") -> "Stale | None":
    """That the project's cascade rests on answers that its judges no longer give, by what is known without asking them.

    A prompt or a parameter of the teacher that has changed is not seen here; whoever uses the cascade refuses it.
    """
    from piar.query.status import Stale

    path = project.folder / CASCADE
    if not path.is_file():
        return None
    try:
        found = read_cascade(path)
    except UsageError as error:
        return Stale("the cascade", error.message, "piar cascade --tiers student:PATH,teacher")
    if not (why := _changed(project, found)):
        return None
    return Stale("the cascade", f"{path.name} is of {found.made[:10]}, and {why}", found.again())


def _changed(project: "Workspace", found: Cascade) -> str:
    """What of its judges is not as it was; "" where that is not known of any."""
    from store.calibrated import calibrated_since, student_folder
    from store.judges import Judge
    from trainers.checkpoint import fingerprint

    for tier in found.tiers:
        if tier.name == "student":
            try:
                now = fingerprint(student_folder(project.store, tier.judge.partition(":")[2]))
            except PiarError:
                return f"{tier.judge} is gone"
            if now != tier.fingerprint:
                return f"weights, calibration or decision rule of {tier.judge} have changed since"
        if tier.name == "teacher" and tier.threshold is not None:
            if tier.judge != teacher_name(project):
                return f"the teacher is {teacher_name(project)} now, no longer {tier.judge}"
            if tier.instruction != project.instruction().id:
                return "the instruction has changed since"
            if calibrated_since(project.store, Judge(tier.judge, tier.instruction), found.made):
                return "the teacher has been calibrated anew"
    return ""


def forecast_cascade(project: "Workspace", tiers: "Sequence[str]", *, instruction: str | None = None) -> "Forecast":
    """What `cascade` would ask of the teacher, and what that would cost; nothing is asked."""
    from piar.project.labelling import forecast_label

    _require(project, tiers)
    where = TRUE_DEV if "teacher" in tiers else "false"
    return forecast_label(project, where, instruction=instruction, votes=1)


def _require(project: "Workspace", tiers: "Sequence[str]") -> None:
    """Make sure that these can be judges of a cascade, before anybody is asked."""
    from piar.measure.score import JUDGES
    from store.calibrated import student_folder

    if not 1 <= len(tiers) <= 2:
        raise UsageError(
            f"A cascade has one or two judges before people, not {len(tiers)}.", "Pass --tiers student:PATH,teacher."
        )
    if len(set(tiers)) < len(tiers):
        raise UsageError(
            f"{tiers[0]} stands twice: after itself it has nothing left to decide.", "Name two judges, or one."
        )
    for name in tiers:
        kind, _, path = name.partition(":")
        if kind not in JUDGES:
            raise UsageError(
                f"There is no judge {name!r}.",
                "Choose teacher, baseline:NAME or student:PATH; what none decides is for people.",
            )
        if kind == "student":
            from trainers.checkpoint import read_card

            read_card(student_folder(project.store, path))


def _fingerprint(project: "Workspace", judge: "Judge") -> str:
    from store.calibrated import kept, student_folder

    kind, _, path = judge.name.partition(":")
    if kind == "student":
        from trainers.checkpoint import fingerprint

        return fingerprint(student_folder(project.store, path))
    if kind == "teacher":
        return _teachers(project, project.instruction(judge.instruction), kept(project.store, judge))
    return ""


def _teachers(project: "Workspace", instruction: "Instruction", calibration: "Calibration | None") -> str:
    from piar.judging.requests import Questions
    from store.ids import short_hash

    asked = Questions(project.task, respondent(project)).digest(instruction)
    return short_hash([teacher_name(project), asked, calibration and calibration.model_dump(mode="json")], 32)


def _paid(project: "Workspace", judge: "Judge", on_progress: "OnProgress | None") -> "Paid":
    from piar.measure.cascade import SPLIT, Paid, paid
    from piar.measure.score import latency_of

    if judge.name.startswith("teacher:"):
        return paid(project.store, judge, priced=project.config.teacher.priced)
    taken = latency_of(project.store, judge.name, SPLIT, on_progress)
    return Paid(cost_usd=0.0, seconds=taken["first_token"].p50 / 1000 if taken else None)


class SecondJudge:
    """The teacher of a cascade, as pools and servers ask it: one vote, calibrated, each answer kept when it arrives.

    Args:
        pool: how it is asked.

    Attributes:
        report: what was asked so far.
    """

    def __init__(self, pool: "Pool") -> None:
        from piar.judging.parquet_files import PoolReport

        self.pool = pool
        self.report: PoolReport = PoolReport(priced=pool.respondent.model.priced)
        self._known: dict[str, Verdict] = {}
        self._ended, self._under_way = threading.Event(), threading.Lock()

    def __call__(self, samples: "list[Sample]", work: Path) -> "list[Verdict]":
        """What it says of samples, in their order.

        Args:
            work: the folder that keeps its answers; those that are there are not asked or paid for again.

        Raises:
            PiarError: it cannot be asked at all, or any more.
        """
        from piar.llm.interrupts import ended_by

        known = {sample.id: self._known[sample.id] for sample in samples if sample.id in self._known}
        if news := list({sample.id: sample for sample in samples if sample.id not in known}.values()):
            try:
                with self._under_way, ended_by(self._ended.is_set):
                    said = self.pool.ask(news, work, self.report, run_id=f"cascade-{uuid4().hex[:12]}")
            except KeyboardInterrupt:
                if not self._ended.is_set():
                    raise
                raise PiarError("The teacher is not asked any more.") from None
            known |= {sample.id: votes[0] for sample, votes in zip(news, said, strict=True)}
            if len(self._known) > REMEMBERED:
                self._known.clear()
            self._known |= {key: verdict for key, verdict in known.items() if verdict.grade is not None}
        return [known[sample.id] for sample in samples]

    def end(self) -> None:
        """Ask nothing more: what another thread has under way is given up, and over when this returns."""
        self._ended.set()
        with self._under_way:
            pass


def open_cascade(
    project: "Workspace", path: Path, student: Path, *, budget: "Budget | None" = None
) -> "tuple[Cascade, SecondJudge | None]":
    """A cascade whose judges are those that were fitted, and the second of them, where there is one.

    Args:
        path: of the document.
        student: the folder of the student that judges first.

    Raises:
        UsageError: no such document, or its first judge is no student.
        PiarError: a judge has changed since.
    """
    from piar.project.labelling import pool_of
    from trainers.checkpoint import fingerprint

    found = read_cascade(path)
    if not found.runs:
        raise UsageError(
            f"{path} is a cascade of {' and '.join(tier.judge for tier in found.tiers)}: only a student runs here, "
            "alone or with the teacher after it.",
            FIT,
        )
    found.require(0, fingerprint(student), f"student:{student}")
    if found.second is None:
        return found, None
    pool = pool_of(project, project.instruction(), 1, None, budget)
    found.require(1, _teachers(project, pool.instruction, pool.calibration), teacher_name(project))
    return found, SecondJudge(pool)


def forecast_handed_on(
    project: "Workspace", found: Cascade, second: SecondJudge, files: "Sequence[Path]"
) -> "Forecast":
    """About what the teacher would be asked of these pools: as large a share as the first judge hands on of dev."""
    from itertools import chain

    from piar.judging.forecast import forecast, scaled

    requests = chain.from_iterable(second.pool.requests(path, 1) for path in files)
    all_rows = forecast(project.store, second.pool.respondent, requests, second.pool.instruction.id)
    share = 1 - (found.tiers[0].share.value or 0.0)
    return scaled(all_rows, round(share * all_rows.asked))
