"""Verbs for people: the review round trip through Label Studio or files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piar.cli.verb import Answer, Panel, group, messages, open_project, verb
from store.errors import PiarError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from piar.project import Project
    from piar.review.batch import Batch
    from piar.review.push_pull import PullReport
    from piar.review.server import Server
    from piar.review.settings import ReviewSettings
    from piar.review.status import BatchStatus

HELP = """Give people a batch to judge, in Label Studio or by file, and bring their labels back.

A batch is chosen once and frozen: disagreements from `piar mine`, random rows, and a few checks, one
project per annotator, blind. Community Label Studio has no permissions, so blindness is by courtesy.
"""
BatchName = Annotated[str | None, typer.Option("--batch", metavar="NAME", help="The batch.", show_default="the latest")]


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    review = group(HELP)
    for function in (push, pull, status, agenda, hours):
        verb(review, function.__name__)(function)
    verb(review, "export")(export)
    verb(review, "import")(import_)
    app.add_typer(review, name="review", rich_help_panel=Panel.PEOPLE, help=HELP)


def push(
    batch: Annotated[str, typer.Option("--batch", metavar="NAME", help="Name of the batch, e.g. w47.")],
    hours: Annotated[float | None, typer.Option(help="Size in hours, all annotators together.")] = None,
    overlap: Annotated[str | None, typer.Option(metavar="SHARE", help="Share judged by two people, e.g. 12%.")] = None,
    random: Annotated[str | None, typer.Option(metavar="SHARE", help="Share drawn at random, e.g. 20%.")] = None,
    checks: Annotated[str | None, typer.Option(metavar="SHARE", help="Share with undoubted gold, e.g. 5%.")] = None,
    relabel: Annotated[str | None, typer.Option(metavar="SPLIT", help="Judge a whole split again instead.")] = None,
    adjudicate: Annotated[
        str | None, typer.Option(metavar="BATCH", help="Settle an earlier batch's disagreements, all opinions shown.")
    ] = None,
) -> Answer:
    """Compose a batch and bring it to Label Studio. Pushing again sends only what is missing.

    Defaults come from `[review]` in piar.toml: annotators, url, and the name of the variable with the token.

    Example: `piar review push --batch w47 --hours 16 --overlap 12% --random 20% --checks 5%`
    """
    from piar.review.push_pull import push as send

    project = open_project()
    shares = {"overlap": overlap, "random": random, "checks": checks}
    composed = _compose(
        project, batch, {"hours": hours, **{k: _share(k, v) for k, v in shares.items()}}, relabel, adjudicate
    )
    with _server(project) as server:
        report = send(project.store, server, composed, project.instruction(), _progress("tasks there"))
    text = f"batch {report.batch}: {report.pushed:,} tasks pushed, {report.known:,} known"
    people = [f"  {p}: {n:,} tasks in project {report.projects[p]}" for p, n in report.annotators.items()]
    word = ["all rows were drawn at random: `piar mine` queues those that are worth people's time"]
    return Answer(_plain(report), "\n".join([text, *people, *(word if composed.unqueued else [])]))


def pull(batch: BatchName = None) -> Answer:
    """Bring answers back as new labels; nothing is overwritten, pulling again adds nothing.

    Example: `piar review pull --batch w47`
    """
    from piar.review.push_pull import pull as fetch

    project = open_project()
    named = _batch(project, batch)
    with project.run("review-pull", {"batch": named.name}) as run_id, _server(project) as server:
        report = fetch(project.store, server, named, run_id, _progress("projects read"))
    return _answered(project, report)


def status(batch: BatchName = None) -> Answer:
    """Progress, agreement, each person's reliability, checks passed, gold overturned.

    Example: `piar review status --json`
    """
    from piar.review.status import status as look

    project = open_project()
    found = look(project.store, _batch(project, batch))
    return Answer(_plain(found), _status_view(found))


def agenda(
    batch: BatchName = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write Markdown to a file.")] = None,
) -> Answer:
    """Comments on unclear rules and open disagreements, grouped by rule, as Markdown for a meeting.

    Example: `piar review agenda --out agenda.md`
    """
    from piar.review.status import agenda as write

    project = open_project()
    named = _batch(project, batch)
    text = write(project.store, named, [(r.id, r.text) for r in project.instruction().rules])
    if out is not None:
        out.write_text(text, encoding="utf-8")
    return Answer({"batch": named.name, "agenda": text}, f"written to {out}" if out else text)


def hours(out: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv file.")]) -> Answer:
    """Write the time that each person spent, by batch and day, as CSV.

    Example: `piar review hours hours.csv`
    """
    from piar.review.status import hours as write

    rows = write(open_project().store, out)
    return Answer({"rows": rows, "path": str(out)}, f"{rows:,} rows written to {out}")


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .json (Label Studio) or .csv (a sheet).")],
    batch: Annotated[str, typer.Option("--batch", metavar="NAME", help="Name of the batch.")],
    hours: Annotated[float | None, typer.Option(help="Size in hours, all annotators together.")] = None,
) -> Answer:
    """Write a batch to files, one per annotator, for people who cannot reach the server.

    Example: `piar review export w47.csv --batch w47`
    """
    from piar.review.files import export_batch

    project = open_project()
    composed = _compose(project, batch, {"hours": hours})
    paths = export_batch(project.store, composed, project.instruction(), file)
    return Answer({"batch": batch, "files": [str(p) for p in paths]}, "\n".join(str(p) for p in paths))


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Label Studio JSON export or a filled-in sheet.")],
    batch: BatchName = None,
    annotator: Annotated[str, typer.Option(help="Who answered, where the file does not say.")] = "",
) -> Answer:
    """Bring a filled-in file back as new labels.

    Example: `piar review import w47-ann.csv --annotator ann@example.com`
    """
    from piar.review.files import import_batch

    project = open_project()
    named = _batch(project, batch)
    with project.run("review-import", {"batch": named.name, "file": file.name}) as run_id:
        report = import_batch(project.store, named, file, annotator, run_id)
    return _answered(project, report)


def _settings(project: "Project") -> "ReviewSettings":
    return project.config.review


def _server(project: "Project") -> "Server":
    from piar.review.server import Server

    settings = _settings(project)
    return Server.connect(settings.url, settings.token_env)


def _compose(
    project: "Project", name: str, changes: dict[str, Any], relabel: str | None = None, adjudicate: str | None = None
) -> "Batch":
    from piar.review.batch import compose
    from piar.review.settings import ReviewSettings
    from store.types import SPLITS

    if relabel is not None and relabel not in SPLITS:
        raise UsageError(f"{relabel!r} is no split.", f"Choose one of {', '.join(SPLITS)}.")
    merged = {**_settings(project).model_dump(), **{k: v for k, v in changes.items() if v is not None}}
    with project.run("review-push", {"batch": name, **merged}) as run_id:
        split = next((s for s in SPLITS if s == relabel), None)
        settings = ReviewSettings.model_validate(merged)
        return compose(project.store, name, settings, run_id, relabel=split, adjudicate=adjudicate)


def _batch(project: "Project", name: str | None) -> "Batch":
    from piar.review.batch import load
    from piar.review.status import latest_batch

    wanted = name or latest_batch(project.store)
    found = load(project.store, wanted) if wanted else None
    if found is None:
        raise PiarError(
            f"There is no batch {name!r}." if name else "There is no batch yet.", "Make one: piar review push"
        )
    return found


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
    from piar.review.first import settle_in

    moved = settle_in(project.store, project.config.split, _settings(project).seed)
    words = [f"splits: {', '.join(f'{split} {n:,}' for split, n in moved.items())} rows of the pool"] if moved else []
    return Answer({**_plain(report), "splits": moved}, "\n".join([_pulled(report), *words]))


def _pulled(report: "PullReport") -> str:
    lines = [f"batch {report.batch}: {report.pulled:,} new labels, {report.known:,} known"]
    lines += [f"  {person}: {n:,}" for person, n in sorted(report.annotators.items())]
    return "\n".join(lines + [f"  {n:,} × {reason}" for reason, n in sorted(report.odd.items())])


def _status_view(found: "BatchStatus") -> "RenderableType":
    from rich.console import Group

    from piar.cli.views import table

    head = ["annotator", "done", "skipped", "s/row", "hours left", "checks", "reliability"]
    rows: list[Sequence[object]] = [
        (
            p.annotator + (f" ({p.foreign} in another's project)" if p.foreign else ""),
            f"{p.answered}/{p.assigned}",
            p.skipped,
            "" if p.seconds is None else f"{p.seconds:.0f}",
            f"{p.hours_left:.1f}",
            f"{p.checks_passed}/{p.checks}",
            "" if p.reliability is None else f"{p.reliability:.2f}",
        )
        for p in found.annotators
    ]
    alpha = found.agreement.alpha
    known = alpha is not None and alpha.value is not None and alpha.low is not None and alpha.high is not None
    said = (
        f"alpha {alpha.value:.2f} ({alpha.low:.2f} to {alpha.high:.2f}) on {found.agreement.items} random rows"
        if known and alpha is not None
        else "agreement: no random row was judged by two people yet"
    )
    teacher = "" if found.teacher_reliability is None else f" · teacher's reliability {found.teacher_reliability:.2f}"
    return Group(
        table(head, rows, 0), f"{said}{teacher}", f"gold overturned by two people of one mind: {found.overturned}"
    )
