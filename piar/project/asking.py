"""How a project asks its models: the one place that puts a session together, and what a forecast has instead."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from piar.project.folder import JOURNAL, PROMPTS
from store.errors import UsageError

if TYPE_CHECKING:
    from piar.judging.agenda import Agenda
    from piar.judging.labeller import Labeller
    from piar.judging.neighbours import Neighbours
    from piar.judging.outcome import OnProgress
    from piar.judging.requests import Assignment
    from piar.judging.session import Respondent, Session
    from piar.llm.base import Client
    from piar.llm.cost import Budget
    from piar.project.workspace import Workspace
    from store.types import Instruction


def respondent(
    project: "Workspace", role: Literal["teacher", "reviser"] = "teacher", client: "Client | None" = None
) -> "Respondent":
    """The model of a role, and how the project asks it; raises as `Workspace.client`.

    Args:
        client: stands in for the model.
    """
    from piar.judging.session import Respondent

    model, shown = getattr(project.config, role), _neighbours(project) if role == "teacher" else None
    return Respondent(client or project.client(role), model, project.config.label, project.folder / PROMPTS, shown)


def _neighbours(project: "Workspace") -> "Neighbours | None":
    """The labelled samples that the teacher is shown; None where `[label]` wants none, or it only follows rules.

    Raises:
        UsageError: they are found by an encoder, and none is named.
    """
    from piar.judging.neighbours import Neighbours
    from piar.measure.embeddings import NO_ENCODER

    settings, embed = project.config.label, None
    if not settings.neighbours or project.config.teacher.simulated:
        return None
    if settings.vectors == "encoder" and (embed := project.encoder) is None:
        raise UsageError('`[label] vectors = "encoder"` needs an encoder.', NO_ENCODER)
    return Neighbours(project.store, settings, embed=embed, prompts=project.folder / PROMPTS)


def teacher_name(project: "Workspace") -> str:
    """Whose the teacher's verdicts are, told without a key and without loading a model."""
    from piar.connect import answers_as

    teacher = project.config.teacher
    return f"teacher:{answers_as(teacher)}{'' if teacher.simulated else project.config.label.mark}"


@contextmanager
def session(
    project: "Workspace",
    run_id: str,
    budget: "Budget | None" = None,
    on_progress: "OnProgress | None" = None,
    client: "Client | None" = None,
) -> "Iterator[Session]":
    """The teacher, asked in a run; the journal is open within.

    Raises:
        UsageError: a cap in dollars, and a model without a price.
    """
    with project.journal() as journal:
        yield respondent(project, "teacher", client).session(project.store, journal, run_id, budget, on_progress)


@contextmanager
def labeller(
    project: "Workspace",
    run_id: str,
    budget: "Budget | None" = None,
    on_progress: "OnProgress | None" = None,
    client: "Client | None" = None,
    *,
    reuse: bool = False,
) -> "Iterator[Labeller]":
    """The teacher as a judge of samples; what it said is in the store afterwards. Arguments as of `session`."""
    from piar.judging.labeller import Labeller
    from piar.judging.one_grade import OneGrade

    with session(project, run_id, budget, on_progress, client) as asked:
        # The offline teacher says one grade for good reason: its instruction has no rules yet.
        watch = None if project.config.teacher.simulated else OneGrade(project.store, asked.judge)
        with Labeller(asked, reuse=reuse, watch=watch) as found:
            yield found


def agenda(project: "Workspace", teacher: "Respondent", *, reuse: bool = False) -> "Agenda":
    """What the teacher would be asked. Nobody is asked, and nothing is written."""
    from piar.judging.agenda import Agenda
    from piar.judging.earlier_verdicts import Known

    known = Known(project.store, teacher.judge, journal=project.folder / JOURNAL)
    return Agenda(project.store, teacher, known, reuse=reuse)


def assignment(
    project: "Workspace",
    where: str,
    instruction: "Instruction",
    votes: int | None = None,
    sure: float | None = None,
) -> "Assignment":
    """The samples of a condition, to be judged under an instruction; votes as `[label]` has them where none are given.

    Raises:
        UsageError: no condition over the columns of `samples`, or no such number of votes.
    """
    import duckdb

    from piar.judging.requests import Assignment
    from store.calibrated import kept
    from store.judges import Judge
    from store.user_sql import expression

    fix = f"Write a condition over {', '.join(project.task.fields)}, split, source, group_key."
    condition = expression(where, f"--where {where[:200]!r}", fix, project.store.tables())
    try:
        samples = project.store.sample_table(condition)
    except duckdb.Error as error:
        raise UsageError(f"--where {where[:200]!r} fails: {str(error).splitlines()[0]}", fix) from None
    settings = project.config.label.having(votes=votes, sure=sure)
    calibration = kept(project.store, Judge(teacher_name(project), instruction.id)) if settings.sure else None
    return Assignment(instruction, samples, settings.votes, settings.sure, calibration)
