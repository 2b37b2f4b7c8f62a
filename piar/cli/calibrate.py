"""The verb that corrects a judge's probabilities."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from piar.cli.options import Instruction, MaxCalls, MaxUsd, budget
from piar.cli.render.progress import meter
from piar.cli.verb import Answer, Panel, open_project, plain, verb

if TYPE_CHECKING:
    from piar.project import documents


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    verb(app, "calibrate", Panel.LABEL)(calibrate)


def calibrate(
    judge: Annotated[str, typer.Option("--judge", help="teacher, baseline:NAME or student:PATH.")] = "teacher",
    strategy: Annotated[
        Literal["prior", "temperature", "bias", "isotonic", "none"] | None,
        typer.Option("--strategy", help="Keep this one, helpful or not.", show_default="the best, where it helps"),
    ] = None,
    rule: Annotated[
        Literal["argmax", "expected", "cumulative"] | None,
        typer.Option("--rule", help="A student's: keep this one, helpful or not.", show_default="the same"),
    ] = None,
    instruction: Instruction = None,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """Correct a judge's probabilities from now on, where rows with truth show by group that it helps.

    Tried out of fold by group on dev, of a teacher on train, too (what it has not said of dev is asked): a temperature;
    a temperature with a bias for each grade; a rising curve for each grade; and the prior, each grade relative to its
    mean over the batch. The best by likelihood is kept if its gain's interval lies above zero and it costs no accuracy;
    a bias or a curve may change grades, so accuracy before and after is shown. Without truth the prior is kept,
    unproven: it takes all grades for about equally common. What is kept (a student's: in its folder) is used by score,
    label, mine, curriculum, pools and serve. Raw probabilities stay in the store: `--strategy none` goes back to them.
    A student is calibrated when its training ends.

    On the same rows a student's decision rule is chosen for `[evolve] metric`: the likeliest grade, the level nearest
    to the mean (`expected`), or the lowest grade that reaches a cumulative probability (`cumulative`, one threshold).
    Another than the likeliest is kept only where its gain by group lies above zero.

    Example: `piar calibrate`

    Example: `piar calibrate --judge student:students/sft/final`
    """
    from piar.cli.render.probabilities import calibration_view

    project = open_project()
    with meter("judging") as show:
        found, receipt = project.calibrate(
            judge, strategy, rule=rule, instruction=instruction, budget=budget(max_usd, max_calls), on_progress=show
        )
    document: documents.Calibrating = {
        "judge": found.judge.name,
        "instruction": found.judge.instruction,
        "splits": found.splits,
        "fit": found.fit,
        "kept": found.kept,
        "receipt": receipt,
        "rules": found.rules,
        "rule": found.rule,
        "says_only": found.says_only,
    }
    return Answer(plain(document), calibration_view(found, receipt))
