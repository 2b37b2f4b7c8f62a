"""What a project shows: instructions side by side, the page, tables, and what comes next. Nothing is changed."""

from pathlib import Path
from typing import TYPE_CHECKING

from piar.project.asking import teacher_name
from piar.project.cascading import stale_cascade
from piar.project.folder import PROPOSAL
from piar.project.measuring import drift
from store.errors import PiarError

if TYPE_CHECKING:
    import polars as pl

    from piar.evolve.last_search import Tried
    from piar.project.endpoints import Check
    from piar.project.workspace import Workspace
    from piar.query.export import ListFormat, What
    from piar.query.judgement_lists import Written
    from piar.query.show import Difference
    from piar.query.status import Status
    from piar.report.page import ReportFile


def difference(project: "Workspace", *ids: str) -> "Difference":
    """Two instructions side by side: `(A, B)`, `(A,)` against the one in force, or its last change."""
    from piar.query.show import difference, pair_of

    return difference(project.store, *pair_of(project.store, project.instruction(), ids))


def candidate(project: "Workspace", prefix: str = "") -> "tuple[Tried, Difference]":
    """The candidate that was tested last, or that of an id, and how it differs from what it was tested against."""
    from piar.query.show import candidate, difference

    found = candidate(project.store, prefix)
    return found, difference(
        project.store, project.store.instruction(found.against), project.store.instruction(found.candidate)
    )


def report(project: "Workspace", out: str | Path | None = None) -> "ReportFile":
    """Write one self-contained HTML page; see `piar.report.page.report`.

    Args:
        out: the file; `report.html` in the project when None.
    """
    from piar.measure.embeddings import embedder
    from piar.report.page import report

    path, offline = Path(out) if out else project.folder / "report.html", project.config.teacher.simulated
    try:
        current = project.instruction()
    except PiarError:  # a page is written although `instruction.md` cannot be read
        current = None
    embed = embedder(project.config.baselines, project.folder, keep=False)
    return report(project.store, path, current=current, offline=offline, moved=drift(project), embed=embed)


def export(project: "Workspace", what: "What", path: str | Path, *, force: bool = False) -> int:
    """Write labels, verdicts, samples or instructions to a file; see `piar.query.export.export`."""
    from piar.query.export import export

    return export(project.store, what, Path(path), force=force)


def export_list(project: "Workspace", form: "ListFormat", path: str | Path, *, force: bool = False) -> "Written":
    """Write the labels as a search tool's judgement list; see `piar.query.judgement_lists.export_list`."""
    from piar.query.judgement_lists import export_list

    return export_list(project.store, form, Path(path), force=force)


def sql(project: "Workspace", statement: str) -> "pl.DataFrame":
    """The result of a read-only SQL statement; see `piar.query.sql.query`."""
    from piar.query.sql import query

    return query(project.store, statement)


def status(project: "Workspace") -> "Status":
    """What is stale, what comes next and what that would cost; see `piar.query.status.status`."""
    from piar.query.status import status

    waits, cascade = (project.folder / PROPOSAL).exists(), stale_cascade(project)
    return status(
        project.store,
        project.config.teacher,
        teacher_name(project),
        project.instruction(),
        proposal=waits,
        beside=[cascade] if cascade else (),
    )


def doctor(project: "Workspace") -> "list[Check]":
    """What works here and what does not; see `piar.project.doctor.diagnose`."""
    from piar.project.doctor import diagnose

    return diagnose(project.folder)
