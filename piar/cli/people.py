"""Verbs for people: the review round trip through Label Studio or files."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piar.cli.here import label_here
from piar.cli.options import Sheet
from piar.cli.render.people import composed_view, pulled_view, status_view
from piar.cli.verb import Answer, Panel, group, messages, open_project, verb
from store.errors import PiarError, UsageError
from store.figures import many

if TYPE_CHECKING:
    from piar.project import documents
    from piar.project.facade import Project
    from piar.review.batch import Batch
    from piar.review.push_pull import PullReport
    from piar.review.server import Server
    from piar.review.settings import ReviewSettings

HELP = """Give people rows to judge: at this terminal, in Label Studio or by file, and bring their labels back.

A batch is chosen once and frozen: disagreements from `piar mine`, random rows, and a few checks, one
project per annotator, blind. Community Label Studio has no permissions, so blindness is by courtesy.
"""
BatchName = Annotated[str | None, typer.Option("--batch", metavar="NAME", help="The batch.", show_default="the latest")]

NewBatch = Annotated[str, typer.Option("--batch", metavar="NAME", help="Name of the batch, e.g. w47.")]
Hours = Annotated[float | None, typer.Option(help="Size in hours, all annotators together.")]
Overlap = Annotated[str | None, typer.Option(metavar="SHARE", help="Share judged by two people, e.g. 12%.")]
RandomShare = Annotated[str | None, typer.Option("--random", metavar="SHARE", help="Share drawn at random, e.g. 20%.")]
Checks = Annotated[str | None, typer.Option(metavar="SHARE", help="Share with undoubted gold, e.g. 5%.")]
Relabel = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT", help="Judge again instead: a whole split, or `stale`, what a change of policy overtook."
    ),
]
Adjudicate = Annotated[
    str | None, typer.Option(metavar="BATCH", help="Settle an earlier batch's disagreements, all opinions shown.")
]
Rest = Annotated[
    str | None,
    typer.Option(metavar="BATCH", help="What people who annotate no more have left open of it, to those who do."),
]
Pilot = Annotated[
    int | None,
    typer.Option(metavar="ROWS", min=1, help="A calibration round instead: so many random rows, the same for all."),
]


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    review = group(HELP)
    verb(review, "here")(label_here)
    for function in (push, pull, status, agenda, hours):
        verb(review, function.__name__)(function)
    verb(review, "fetch")(fetch_)
    verb(review, "export")(export)
    verb(review, "import")(import_)
    app.add_typer(review, name="review", rich_help_panel=Panel.PEOPLE, help=HELP)


def push(
    batch: NewBatch,
    hours: Hours = None,
    overlap: Overlap = None,
    random: RandomShare = None,
    checks: Checks = None,
    relabel: Relabel = None,
    adjudicate: Adjudicate = None,
    rest: Rest = None,
    pilot: Pilot = None,
) -> Answer:
    """Compose a batch and bring it to Label Studio. Pushing again sends only what is missing.

    Defaults come from `[review]` in piar.toml: annotators, url, and the name of the variable with the token.

    Example: `piar review push --batch w47 --hours 16 --overlap 12% --random 20% --checks 5%`
    """
    from piar.query.stale_labels import stale_labels
    from piar.review.batch import open_pilots
    from piar.review.push_pull import push as send

    project = open_project()
    sizes = {"hours": hours} | _shares(overlap, random, checks)
    composed = _compose(project, batch, sizes, relabel, adjudicate=adjudicate, rest=rest, pilot=pilot)
    instruction = project.adopt_instruction()
    stale: dict[str, list[str]] = {}
    for old in stale_labels(project.store, instruction):
        for key in old.sample_ids:
            stale.setdefault(key, []).append(old.what)
    with _server(project) as server:
        report = send(project.store, server, composed, instruction, _progress("tasks there"), stale=stale)
    waiting = open_pilots(project.store) if composed.fresh and composed.blind and not composed.pilot else []
    return Answer(_plain(report), composed_view(composed, pushed=report, waiting=waiting))


def pull(batch: BatchName = None) -> Answer:
    """Bring answers back as new labels; nothing is overwritten, pulling again adds nothing.

    Example: `piar review pull --batch w47`
    """
    from piar.review.push_pull import pull as fetch

    project = open_project()
    named = _batch(project, batch)
    with project.run("review-pull", {"batch": named.name}) as run_id, _server(project) as server:
        report = fetch(project.store, server, named, run_id, _progress("tasks looked at"))
    return _answered(project, report)


def status(
    batch: BatchName = None,
    enough: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Say how many people a row needs until one more adds less, e.g. 1%."),
    ] = None,
) -> Answer:
    """Progress, agreement, each person's reliability, checks passed, gold overturned.

    Where better raters contradict the label more often than worse ones, the guideline may be wrong: such rules are
    named. --enough simulates more and fewer people, from all blind answers to rows that were drawn at random.

    Example: `piar review status --enough 1%`
    """
    from piar.review.codebook import people_needed
    from piar.review.status import status as look

    project, gain = open_project(), _share("enough", enough)
    if gain == 0:
        raise UsageError("One more person always adds something.", "Say what is worth asking one: --enough 1%.")
    found = look(project.store, _batch(project, batch))
    if gain is not None:
        found = replace(found, enough=people_needed(project.store, gain))
    return Answer(_plain(found), status_view(found, project.task.symbols))


def agenda(
    batch: BatchName = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write Markdown to a file, or the lead's page to a .html."),
    ] = None,
) -> Answer:
    """Comments on unclear rules and open disagreements, grouped by rule, as Markdown for a meeting.

    With --out monday.html: the lead's page over all batches, with agreement over time and by rule, who needs help, what
    is stale and what waits.

    Example: `piar review agenda --out agenda.md`
    """
    from piar.query.stale_labels import stale_labels
    from piar.report.meeting import meeting
    from piar.review.status import agenda as write
    from store.files import write_text

    project = open_project()
    named = _batch(project, batch)
    current = project.instruction()
    text = write(project.store, named, [(r.id, r.text) for r in current.rules])
    document: documents.Agenda = {"batch": named.name, "agenda": text}
    if out is None:
        return Answer(document, text)
    if out.suffix != ".html":
        write_text(out, text)
        return Answer(document, f"written to {out}")
    headline = meeting(project.store, out, current, stale_labels(project.store, current))
    return Answer(document, f"{headline}\n  written to {out}")


def hours(out: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv file.")]) -> Answer:
    """Write the time that each person spent, by batch and day, as CSV.

    Example: `piar review hours hours.csv`
    """
    from piar.review.status import hours as write

    rows = write(open_project().store, out)
    document: documents.Listed = {"rows": rows, "path": str(out)}
    return Answer(document, f"{many(rows, 'row')} written to {out}")


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .json (Label Studio) or .csv (a sheet).")],
    batch: NewBatch,
    hours: Hours = None,
    overlap: Overlap = None,
    random: RandomShare = None,
    checks: Checks = None,
    relabel: Relabel = None,
    adjudicate: Adjudicate = None,
    rest: Rest = None,
    pilot: Pilot = None,
) -> Answer:
    """Write a batch to files, one per annotator, for people who cannot reach the server, with a guide for sheets.

    Example: `piar review export w47.csv --batch w47`
    """
    from piar.review.files import export_batch

    project = open_project()
    sizes = {"hours": hours} | _shares(overlap, random, checks)
    composed = _compose(project, batch, sizes, relabel, adjudicate=adjudicate, rest=rest, pilot=pilot)
    paths = export_batch(project.store, composed, project.adopt_instruction(), file)
    view = "\n".join([composed_view(composed), *(f"  written: {p}" for p in paths)])
    document: documents.BatchFiles = {"batch": batch, "files": [str(p) for p in paths]}
    return Answer(document, view)


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A Label Studio JSON export or a filled-in sheet (CSV, Excel, ODS).")
    ],
    batch: BatchName = None,
    annotator: Annotated[str, typer.Option(help="Who answered, where the file does not say; or 1=ann,2=bob.")] = "",
    sheet: Sheet = None,
) -> Answer:
    """Bring a filled-in file back as new labels, as any spreadsheet program saved it.

    Example: `piar review import w47-ann.csv --annotator ann@example.com`
    """
    from piar.review.files import import_batch

    project = open_project()
    named = _batch(project, batch)
    with project.run("review-import", {"batch": named.name, "file": file.name}) as run_id:
        report = import_batch(project.store, named, file, annotator, run_id, sheet)
    return _answered(project, report)


def fetch_(
    number: Annotated[int, typer.Argument(metavar="PROJECT", help="The number in the project's address.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .json file; the label configuration goes beside it.")],
    url: Annotated[str | None, typer.Option("--url", help="The server.", show_default="[review] url")] = None,
) -> Answer:
    """Write an existing Label Studio project to files, for `piar init --from` or `piar import`. Needs no project here.

    The token is read from the environment variable that `[review] token_env` names, LABEL_STUDIO_API_KEY by default.

    Example: `piar review fetch 12 old.json`, then `piar init shoes --from old.json --label-config old.xml`
    """
    from piar.cli.verb import asked
    from piar.project.config import load
    from piar.review.history import fetch
    from piar.review.server import Server

    if file.suffix != ".json":
        raise UsageError(f"{file.name} is no .json file.", "Name one, e.g. old.json.")
    settings = load(asked().folder, asked().overrides, optional=True).review
    with Server.connect(url or settings.url, settings.token_env) as server:
        found = fetch(server, number, file, _progress("tasks read"))
    people = [f"  {who}: {n:,}" for who, n in sorted(found.annotators.items())]
    lines = [f"{found.title}: {many(found.tasks, 'task')}, {many(found.annotations, 'annotation')}", *people]
    following = f"next: piar init DIR --from {found.export} --label-config {found.label_config}"
    return Answer(_plain(found), "\n".join([*lines, following]))


def _settings(project: "Project") -> "ReviewSettings":
    return project.config.review


def _server(project: "Project") -> "Server":
    from piar.review.server import Server

    settings = _settings(project)
    return Server.connect(settings.url, settings.token_env)


def _compose(
    project: "Project", name: str, changes: dict[str, Any], relabel: str | None = None, **chosen: Any
) -> "Batch":
    """The batch of that name, composed now or before.

    Args:
        changes: of `[review]`.
        chosen: which rows instead of the queue's, as `piar.review.batch.compose` takes them; one of these at most.
    """
    from pydantic import ValidationError

    from piar.query.stale_labels import stale_labels
    from piar.review.batch import compose
    from piar.review.settings import ReviewSettings
    from store.task import explain
    from store.types import SPLITS

    if sum(value is not None for value in (relabel, *chosen.values())) > 1:
        raise UsageError(
            "A batch is of one kind.", "Give one of --relabel, --adjudicate, --rest and --pilot, the others later."
        )
    if relabel is not None and relabel not in (*SPLITS, "stale"):
        raise UsageError(f"{relabel!r} is no split.", f"Choose one of {', '.join(SPLITS)}, or stale.")
    again: Any = relabel
    if relabel == "stale":
        again = sorted({key for old in stale_labels(project.store, project.instruction()) for key in old.sample_ids})
    merged = {**_settings(project).model_dump(), **{k: v for k, v in changes.items() if v is not None}}
    try:
        settings = ReviewSettings.model_validate(merged)
    except ValidationError as error:
        raise UsageError(f"That is no size of a batch: {explain(error)}", "Mend that option.") from None
    with project.run("review-push", {"batch": name, **merged}) as run_id:
        return compose(project.store, name, settings, run_id, relabel=again, **chosen)


def _batch(project: "Project", name: str | None) -> "Batch":
    from piar.review.batch import load
    from piar.review.status import latest_batch

    wanted = name or latest_batch(project.store)
    found = load(project.store, wanted) if wanted else None
    if found is None:
        raise PiarError(
            f"There is no batch {name!r}." if name else "There is no batch yet.",
            "Make one: `piar review here` at your terminal, `piar review push --batch w1` for Label Studio.",
        )
    return found


def _shares(overlap: str | None, random: str | None, checks: str | None) -> dict[str, Any]:
    return {k: _share(k, v) for k, v in (("overlap", overlap), ("random", random), ("checks", checks))}


def _share(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"--{name} {text!r} is no share.", "Write 12% or 0.12.")
    return value


def _plain(report: object) -> dict[str, Any]:
    from piar.cli.verb import plain

    return dict(plain(report))


def _progress(what: str) -> Any:
    def say(done: int, total: int) -> None:
        messages().print(f"  {done:,} of {total:,} {what}")

    return say


def _answered(project: "Project", report: "PullReport") -> Answer:
    """What came back, and where the rows that waited in the pool have gone."""
    from piar.cli.render.imported import retired_words
    from piar.evolve.ledger import retire
    from piar.review.first import settle_in

    moved = settle_in(project.store, project.config.split, _settings(project).seed)
    retired = retire(project.store)
    words = [f"splits: {', '.join(f'{split} {n:,}' for split, n in moved.items())} rows of the pool"] if moved else []
    words += [retired_words(retired)] if retired else []
    return Answer({**_plain(report), "splits": moved, "retired": retired}, "\n".join([pulled_view(report), *words]))
