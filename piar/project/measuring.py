"""A project's judges, measured and corrected: against truth, on live logs, and before a change is merged."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from piar.project.asking import assignment, labeller, teacher_name
from store.errors import PiarError, UsageError

if TYPE_CHECKING:
    from piar.judging.forecast import Receipt
    from piar.judging.outcome import OnProgress
    from piar.llm.cost import Budget
    from piar.measure.calibrate import Calibrating, Choice
    from piar.measure.live_logs import Drift, Live
    from piar.measure.regression_gate import Checked
    from piar.measure.score import Scored
    from piar.project.workspace import Workspace
    from store.decision_rule import RuleName
    from store.judges import Judge
    from store.types import Split


def score(
    project: "Workspace",
    judge: str = "teacher",
    split: "Split" = "test",
    *,
    instruction: str | None = None,
    against: str | None = None,
    budget: "Budget | None" = None,
    on_progress: "OnProgress | None" = None,
) -> "tuple[Scored, Receipt]":
    """Measure a judge against truth, asking first what it has not said yet.

    Args:
        judge: `teacher`, `baseline:NAME` or `student:PATH`.
        split: which rows.
        instruction: what the teacher reads; `instruction.md` when None.
        against: an older instruction's id, or another judge: adds what is gained over it.

    Raises:
        UsageError: an unknown judge or split.
        PiarError: nothing is labelled there.
    """
    from piar.judging.forecast import receipt
    from piar.measure.score import score

    config = {"judge": judge, "split": split, "against": against, "teacher": project.config.teacher.model}
    cached = 0
    detail: dict[str, Any] = {}

    def teach(instruction_id: str | None) -> "Judge":
        nonlocal cached
        taught, known = let_teach(project, f"split = '{split}'", instruction_id, run_id, budget, on_progress)
        cached += known
        return taught

    with project.run("score", config, detail=detail) as run_id:
        began = time.monotonic()
        scored = score(
            project.store,
            judge,
            split,
            teach,
            instruction=instruction,
            against=against,
            simulated=project.config.teacher.simulated,
            embed=project.encoder,
            run_id=run_id,
            on_progress=on_progress,
        )
        detail["latency_ms"] = {name: asdict(taken) for name, taken in scored.latency_ms.items()}
    return scored, receipt(
        project.store, run_id, cached, time.monotonic() - began, priced=project.config.teacher.priced
    )


def let_teach(
    project: "Workspace",
    where: str,
    instruction: str | None,
    run_id: str,
    budget: "Budget | None",
    on_progress: "OnProgress | None",
) -> "tuple[Judge, int]":
    """The teacher with its first votes on the rows of a condition, and how many of them were known."""
    from store.judges import Judge

    with labeller(project, run_id, budget, on_progress) as teacher:
        wanted = assignment(project, where, project.adopt_instruction(instruction), votes=1)
        report = teacher.judge([wanted])
    report.require_all(teacher.judge_name)
    return Judge(teacher.judge_name, wanted.instruction.id), report.cached


def calibrate(
    project: "Workspace",
    judge: str = "teacher",
    strategy: "Choice | None" = None,
    *,
    rule: "RuleName | None" = None,
    instruction: str | None = None,
    budget: "Budget | None" = None,
    on_progress: "OnProgress | None" = None,
) -> "tuple[Calibrating, Receipt]":
    """Correct a judge's probabilities from now on, where dev shows by group that it helps.

    Args:
        judge: `teacher`, `baseline:NAME` or `student:PATH`; what it has not said of dev is asked first.
        strategy: keep this one, helpful or not; see `piar.measure.calibrate.calibrate`.
        rule: the same of a student's decision rule, chosen for `[evolve] metric`.
        instruction: what the teacher reads; `instruction.md` when None.

    Raises:
        PiarError: it gives no probabilities, or its rows with truth are of one group.
    """
    from piar.judging.forecast import receipt
    from piar.measure.calibrate import calibrate, keep
    from piar.measure.score import ready

    began, cached, detail = time.monotonic(), 0, dict[str, Any]()
    asked_for = {"judge": judge, "strategy": strategy, "rule": rule}
    with project.run("calibrate", asked_for, detail=detail) as run_id:

        def teach() -> "Judge":
            nonlocal cached
            taught, cached = let_teach(project, "split = 'dev'", instruction, run_id, budget, on_progress)
            return taught

        asked = ready(project.store, judge, "dev", run_id, teach, project.encoder, on_progress)
        found = calibrate(project.store, asked, strategy, rule=rule, metric=project.config.evolve.metric)
        detail |= keep(project.store, found)
    return found, receipt(project.store, run_id, cached, time.monotonic() - began, priced=project.config.teacher.priced)


def live(
    project: "Workspace",
    judge: str,
    where: str,
    *,
    instruction: str | None = None,
    on_progress: "OnProgress | None" = None,
) -> "Live":
    """How good a judge is on logs: the teacher's labels of many rows, people's of a few drawn at random.

    Nothing is asked of the teacher: rows that it has not judged do not count. A student judges them now.

    Args:
        judge: `teacher` or `student:PATH`.
        where: SQL condition over the columns of `samples` that says which rows are the logs.
        instruction: under which the teacher judged; `instruction.md` when None.
    """
    from piar.judging.students import let_student_judge
    from piar.measure.live_logs import judged, live
    from store.judges import Judge

    read = project.instruction(instruction)
    teacher = Judge(teacher_name(project), read.id)
    kind, _, path = judge.partition(":")
    if judge != "teacher" and (kind != "student" or not path):
        raise UsageError(f"{judge!r} does not run live.", "Choose teacher or student:PATH.")
    detail: dict[str, Any] = {}
    with project.run("live", {"judge": judge, "where": where}, detail=detail) as run_id:
        asked = teacher
        if kind == "student":
            logs = judged(project.store, teacher, teacher, where)
            asked = let_student_judge(project.store, path, logs, run_id, on_progress)
        found = live(project.store, asked, teacher, where)
        detail |= found.detail
    return found


def check(
    project: "Workspace",
    split: "Split" = "dev",
    *,
    max_drop: float = 2.0,
    against: str | None = None,
    budget: "Budget | None" = None,
    on_progress: "OnProgress | None" = None,
) -> "tuple[Checked, Receipt]":
    """Compare the committed `instruction.md` with the one a person last accepted; see
    `piar.measure.regression_gate`.

    Args:
        split: which gold rows.
        max_drop: points that may be lost.
        against: the id of another instruction to compare with.
    """
    from piar.judging.forecast import receipt
    from piar.measure.regression_gate import check, reference_id
    from store.judges import Judge

    where = f"split = '{split}' and sample_id in (select sample_id from truth)"
    with project.run("check", {"split": split, "max_drop": max_drop}) as run_id:
        began = time.monotonic()
        read = project.adopt_instruction()
        earlier = project.instruction(against or reference_id(project.store))
        with labeller(project, run_id, budget, on_progress) as teacher:
            reports = [teacher.judge([assignment(project, where, one, votes=1)]) for one in (read, earlier)]
        for report in reports:
            report.require_all(teacher.judge_name)
        current, reference = (Judge(teacher.judge_name, one.id) for one in (read, earlier))
        checked = check(project.store, current, reference, split, max_drop)
    cached, seconds = sum(report.cached for report in reports), time.monotonic() - began
    return checked, receipt(project.store, run_id, cached, seconds, priced=project.config.teacher.priced)


def drift(project: "Workspace") -> "Drift | None":
    """Whether the teacher's grades of the latest logs have moved; None where `instruction.md` cannot be read."""
    from piar.measure.live_logs import drift
    from store.judges import Judge

    try:
        instruction = project.instruction().id
    except PiarError:
        return None
    return drift(project.store, Judge(teacher_name(project), instruction))
