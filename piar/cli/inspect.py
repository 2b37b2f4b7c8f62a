"""Verbs that look and change nothing: status, report, export, sql, doctor."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piar.cli.verb import Answer, Panel, asked, here, open_project, verb, with_commands
from piar.query.export import ListFormat, What
from store.errors import UsageError
from store.figures import many

if TYPE_CHECKING:
    from piar.project import documents


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    verb(app, "status", Panel.LOOK)(status)
    verb(app, "report", Panel.LOOK)(report)
    verb(app, "export", Panel.LOOK)(export)
    verb(app, "sql", Panel.LOOK)(sql)
    verb(app, "doctor", Panel.LOOK)(doctor)


def status() -> Answer:
    """Where the project stands: what it holds, what is stale, what comes next and what that would cost.

    Example: `piar status`
    """
    from piar.cli.render.common import status_view

    found = open_project().status()
    found = replace(
        found,
        stale=tuple(replace(old, fix=here(old.fix)) for old in found.stale),
        next=tuple(replace(step, command=here(step.command), why=with_commands(step.why)) for step in found.next),
    )
    return Answer({"holds": found.holds, "stale": found.stale, "next": found.next}, status_view(found))


def report(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page.", show_default="report.html")
    ] = None,
) -> Answer:
    """Write one self-contained HTML page: what changed, rule by rule, with intervals, and what it cost.

    It opens without a network, and says for every figure how to get it again.

    Example: `piar report -C demo`
    """
    made = open_project().report(out)
    document: documents.Page = {"path": str(made.path), "headline": made.headline, "detail": made.detail}
    return Answer(document, with_commands(f"{made.headline}\n{made.detail}\nreport: {made.path}"))


def export(
    what: Annotated[What, typer.Argument(metavar="WHAT", help="labels, verdicts, samples or instructions.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .csv, .jsonl or .parquet.")],
    format: Annotated[
        ListFormat | None,
        typer.Option("--format", help="Of labels: a search tool's judgement list.", show_default="by FILE's ending"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> Answer:
    """Write labels, verdicts, samples or instructions to a file.

    In CSV a text cell that a spreadsheet would run (it begins with = + - @, tab or carriage return)
    gets an apostrophe in front; JSONL and Parquet hold the text as it is.

    With --format the labels go to a search tool: TREC qrels, a book of Quepid (all judges, with explanations) as JSON
    or CSV, ratings of a Quepid case, OpenSearch's IMPORT_JUDGMENT, lines for learning to rank, umbrela's JSON lines,
    or the letters E, S, C, I. Documents go by your own ids (`piar import --id`).

    Example: `piar export labels labels.csv`

    Example: `piar export labels judgements.qrels --format qrels`
    """
    if format is not None:
        return _judgement_list(what, file, format, force)
    rows = open_project().export(what, file, force=force)
    document: documents.Listed = {"rows": rows, "path": str(file)}
    return Answer(document, f"{rows:,} {what} written to {file}")


def _judgement_list(what: What, file: Path, form: ListFormat, force: bool) -> Answer:
    if what != "labels":
        raise UsageError(f"--format {form} is of labels, not of {what}.", f"Write `piar export labels {file.name}`.")
    found = open_project().export_list(form, file, force=force)
    told = f"{many(found.rows, 'row')} written to {file}"
    if found.queries:
        told += f"; the queries' numbers stand for the texts in {found.queries}"
    if found.nameless:
        told += f"; {found.nameless:,} samples without an id of yours are left out"
    document: documents.Listed = {
        "rows": found.rows,
        "path": str(file),
        "nameless": found.nameless,
        "queries": str(found.queries) if found.queries else None,
    }
    return Answer(document, told)


def sql(
    statement: Annotated[
        str, typer.Argument(metavar="SQL", help="One statement; it can read the store and nothing else.")
    ],
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> Answer:
    """Ask the store in SQL, read-only.

    Tables and views: samples, labels, vote, superseded, truth, majority, verdict, errors, confusion, leaderboard,
    flips, in_force, spend, runs.

    Example: `piar sql "select judge, instruction, n, accuracy from leaderboard where split = 'test'"`
    """
    from piar.cli.render.common import table
    from piar.query.sql import as_csv

    frame = open_project().sql(statement)
    document: documents.Rows = {"columns": frame.columns, "rows": frame.rows()}
    return Answer(document, as_csv(frame) if csv else table(frame.columns, frame.head(100).rows(), frame.height - 100))


def doctor(
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask each endpoint one tiny question: does it take schemas and logprobs?")
    ] = False,
) -> Answer:
    """Check the environment, the project, its endpoints and keys (by name, never by value).

    Endpoints are asked which models they serve, which costs nothing; with `--ask` one short question as well.

    Example: `piar doctor -C demo`
    """
    from piar.cli.render.common import checks
    from piar.project.doctor import diagnose

    found = diagnose(asked().folder, asked().overrides, ask=ask)
    document: documents.Doctor = {"checks": found}
    return Answer(document, checks(found), 0 if all(check.ok for check in found) else 1)
