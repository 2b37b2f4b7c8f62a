"""Verbs that make training data: mine, synth, curriculum."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piar.cli.options import DryRun, MaxCalls, MaxUsd, budget
from piar.cli.render.progress import meter, steps
from piar.cli.verb import Answer, Panel, group, here, open_project, plain, verb, with_commands
from store.errors import UsageError
from store.figures import many

if TYPE_CHECKING:
    from rich.console import RenderableType

    from curriculum import Plan
    from mining import Explanation, MineReport
    from mining.settings import Thresholds
    from piar.project import documents
    from piar.project.facade import Project

CURRICULUM = """Order the training data by difficulty, and write it as shards."""


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    verb(app, "mine", Panel.TRAIN)(mine)
    verb(app, "synth", Panel.TRAIN)(synth)
    curriculum = group(CURRICULUM)
    verb(curriculum, "plan")(curriculum_plan)
    verb(curriculum, "export")(curriculum_export)
    app.add_typer(curriculum, name="curriculum", rich_help_panel=Panel.TRAIN, help=CURRICULUM)


def mine(
    top: Annotated[int | None, typer.Option("--top", min=1, help="Length of the queue.", show_default="500")] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="Say why a sample is where it is; mines nothing.")
    ] = None,
) -> Answer:
    """Find what is hard, doubtful or probably mislabelled, and queue it for people.

    Writes signals and difficulty of every sample, and the queue that `piar review push` takes from.

    Example: `piar mine --top 200`
    """
    from piar.cli.render.common import facts

    project = open_project()
    if explain:
        told = project.explain(explain)
        return Answer(asdict(told), _explained(told))
    with steps() as show:
        report = project.mine(top, lambda part: show(f"mining: {part}"))
    document: documents.Mined = {
        "signals": report.signals,
        "buckets": report.buckets,
        "queue": report.queue,
        "unjudged": report.unjudged,
        "untold": report.untold,
        "difficulty_by": report.difficulty_by,
        "confidence": plain(report.confidence),
        "seconds": report.seconds,
    }
    said = [(name, f"{n:,}") for name, n in report.signals.items() if n]
    view = facts(
        [
            ("samples", f"{report.samples:,}, {report.unjudged:,} of them without any judgement"),
            ("judges", ", ".join(filter(None, (report.teacher, report.student))) or "people only"),
            ("buckets", " · ".join(f"{name} {n:,}" for name, n in report.buckets.items())),
            ("", _buckets(project.config.mining.thresholds)),
            *_confidence(report),
            ("difficulty by", " · ".join(f"{judge} {n:,}" for judge, n in report.difficulty_by.items()) or "nobody"),
            *_untold(report),
            ("signals", " · ".join(f"{name} {n}" for name, n in said)),
            *(("queue", f"{n:,} {reason}") for reason, n in report.queue.items()),
        ]
    )
    return Answer(document, view)


def _buckets(limits: "Thresholds") -> str:
    """What the buckets mean."""
    return (
        f"by the judge's probability of the right grade: easy above {limits.easy:g}, mid above {limits.mid:g}, hard "
        f"above {limits.hard:g}; below, the label itself is suspect"
    )


def _confidence(report: "MineReport") -> list[tuple[str, "RenderableType"]]:
    """That the buckets go by probabilities which are off, and what mends it."""
    found = report.confidence
    if found is None or not found.off:
        return []
    words = (
        f"the teacher is right on {found.right:.0%} of {found.rows:,} rows of train and dev and says {found.said:.0%} "
        "on average, so the bounds mean little"
    )
    return [("", words + with_commands("; `piar calibrate --judge teacher` corrects what it says, then mine again"))]


def _untold(report: "MineReport") -> list[tuple[str, "RenderableType"]]:
    """Of how many judged samples the difficulty cannot be told, and what would tell it."""
    silent = report.untold - report.unjudged
    words = (
        f"{many(silent, 'sample')} in no bucket: one vote of one judge, or a judge that says the same of every row, "
        "does not tell how hard a row is"
    )
    mend = (
        "; several votes under an instruction with rules do (`piar evolve`, `piar label --votes 3`), or 50 labelled "
        "rows in five groups of train, from which a simple model learns it"
    )
    return [("no difficulty", words + with_commands(mend))] if silent > 0 else []


def _explained(told: "Explanation") -> "RenderableType":
    from piar.cli.render.common import facts

    p = "unknown" if told.difficulty is None else f"{told.difficulty:.3f} by {told.judge}"
    return facts(
        [
            ("sample", f"{told.sample_id} ({told.split})"),
            *told.fields.items(),
            ("truth", told.truth or "none"),
            ("bucket", f"{told.bucket or 'none'}: p of the right grade {p}"),
            ("queue", told.queued),
            *(("signals", f"{s.name} {s.value:.3f}, above {s.percentile:.0%} of the samples") for s in told.signals),
        ]
    )


def synth(
    n: Annotated[int | None, typer.Option("--n", min=1, help="Samples to keep.", show_default="synth.n, 200")] = None,
    targets: Annotated[
        str | None,
        typer.Option("--targets", metavar="SQL", help="Cells to fill: a query with rule, grade and wanted."),
    ] = None,
    dry_run: DryRun = False,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Write samples for rules and grades that have few, and keep those that the teacher judges as intended.

    Drafts go through screens (fields, duplicates, leaks into closed splits, the teacher's votes, the rule, variety);
    what falls is counted by reason and kept in the table `synthesis`. Only the training split grows.

    Example: `piar synth --n 50`
    """
    from piar.cli.render.common import facts, receipt_lines

    project = open_project()
    if dry_run:
        return _forecast_synth(project, n, targets)
    with meter("drafts") as show:
        report, receipt = project.synth(n, targets, budget=budget(max_usd, max_calls), on_progress=show)
    document: documents.Synthesis = {
        "asked": report.asked,
        "kept": report.kept,
        "dropped": report.dropped,
        "borderline": report.borderline,
    }
    filled = [
        (f"{t.rule or 'any rule'} → {t.grade} {t.bucket}", f"{t.have} + {kept} of {t.wanted} wanted")
        for t, kept in report.cells
    ]
    view = facts(
        [
            ("drafts", f"{report.asked:,}: {report.kept:,} kept, {report.borderline:,} borderline"),
            *(("dropped", f"{count:,} {reason}") for reason, count in report.dropped.most_common()),
            *filled,
            *receipt_lines(receipt),
        ]
    )
    return Answer(document, view)


