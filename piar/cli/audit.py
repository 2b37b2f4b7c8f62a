"""The verb that audits a judge."""

from typing import TYPE_CHECKING, Annotated

import typer

from piar.cli.options import DryRun, Instruction, MaxCalls, MaxUsd, budget
from piar.cli.render.progress import meter
from piar.cli.verb import Answer, Panel, open_project, plain, verb

if TYPE_CHECKING:
    from piar.project import documents


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    verb(app, "audit", Panel.LABEL)(audit)


def audit(
    judge: Annotated[str, typer.Argument(metavar="[JUDGE]", help="teacher or student:PATH.")] = "teacher",
    probes: Annotated[
        str | None, typer.Option("--probes", metavar="A,B", help="Only these.", show_default="all that apply")
    ] = None,
    where: Annotated[
        str, typer.Option("--where", metavar="SQL", help="Rows to draw from; they need no truth.")
    ] = "split in ('dev', 'pool')",
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, metavar="N", help="How many.", show_default="as --detect needs")
    ] = None,
    detect: Annotated[
        float, typer.Option("--detect", metavar="POINTS", help="The effect to be found, in points of the rows.")
    ] = 10.0,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Ask once more, and plant an effect of that size.")
    ] = True,
    max_effect: Annotated[
        float | None,
        typer.Option(
            "--max-effect",
            min=0,
            metavar="POINTS",
            help="Exit 3 if more is found, 1 if not all was asked.",
            show_default="never exit 3",
        ),
    ] = None,
    instruction: Instruction = None,
    dry_run: DryRun = False,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Ask a judge the same again with what should not matter changed, and count how often it changes its mind.

    Fields, grades and examples in the opposite order; the text as a list, in upper case, said twice, with an order to
    the judge hidden in it. Every row is also asked twice as it is: what counts are changes beyond the judge's own
    noise, and the shift of its mean grade, both by group, corrected over all probes (Holm), at 5 % for the whole audit.
    Where a negation or a number is swapped nobody knows what should happen, so the share of changes is only told.
    The rows are drawn so that an effect of --detect points is found with a chance of 95 %. As a positive control such
    an effect is planted in a third answer, a hundred times. Rows need no truth, and nothing is asked twice: the same
    command goes on from where it was.

    Example: `piar audit --dry-run`

    Example: `piar audit student:students/sft/final --probes fields,longer,injected --max-effect 5`
    """
    from piar.cli.render.audit import audit_view, plan_view

    names = None if probes is None else [name.strip() for name in probes.split(",") if name.strip()]
    project = open_project()
    if dry_run:
        planned, forecast = project.forecast_audit(
            judge,
            where,
            probes=names,
            rows=rows,
            detect=detect / 100,
            control=control,
            instruction=instruction,
        )
        return Answer({"dry_run": True, **plain(forecast), "plan": plain(planned)}, plan_view(planned, forecast))
    with meter("judging") as show:
        found, receipt = project.audit(
            judge,
            where,
            probes=names,
            rows=rows,
            detect=detect / 100,
            control=control,
            instruction=instruction,
            budget=budget(max_usd, max_calls),
            on_progress=show,
        )
    document: documents.Audited = {
        "judge": found.judge.name,
        "instruction": found.judge.instruction,
        "noise": found.noise,
        "plan": found.plan,
        "probes": list(found.probes),
        "left_out": found.left_out,
        "control": found.control,
        "unanswered": found.unanswered,
        "said": found.said,
        "unpaid": found.unpaid,
        "receipt": receipt,
    }
    worst = max((100 * probe.effect.size for probe in found.found), default=0.0)
    code = 0
    if max_effect is not None:  # a gate does not pass on what it has not seen
        code = FOUND if worst > max_effect else int(found.unpaid > 0)
    return Answer(plain(document), audit_view(found, receipt), exit_code=code)


FOUND = 3  # exit code
