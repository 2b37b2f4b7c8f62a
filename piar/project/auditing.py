"""A project's judges, audited: what would be asked and found, and what was."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from piar.project.asking import agenda, assignment, labeller, respondent, teacher_name
from store.errors import PiarError, UsageError

if TYPE_CHECKING:
    from piar.judging.forecast import Forecast, Receipt
    from piar.judging.outcome import OnProgress
    from piar.llm.base import Client
    from piar.llm.cost import Budget
    from piar.measure.audit import Audit
    from piar.measure.audit_plan import Plan
    from piar.measure.probes import Probe, Question
    from piar.project.workspace import Workspace
    from store.types import Instruction

WHERE = "split in ('dev', 'pool')"


def audit(
    project: "Workspace",
    judge: str = "teacher",
    where: str = WHERE,
    *,
    probes: Sequence[str] | None = None,
    rows: int | None = None,
    detect: float = 0.1,
    control: bool = True,
    instruction: str | None = None,
    budget: "Budget | None" = None,
    client: "Client | None" = None,
    on_progress: "OnProgress | None" = None,
) -> "tuple[Audit, Receipt]":
    """Ask a judge the same with what should not matter changed; see `piar.measure.audit`. Needs no truth.

    Args:
        judge: `teacher` or `student:PATH`.
        where: SQL condition over the columns of `samples` that says which rows may be drawn.
        probes: names of `piar.measure.probes.PROBES`; all when None.
        rows: how many; as many as an effect of `detect` needs when None.
        detect: the effect to be found, a share of the rows; planted as a control.
        control: ask all rows a third time, and plant that effect.
        instruction: what the teacher reads; `instruction.md` when None.
        budget: hard cap on calls and dollars; rows that it does not reach are left out.
        client: stands in for the teacher's model.

    Raises:
        UsageError: an unknown judge or probe, a wrong condition, or a share outside 0 … 1.
        PiarError: there is no such row, the teacher cannot be asked at all, or the budget reached no probe.
    """
    from pydantic import TypeAdapter

    from piar.judging.forecast import receipt
    from piar.measure.audit import Audit
    from piar.measure.audit import audit as ask
    from piar.measure.audit_plan import VERB
    from piar.measure.audited_judges import StudentAudited, TeacherAudited

    began, read = time.monotonic(), project.adopt_instruction(instruction)
    questions, wanted, planned = _planned(project, judge, where, probes, rows, detect, read)
    detail: dict[str, Any] = {}
    with project.run(VERB, {"judge": judge, "where": where, "rows": planned.rows}, detail=detail) as run_id:
        if judge == "teacher":
            with labeller(project, run_id, budget, on_progress, client) as teacher:
                asked = TeacherAudited(teacher, read.id, on_progress)
                found, cached = ask(asked, questions, wanted, planned, control=control), asked.cached
                found = _paid_for(found, asked.unpaid)
        else:
            student = StudentAudited(project.store, judge.partition(":")[2], on_progress)
            found, cached = ask(student, questions, wanted, planned, control=control), 0
        detail |= TypeAdapter(Audit).dump_python(found, mode="json")
    seconds = time.monotonic() - began
    return found, receipt(project.store, run_id, cached, seconds, priced=project.config.teacher.priced)


def _paid_for(found: "Audit", unpaid: int) -> "Audit":
    """What was found, with the answers that the budget did not reach.

    Raises:
        PiarError: they leave no probe to tell of.
    """
    from piar.judging.outcome import MORE
    from piar.measure.audit import UNREADABLE

    if unpaid and not found.probes:
        raise PiarError(f"The budget is spent: {unpaid:,} answers were not asked for, and no probe has any.", MORE)
    spent = "the budget was spent before it" if unpaid else UNREADABLE
    left_out = {name: spent if why == UNREADABLE else why for name, why in found.left_out.items()}
    return replace(found, unpaid=unpaid, left_out=left_out)


def forecast_audit(
    project: "Workspace",
    judge: str = "teacher",
    where: str = WHERE,
    *,
    probes: Sequence[str] | None = None,
    rows: int | None = None,
    detect: float = 0.1,
    control: bool = True,
    instruction: str | None = None,
) -> "tuple[Plan, Forecast]":
    """What `audit` with the same arguments could find, and what it would ask at most; nothing is asked or noted."""
    from piar.judging.forecast import Forecast, forecast
    from piar.measure.audit import parts
    from piar.measure.audited_judges import would_ask

    read = project.instruction(instruction)
    questions, wanted, planned = _planned(project, judge, where, probes, rows, detect, read)
    kinds = parts(questions, wanted, control=control)
    if judge != "teacher":
        passes, basis = sum(map(len, kinds.values())), "a student writes nothing here"
        return planned, Forecast(judge, None, project.task.fields, passes, 0, 0, 0.0, basis)
    asked = respondent(project)
    return planned, forecast(
        project.store, asked, would_ask(project.store, agenda(project, asked), asked, kinds), read.id
    )


def _planned(
    project: "Workspace",
    judge: str,
    where: str,
    names: Sequence[str] | None,
    rows: int | None,
    detect: float,
    read: "Instruction",
) -> "tuple[list[Question], tuple[Probe, ...], Plan]":
    """The unaltered questions, the probes, and what these can find."""
    from piar.measure.audit_plan import in_drawing_order, known_noise, plan, rows_for, tests_of
    from piar.measure.probes import Question, chosen

    kind, _, path = judge.partition(":")
    if judge != "teacher" and (kind != "student" or not path):
        raise UsageError(f"{judge!r} cannot be audited.", "Choose teacher or student:PATH.")
    if not 0 < detect < 1:
        raise UsageError(f"No share of the rows is {detect:g}.", "Give points between 0 and 100: --detect 10.")
    probes = chosen(names)
    samples = in_drawing_order(assignment(project, where, read, votes=1).samples)
    if not samples:
        raise PiarError(f"No row has {where}.", "Widen --where, or import rows: `piar import FILE`.")
    noise = known_noise(project.store, judge if kind == "student" else teacher_name(project))
    tests = tests_of(probes, project.task)
    drawn = samples[: rows or rows_for(samples, noise, tests, detect)]
    return [Question(s, project.task, read) for s in drawn], probes, plan(drawn, noise, tests, detect)