def _forecast_synth(project: "Project", n: int | None, targets: str | None) -> Answer:
    from piar.cli.render.common import facts

    cells = project.thin_cells(n, targets)
    settings, teacher = project.config.synth, project.config.teacher
    drafts = sum(settings.drafts(t.wanted) * len(settings.methods) for t in cells)
    written = 0 if teacher.simulated else sum(settings.answers(t.wanted) for t in cells)
    calls = written + drafts * settings.votes
    told, rows = (f"{written:,} to write, ", " and rows of train") if written else ("", "")
    document: documents.SynthForecast = {
        "dry_run": True,
        "judge": teacher.model,
        "fields": project.task.fields,
        "calls": calls,
        "drafts": drafts,
        "cells": cells,
    }
    view = facts(
        [
            (
                "asked",
                f"{teacher.model}, at most {calls:,} times: {told}"
                f"{many(settings.votes, 'vote')} on each of {many(drafts, 'draft')}",
            ),
            ("leaves", f"drafts{rows} with the fields {', '.join(project.task.fields)}"),
            *((f"{t.rule or 'any rule'} → {t.grade} {t.bucket}", f"{t.have} there, {t.wanted} wanted") for t in cells),
        ]
    )
    return Answer(document, view)


def curriculum_plan() -> Answer:
    """Show stages and counts of an export before anything is written.

    Example: `piar curriculum plan`
    """
    plan = open_project().curriculum_plan()
    document: documents.CurriculumPlan = {
        "stages": list(plan.schedule.stages),
        "rows": sum(plan.rows.values()),
        "buckets": plan.rows,
        "evals": plan.evals,
        "left_out": plan.left_out,
        "grades": plan.grades,
        "rules": plan.rules,
        "bases": plan.bases,
        "unmined": plan.unmined,
        "anchors": plan.anchors,
        "teacher": plan.teacher,
        "schedule": plan.schedule,
    }
    return Answer(document, _plan_view(plan))


