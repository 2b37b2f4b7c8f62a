"""A project's labelling: what the teacher is asked, in the store, by file, in batches, and whom to trust."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piar.project.asking import agenda, assignment, labeller, respondent, teacher_name
from store.errors import UsageError

if TYPE_CHECKING:
    from piar.judging.forecast import Forecast, Receipt
    from piar.judging.outcome import LabelReport, OnProgress
    from piar.judging.parquet_files import Pool, PoolReport
    from piar.judging.requests import Assignment
    from piar.judging.trust import Trust
    from piar.llm.cost import Budget
    from piar.llm.openai.batch_files import RejectedLine, RequestManifest
    from piar.project.workspace import Workspace
    from store.types import Instruction

EVERYTHING_OPEN = "split in ('train', 'pool')"


def label(
    project: "Workspace",
    where: str = EVERYTHING_OPEN,
    *,
    instruction: str | None = None,
    votes: int | None = None,
    sure: float | None = None,
    budget: "Budget | None" = None,
    reuse: bool = False,
    on_progress: "OnProgress | None" = None,
) -> "tuple[LabelReport, Receipt]":
    """Let the teacher judge samples of the store; what is known is not asked again.

    Args:
        where: SQL condition over the columns of `samples`.
        instruction: id of a known instruction; what `instruction.md` says when None.
        votes: opinions of each sample; `[label] votes` when None.
        sure: confidence from which on a sample is asked no more votes; `[label] sure` when None.
        budget: hard cap on calls and dollars.
        reuse: from now on, verdicts of the same model name at another endpoint count as answers of this one.

    Raises:
        PiarError: the teacher cannot be asked at all.
    """
    from piar.judging.forecast import receipt

    config = {"where": where, "teacher": project.config.teacher.model, "label": project.config.label.model_dump()}
    with project.run("label", config) as run_id, labeller(project, run_id, budget, on_progress, reuse=reuse) as teacher:
        report = teacher.judge([assignment(project, where, project.adopt_instruction(instruction), votes, sure)])
    return report, receipt(project.store, run_id, report.cached, report.seconds, priced=project.config.teacher.priced)


def forecast_label(
    project: "Workspace",
    where: str = EVERYTHING_OPEN,
    *,
    instruction: str | None = None,
    votes: int | None = None,
    sure: float | None = None,
    reuse: bool = False,
) -> "Forecast":
    """What `label` with the same arguments would ask, and what that would cost; nothing is asked or noted.

    With adaptive votes: what it would ask next, and at most.
    """
    from piar.judging.forecast import forecast

    teacher = respondent(project)
    pending = agenda(project, teacher, reuse=reuse).pending
    wanted = assignment(project, where, project.instruction(instruction), votes, sure)

    def found(asked: "Assignment") -> "Forecast":
        return forecast(project.store, teacher, pending([asked]), asked.instruction.id)

    least = found(wanted)
    if wanted.sure is None:
        return least
    most = found(replace(wanted, sure=None))
    return replace(least, most_asked=most.asked, most_usd=most.cost_usd)


def export_requests(
    project: "Workspace",
    folder: Path,
    where: str,
    *,
    instruction: str | None = None,
    votes: int | None = None,
    sure: float | None = None,
    budget: "Budget | None" = None,
) -> "RequestManifest":
    """Write what `label` would ask next as request files for engines elsewhere; see `piar.llm.openai.batch_files`.

    Args:
        budget: only so many requests are written as it can hold at their highest cost.

    Raises:
        UsageError: the teacher is no endpoint, or the folder holds an export already.
    """
    from piar.judging.agenda import affordable
    from piar.llm.openai.batch_files import export_requests

    teacher = project.config.teacher
    if teacher.backend != "openai":
        raise UsageError(
            f"{teacher.model} is not asked over an API, so there are no requests to export.",
            "Set model = 'openai:NAME' under [teacher], with the name that the engine serves.",
        )
    asked = respondent(project)
    wanted = assignment(project, where, project.adopt_instruction(instruction), votes, sure)
    return export_requests(
        affordable(agenda(project, asked).pending([wanted]), asked, budget),
        folder,
        model=asked.client.model,
        name=teacher.name,
        extra=teacher.extra,
        structured=teacher.structured,
        logprobs=teacher.logprobs,
    )


def import_responses(
    project: "Workspace",
    folder: Path,
    where: str,
    *,
    instruction: str | None = None,
    votes: int | None = None,
    sure: float | None = None,
) -> "tuple[LabelReport, list[RejectedLine]]":
    """Take in the responses to exported requests; what is not there stays open.

    Raises:
        UsageError: no whole export in the folder.
    """
    from piar.llm.openai.batch_files import Responses, ResponsesClient

    responses = Responses(folder, project.config.teacher.price)
    config = {"where": where, "responses": responses.manifest.model_dump()}
    with (
        project.run("label", config) as run_id,
        labeller(project, run_id, client=ResponsesClient(responses)) as teacher,
    ):
        wanted = assignment(project, where, project.adopt_instruction(instruction), votes, sure)
        report = teacher.judge([wanted], only=responses)
    return report, responses.rejected


def submit_batches(project: "Workspace", folder: Path, where: str, **asked: Any) -> dict[str, str]:
    """One step of labelling through the provider's batch API: export, upload, look, or download.

    Called again, it goes on where it was. When all shards are `downloaded`, `import_responses` takes them in.

    Args:
        folder: where the request files, `batches.json` and the responses lie.
        asked: as of `export_requests`; used by the first call, which writes the requests.

    Returns:
        shard file -> status.

    Raises:
        PiarError: the endpoint has no batch API, refuses, or ended a batch without answers.
    """
    from piar.llm.openai.provider_batches import advance, connect_provider
    from store.manifest import MANIFEST
    from store.turns import alone

    project.client("teacher")  # says at once what may not leave, or which key is missing
    with alone(folder / "batches.lock", "piar label --batch"):
        if not (folder / MANIFEST).exists():
            export_requests(project, folder, where, **asked)
        with connect_provider(project.config.teacher) as provider:
            return advance(folder, provider)


def label_pool(
    project: "Workspace",
    source: Path,
    target: Path,
    *,
    instruction: str | None = None,
    votes: int | None = None,
    sure: float | None = None,
    budget: "Budget | None" = None,
    on_progress: "OnProgress | None" = None,
) -> "PoolReport":
    """Let the teacher judge the rows of a Parquet file that never enter the store; see
    `piar.judging.parquet_files`.
    """
    pool = pool_of(project, project.adopt_instruction(instruction), votes, sure, budget)
    return pool.label(source, target, on_progress or (lambda progress: None))


def forecast_pool(
    project: "Workspace",
    source: Path,
    *,
    instruction: str | None = None,
    votes: int | None = None,
    sure: float | None = None,
) -> "Forecast":
    """What `label_pool` with the same arguments would ask if nothing of it is done yet; nothing is asked."""
    from piar.judging.forecast import forecast
    from piar.judging.votes import rounds

    pool = pool_of(project, project.instruction(instruction), votes, sure)

    def found(votes: int) -> "Forecast":
        return forecast(project.store, pool.respondent, pool.requests(source, votes), pool.instruction.id)

    settings = pool.respondent.label
    least = found(len(rounds(settings.votes, settings.sure)[0]))
    if settings.sure is None:
        return least
    most = found(settings.votes)
    return replace(least, most_asked=most.asked, most_usd=most.cost_usd)


def pool_of(
    project: "Workspace",
    instruction: "Instruction",
    votes: int | None,
    sure: float | None,
    budget: "Budget | None" = None,
) -> "Pool":
    """The teacher under an instruction as rows that never enter the store are judged; arguments as of `label_pool`."""
    from piar.judging.parquet_files import Pool
    from store.calibrated import kept
    from store.judges import Judge

    teacher = replace(respondent(project), label=project.config.label.having(votes=votes, sure=sure))
    calibration = kept(project.store, Judge(teacher.judge, instruction.id))
    return Pool(project.task, teacher, instruction, budget, calibration=calibration)


def trust(project: "Workspace", target: float, *, instruction: str | None = None, seed: int = 0) -> "Trust":
    """Which of the teacher's labels reach a precision; the rest is queued for people. See `piar.judging.trust`."""
    from piar.judging.trust import trust

    read = project.adopt_instruction(instruction)
    with project.run("label", {"target_precision": target}, seed) as run_id:
        return trust(project.store, teacher_name(project), read.id, target, run_id, seed)
