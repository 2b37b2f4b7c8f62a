"""Verbs that change the instruction, and those that show what changed: evolve, show, accept, reject, check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from piar.cli.options import DryRun, MaxCalls, MaxUsd, budget
from piar.cli.render.progress import meter
from piar.cli.verb import Answer, Panel, group, open_project, plain, verb
from store.types import Split

if TYPE_CHECKING:
    from piar.project import documents
    from piar.project.proposal import Decision

SHOW = """Look closer: at the instruction, a proposal, a candidate, what changed between versions, a run, a sample."""

By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who decides.", show_default="git's user name")]


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    verb(app, "evolve", Panel.IMPROVE)(evolve)
    show = group(SHOW)
    verb(show, "instruction")(show_instruction)
    verb(show, "proposal")(show_proposal)
    verb(show, "candidate")(show_candidate)
    verb(show, "diff")(show_diff)
    verb(show, "run")(show_run)
    verb(show, "sample")(show_sample)
    app.add_typer(show, name="show", rich_help_panel=Panel.IMPROVE, help=SHOW)
    verb(app, "accept", Panel.IMPROVE)(accept)
    verb(app, "reject", Panel.IMPROVE)(reject)
    verb(app, "minor", Panel.IMPROVE)(minor)
    verb(app, "check", Panel.IMPROVE)(check)


def evolve(
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=0, help="Most rounds of revision.", show_default="evolve.rounds, 8")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of every choice.", show_default="evolve.seed, 0")] = None,
    accept: Annotated[
        Literal["ask", "auto"], typer.Option("--accept", help="auto: for scripts, accept without asking a person.")
    ] = "ask",
    restart: Annotated[
        bool, typer.Option("--restart", help="Abandon a search that was cut off, or search anew.")
    ] = False,
    dry_run: DryRun = False,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=0, help="Hard cap on tokens, in and out.", show_default="none")
    ] = None,
) -> Answer:
    """Search for a better instruction, and propose the best one if it passes a test on the holdout.

    The teacher judges, its errors are inspected, the reviser edits rules, candidates race on dev. The best one
    meets the present instruction once, on holdout groups that nobody has looked at. Where labels are few,
    --set evolve.search=cross_fitted lets those of the holdout teach, too. Ctrl-C keeps everything; the same
    command goes on.

    Example: `piar evolve --rounds 4 --max-usd 10`
    """
    from piar.cli.render.common import forecast_view
    from piar.cli.render.evolve import evolve_view
    from piar.cli.render.live import search_view

    project = open_project()
    if dry_run:
        found = project.forecast_evolve(rounds=rounds, max_calls=max_calls)
        return Answer({"dry_run": True, **plain(found)}, forecast_view(found))
    with search_view(rounds if rounds is not None else project.config.evolve.rounds) as (told, counted):
        report = project.evolve(
            rounds=rounds,
            seed=seed,
            accept=accept,
            restart=restart,
            max_usd=max_usd,
            max_calls=max_calls,
            max_tokens=max_tokens,
            on_event=told,
            on_progress=counted,
        )
    return Answer(report.model_dump(mode="json"), evolve_view(report, accepted=accept == "auto"))


def show_instruction(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="An older version.")] = None,
) -> Answer:
    """The rulebook in force, or an older version, and the list of all versions.

    Example: `piar show instruction`
    """
    from piar.cli.render.show import instruction_view
    from piar.evolve.resume import lineage_json
    from piar.query.show import versions

    project = open_project()
    current = project.instruction()
    shown = project.store.instruction(id) if id else current
    known = versions(project.store)
    document = {"instruction": lineage_json(shown), "versions": known}
    return Answer(document, instruction_view(shown, known, current.id, project.task))


def show_proposal() -> Answer:
    """The proposal that waits, against the instruction in force.

    Example: `piar show proposal`
    """
    from piar.cli.render.show import difference_document, difference_view
    from piar.query.show import difference

    project = open_project()
    found = difference(project.store, project.instruction(), project.proposal())
    return Answer(difference_document(found), difference_view(found, project.task))


def show_candidate(
    id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Beginning of a candidate's id.", show_default="the one tested last")
    ] = "",
) -> Answer:
    """The candidate that was tested last, refused ones too: why, what it gains, and what it loses.

    Example: `piar show candidate`
    """
    from piar.cli.render.show import candidate_document, candidate_view

    project = open_project()
    tried, found = project.candidate(id)
    return Answer(candidate_document(tried, found), candidate_view(tried, found, project.task))


def show_diff(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[A [B]]", help="Ids of two versions.")] = None,
) -> Answer:
    """What changed between two versions: rules, grades that flipped, gain with its interval.

    Without ids, the last change of the instruction in force; with one, that version against it. Samples are
    listed from train and dev only: the others stay closed to whoever edits rules.

    Example: `piar show diff 55732387b917 2ef03a0e1c5b`
    """
    from piar.cli.render.show import difference_document, difference_view

    project = open_project()
    found = project.difference(*(ids or ()))
    return Answer(difference_document(found), difference_view(found, project.task))


def show_run(
    id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Beginning of a run's id, or a verb.", show_default="the latest")
    ] = "",
) -> Answer:
    """One command's life: configuration, steps, what it asked and what that cost.

    Example: `piar show run evolve`
    """
    from piar.cli.render.show import run_view
    from piar.query.show import show_run as look

    project = open_project()
    found = look(project.store, id, (project.config.teacher, project.config.reviser))
    return Answer(found, run_view(found))


def show_sample(
    id: Annotated[str, typer.Argument(metavar="ID", help="Beginning of its id, or your own id of it.")],
) -> Answer:
    """Everything known of one sample: fields, labels, verdicts with their reasons.

    Example: `piar show sample shop-0-000017`
    """
    from piar.cli.render.show import sample_view
    from piar.query.show import show_sample as look

    project = open_project()
    found = look(project.store, id)
    return Answer(found, sample_view(found, project.task))


def accept(by: By = None) -> Answer:
    """Let the proposal replace instruction.md.

    Example: `piar accept --by "Ada"`
    """
    return _decided(open_project().accept(by))


def reject(by: By = None) -> Answer:
    """Send the proposal away; instruction.md stays as it is.

    Example: `piar reject`
    """
    return _decided(open_project().reject(by))


def minor(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RULE]", help="E.g. R07 or 'grade 1'.", show_default="all that the edit changed"),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--edit", metavar="ID", help="The version it made.", show_default="the latest")
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take it back: the labels are stale after all.")] = False,
    by: By = None,
) -> Answer:
    """Say that an edit of instruction.md changed words only: people's labels stand, none is stale for it.

    Typography (blanks, quotes, dashes) is never a change. A teacher reads other words and is asked again, at a
    price that `piar status` names. Who called an edit minor stays in the history. An edit that adds or drops a rule, or
    gives one another grade, is refused: name what of it only has other words.

    Example: `piar minor R07 --by Ada`
    """
    found = open_project().minor(what or (), version=version, revoke=revoke, by=by)
    said = "no longer called minor" if revoke else "called minor"
    text = f"{found.against} → {found.instruction}: {said} by {found.by}: {', '.join(found.what)}"
    return Answer(plain(found), text)


def _decided(decision: "Decision") -> Answer:
    document: documents.Decision = {
        "instruction": decision.instruction,
        "by": decision.by,
        "at": decision.at,
        "outcome": decision.outcome,
        "procedure": decision.procedure,
    }
    said = f"{decision.instruction} {decision.outcome} by {decision.by}"
    return Answer(document, f"{said}. {decision.procedure}" if decision.procedure else said)


def check(
    split: Annotated[Split, typer.Option("--split", help="Which gold rows.")] = "dev",
    max_drop: Annotated[float, typer.Option("--max-drop", min=0, metavar="POINTS", help="What may be lost.")] = 2.0,
    against: Annotated[
        str | None, typer.Option("--against", metavar="ID", help="Compare with this one.", show_default="last accepted")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE", help="Append Markdown to a file.")
    ] = None,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
) -> Answer:
    """A gate for CI: exit 3 when the committed instruction.md is worse than the one last accepted.

    Verdicts that are known cost nothing. Overall, the estimate may not fall by more than --max-drop; a grade or a slice
    fails when its fall is also shown by its 95 % interval, by group.

    Example: `piar check --summary "$GITHUB_STEP_SUMMARY"`
    """
    from piar.measure.regression_gate import REGRESSED

    with meter("judging") as show:
        checked, receipt = open_project().check(
            split, max_drop=max_drop, against=against, budget=budget(max_usd, max_calls), on_progress=show
        )
    text = checked.markdown()
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(text)
    document = {**plain(checked), "receipt": receipt}
    return Answer(document, text, 0 if checked.passed else REGRESSED)