def _plan_view(plan: "Plan") -> "RenderableType":
    from rich.console import Group

    from curriculum import picture
    from piar.cli.render.common import facts, table
    from store.types import BUCKETS

    stages = [
        (s.name, *(f"{s.mixture.get(b, 0):.0%}" for b in BUCKETS), f"{s.share:.0%}") for s in plan.schedule.stages
    ]
    total = sum(plan.rows.values())
    stages.append(("natural", *(f"{plan.rows[b] / total:.0%}" for b in BUCKETS), f"{plan.schedule.natural_tail:.0%}"))
    counts = facts(
        [
            ("rows", " · ".join(f"{name} {n:,}" for name, n in plan.rows.items())),
            ("grades", " · ".join(f"{name} {n:,}" for name, n in plan.grades.items())),
            ("from", " · ".join(f"{name} {n:,}" for name, n in plan.bases.items())),
            ("anchor", f"about {plan.anchors:,}, rare rules first"),
            ("teacher", plan.teacher or "none: grades alone, no traces"),
            *_no_difficulty(plan),
            *(("left out", f"{n:,} {reason}") for reason, n in plan.left_out.items()),
            *(("measured on", f"{n:,} {split}") for split, n in plan.evals.items()),
        ]
    )
    drawing = facts([*picture(plan), ("", "start" + " " * 32 + "end")])
    listed = [table(["stage", *BUCKETS, "of all draws"], stages)] if plan.schedule.kind == "stages" else []
    return Group(counts, "", *listed, "", drawing)


def _no_difficulty(plan: "Plan") -> list[tuple[str, "RenderableType"]]:
    """Rows without a difficulty, and what one bucket alone means for the stages."""
    said: list[tuple[str, RenderableType]] = []
    why = with_commands("run `piar mine`; what one vote alone has judged keeps none")
    if plan.unmined:
        said.append(("mid", f"{plan.unmined:,} of them have no difficulty: {why}"))
    if sum(n > 0 for n in plan.rows.values()) < 2:
        said.append(
            ("stages", "none: all rows are in one bucket, so nothing tells which come first; they are shuffled")
        )
    return said


def curriculum_export(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="The folder to make.", show_default="shards/ of the project")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", metavar="A,B", help="parquet, or parquet,jsonl.", show_default="parquet")
    ] = None,
) -> Answer:
    """Write training shards, a dataset card and, last, the manifest.

    `piar train`, Hugging Face datasets and TRL read the folder as it is. The same store and settings give the
    same bytes. A folder that you name is relative to where you are, also with -C; `piar train` reads it alike.

    Example: `piar curriculum export`
    """
    from piar.cli.render.common import facts

    wanted = tuple(name.strip() for name in (formats or "").split(",") if name.strip())
    unknown = next((name for name in wanted if name not in ("parquet", "jsonl")), None)
    if unknown or (wanted and "parquet" not in wanted):
        raise UsageError(f"--format {formats!r} cannot be written.", "Write parquet, or parquet,jsonl.")
    project = open_project()
    target = folder or project.folder / "shards"
    manifest = project.curriculum_export(target, wanted)
    rows = sum(manifest.rows.values())
    document: documents.Shards = {
        "stages": list(manifest.schedule.stages),
        "rows": rows,
        "buckets": manifest.rows,
        "shards": list(manifest.shards),
        "manifest": str(target / "manifest.json"),
    }
    view = facts(
        [
            ("rows", f"{rows:,}: " + " · ".join(f"{name} {n:,}" for name, n in manifest.rows.items())),
            ("files", f"{len(manifest.shards) + len(manifest.copies)} in {target}"),
            ("prompt", manifest.prompt),
            ("next", here(f"piar train sft{f' {shlex.quote(str(target))}' if folder else ''}")),
        ]
    )
    return Answer(document, view)
