"""The verb that certifies who may decide: cascade."""

from pathlib import Path
from typing import Annotated

import typer

from piar.cli.label import would_ask
from piar.cli.options import DryRun, Instruction, MaxCalls, MaxUsd, budget
from piar.cli.render.progress import meter
from piar.cli.verb import Answer, Panel, asked, open_project, plain, verb


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    verb(app, "cascade", Panel.TRAIN)(cascade)


def cascade(
    tiers: Annotated[
        str, typer.Option("--tiers", metavar="A,B", help="Who decides, in turn: student:PATH, teacher, baseline:NAME.")
    ],
    precision: Annotated[
        float, typer.Option("--precision", min=0.5, max=0.999, help="Share of a judge's rows that must be right.")
    ] = 0.95,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="Where it is kept.", show_default="cascade.json in the project"
        ),
    ] = None,
    instruction: Instruction = None,
    dry_run: DryRun = False,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Find from which confidence on a student may decide alone, when the teacher is asked, and what is for people.

    On dev's rows with truth, which no training saw: each judge decides rows whose grade is sure enough that the lower
    bound of its precision, by group, is at or above --precision; the promises of two judges hold together with 95 %.
    What it has not said of these rows is asked first. Where no confidence is enough, a judge decides nothing and all of
    its rows go on. The document names both judges by what they answer with: after another training, calibration or
    instruction it is refused, `piar status` names it, and this verb fits it again. One that decides nothing does not
    replace an earlier one that holds: of other judges, or of a higher --precision.

    It is used by `piar score --pool FILES --cascade FILE` and `piar serve --cascade FILE`.

    Example: `piar cascade --tiers student:students/sft/final,teacher --precision 0.95 --max-usd 5`
    """
    from piar.cli.render.cascade import cascade_view
    from store.cascade import CASCADE

    project, names = open_project(), [name.strip() for name in tiers.split(",") if name.strip()]
    if dry_run:
        return would_ask(project.forecast_cascade(names, instruction=instruction))
    with meter("judging") as show:
        fitted, receipt = project.cascade(
            names, precision, out=out, instruction=instruction, budget=budget(max_usd, max_calls), on_progress=show
        )
    path = out or asked().folder / CASCADE
    document = {"path": str(path), "fitted": plain(fitted), "receipt": plain(receipt)}
    return Answer(document, cascade_view(fitted, path, receipt), exit_code=int(not fitted.cascade.certified))
