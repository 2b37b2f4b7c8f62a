"""A project's labels become training data: mine, synthesize, plan and export, each recorded as a run."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from piar.project.asking import session, teacher_name
from piar.project.folder import PROMPTS
from store.errors import UsageError

if TYPE_CHECKING:
    from curriculum import Plan
    from mining import Explanation, MineReport
    from mining.out_of_fold import Stand
    from piar.judging.forecast import Receipt
    from piar.judging.outcome import OnProgress
    from piar.llm.cost import Budget
    from piar.project.workspace import Workspace
    from store.manifest import Manifest
    from synth import SynthReport
    from synth.drafts import Target


def mine(
    project: "Workspace", top: int | None = None, on_part: Callable[[str], None] = lambda part: None
) -> "MineReport":
    """Signals, difficulty, buckets and the queue.

    Args:
        top: length of the queue; `[mining] top` when None.
        on_part: told what begins.
    """
    from mining import mine
    from piar.measure.embeddings import NO_ENCODER

    settings = project.config.mining.having(top=top)
    if settings.vectors == "encoder" and project.encoder is None:
        raise UsageError('`[mining] vectors = "encoder"` needs an encoder.', NO_ENCODER)
    with project.run("mine", settings.model_dump(mode="json"), settings.seed) as run_id:
        return mine(
            project.store,
            settings,
            run_id,
            project.adopt_instruction().id,
            embed=project.encoder if settings.vectors == "encoder" else None,
            student=_stand(project) if settings.stand_in else None,
            on_part=on_part,
        )


def _stand(project: "Workspace") -> "Stand":
    """Who says how hard a sample is where votes are missing: the encoder's probe, else TF-IDF."""
    import polars as pl

    from mining.out_of_fold import Predict, Stand
    from piar.measure.baselines import fit

    embed, task = project.encoder, project.task
    baseline = "probe" if embed else "tfidf_overlap" if len(task.fields) > 1 else "tfidf"

    def teach(rows: pl.DataFrame) -> Predict:
        return fit(baseline, rows, task, groups=rows["group_key"], embed=embed).predict

    return Stand("probe" if embed else "TF-IDF", teach)


def explain(project: "Workspace", sample_id: str) -> "Explanation":
    """Why mining put a sample where it is."""
    from mining import explain

    return explain(project.store, project.config.mining, sample_id)


def thin_cells(project: "Workspace", n: int | None = None, targets: str | None = None) -> "list[Target]":
    """The cells that `synthesize` would fill; asks nothing."""
    from synth.targets import find_targets, make_cited

    instruction = project.instruction()
    settings = project.config.synth.having(n=n)
    with project.store.read() as con:
        by_grade = make_cited(con, teacher_name(project), instruction.id, simulated=project.config.teacher.simulated)
        return find_targets(con, instruction, settings, targets, by_grade=by_grade)


def synthesize(
    project: "Workspace",
    n: int | None = None,
    targets: str | None = None,
    *,
    budget: "Budget | None" = None,
    on_progress: "OnProgress | None" = None,
) -> "tuple[SynthReport, Receipt]":
    """Fill thin cells with drafts that the teacher, not told the target, judges as wanted.

    Args:
        n: samples to keep at most; `[synth] n` when None.
        targets: SQL that names the cells: rule, grade, wanted.
        budget: hard cap on calls and dollars.
        on_progress: told how many samples are kept.
    """
    from piar.judging.forecast import receipt
    from synth import synthesize

    settings = project.config.synth.having(n=n)
    config = settings.model_dump(mode="json")
    with (
        project.run("synth", config, settings.seed) as run_id,
        session(project, run_id, budget, on_progress) as teacher,
    ):
        writer = None if project.config.teacher.simulated else teacher
        report = synthesize(teacher, project.adopt_instruction(), settings, writer=writer, targets=targets)
    return report, receipt(project.store, run_id, priced=project.config.teacher.priced)


def plan(project: "Workspace") -> "Plan":
    """What `export_shards` would write, counted."""
    from curriculum import plan

    return plan(project.store, project.config.curriculum, project.instruction().id)


def export_shards(project: "Workspace", folder: str | Path, formats: tuple[str, ...] = ()) -> "Manifest":
    """Write the curriculum's shards into a folder; `[curriculum] formats` when none are named."""
    from curriculum import CurriculumSettings, export
    from store.simulated import simulated_sources

    settings = project.config.curriculum
    if formats:
        settings = CurriculumSettings.model_validate({**settings.model_dump(), "formats": formats})
    config = {**settings.model_dump(mode="json"), "folder": str(folder)}
    with project.run("curriculum", config, settings.seed):
        return export(
            project.store,
            Path(folder),
            project.adopt_instruction(),
            settings,
            prompt=project.config.student.prompt,
            prompts=project.folder / PROMPTS,
            simulated=bool(simulated_sources(project.store)),
        )
