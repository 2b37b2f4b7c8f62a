"""Verbs that ask judges: label, score."""

from typing import Annotated, Any

import typer

from piar.cli.options import DryRun, MaxCalls, MaxUsd, budget
from piar.cli.progress import meter
from piar.cli.verb import Answer, Panel, open_project, plain, verb
from store.types import Split

Instruction = Annotated[
    str | None, typer.Option("--instruction", metavar="ID", help="An older instruction.", show_default="instruction.md")
]


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    verb(app, "label", Panel.LABEL)(label)
    verb(app, "score", Panel.LABEL)(score)


def label(
    where: Annotated[
        str, typer.Option("--where", metavar="SQL", help="Which samples: a condition over their columns.")
    ] = "split in ('train', 'pool')",
    instruction: Instruction = None,
    votes: Annotated[
        int | None, typer.Option("--votes", min=1, help="Opinions of each sample.", show_default="label.votes")
    ] = None,
    dry_run: DryRun = False,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Let the teacher judge samples of the store.

    What is known is not asked again, and every answer is kept at once: stop it with Ctrl-C and the same
    command goes on.

    Example: `piar label --where "split = 'pool'" --max-usd 5`
    """
    from piar.cli.views import facts, forecast_view, receipt_lines

    project = open_project()
    if dry_run:
        found = project.forecast_label(where, instruction=instruction, votes=votes)
        return Answer({"dry_run": True, **plain(found)}, forecast_view(found))
    with meter("judging") as show:
        report, receipt = project.label(
            where, instruction=instruction, votes=votes, budget=budget(max_usd, max_calls), on_progress=show
        )
    document = {"asked": report.asked, "cached": report.cached, "labelled": report.labelled,
                "failed": report.failed, "cost_usd": report.cost_usd, "seconds": report.seconds}  # fmt: skip
    known = [("labelled", f"{report.labelled:,} of {report.labelled + report.failed.total():,}")]
    if report.failed["budget"]:
        known.append(("not asked", f"{report.failed['budget']:,}: the budget is spent"))
    return Answer(document, facts([*known, *receipt_lines(receipt)]))


def score(
    judge: Annotated[str, typer.Option("--judge", help="teacher, baseline:NAME or student:PATH.")] = "teacher",
    split: Annotated[Split, typer.Option("--split", help="Which rows.")] = "test",
    instruction: Instruction = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ID", help="An instruction or another judge: adds what is gained over it."),
    ] = None,
    dry_run: DryRun = False,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Measure a judge against truth: gold, and the raters' majority beside it.

    Every figure has a 95 % interval by group. What the judge has not said yet is asked first.

    Example: `piar score --split test --against 55732387b917`
    """
    from piar.cli.views import forecast_view, score_view

    project = open_project()
    if dry_run:
        found = project.forecast_label(f"split = '{split}'", instruction=instruction, votes=1)
        return Answer({"dry_run": True, **plain(found)}, forecast_view(found))
    with meter("judging") as show:
        scored, receipt = project.score(
            judge, split, instruction=instruction, against=against, budget=budget(max_usd, max_calls), on_progress=show
        )
    measured = scored.measured
    document: dict[str, Any] = {
        "judge": measured.judge.name,
        "instruction": measured.judge.instruction,
        "split": split,
        **measured.scores.model_dump(),
        "majority": measured.majority,
        "unjudged": measured.unjudged,
        "baselines": {other.judge.name: other.scores for other in scored.baselines},
        "receipt": receipt,
    }
    if scored.gained:
        document |= {"gain": scored.gained.gain, "gain_majority": scored.gained.majority}
    return Answer(document, score_view(scored, receipt))
