"""`piar review here`: a person labels at the terminal."""

import sys
from contextlib import suppress
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from piar.cli.verb import Answer, here, messages, open_project
from store.errors import UsageError

if TYPE_CHECKING:
    from piar.cli.desk import Tally
    from piar.project import documents
    from piar.project.facade import Project
    from piar.review.sitting import Sitting

_LONGEST_NAME = 254  # characters, of a person
_UNWRAPPED = 1_000_000  # columns: a text is a line, which scripts can read and terminals wrap themselves


def label_here(
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="NAME", help="A batch with rows for you, or the name of a new one."),
    ] = None,
    source: Annotated[
        Literal["queue", "random"] | None,
        typer.Option(
            "--from", help="Where a new batch comes from: mined or at random.", show_default="the queue if any"
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--n", min=1, help="Rows of a new batch.")] = 50,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who you are.", show_default="git's")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Type answers as lines; also from a pipe.")] = False,
) -> Answer:
    """Label rows in this terminal: one key a grade, undo, skip, comment, doubt; each answer is kept at once.

    Without --batch it goes on with the one that you left unfinished, or makes a new one. You see neither gold nor what
    others and the models said. Stop whenever you like; the same command goes on. Labelling beside `piar label` works.

    Example: `piar review here --n 50`
    """
    from piar.project.workspace import whoami
    from piar.review.sitting import Sitting, batch_for

    project = open_project()
    person = _named(by if by is not None else whoami(project.folder))
    front = _way(lines)
    detail: dict[str, Any] = {}
    with project.run("review-here", {"batch": batch, "from": source, "n": rows, "by": person}, detail=detail) as run_id:
        found = batch_for(project.store, person, project.config.review, run_id, name=batch, source=source, rows=rows)
        project.adopt_instruction()
        sitting = Sitting(project.store, found, person, run_id)
        tally = _sit(project, sitting, front)
        document = _brought(project, sitting, tally)
        detail |= document
    again = "".join(f" {option} {quote(value)}" for option, value in (("--batch", batch), ("--by", by)) if value)
    return Answer(document, _view(project, document, again), exit_code=130 if tally.interrupted else 0)


def _named(person: str) -> str:
    """A person's name as it is kept with labels.

    Raises:
        UsageError: nothing that can be printed.
    """
    name = " ".join("".join(c if c.isprintable() else " " for c in person).split())[:_LONGEST_NAME]
    if not name:
        raise UsageError("Nobody is named.", "Say who you are: --by ann@example.com")
    return name


def _way(lines: bool) -> Literal["keys", "lines"]:
    """How replies are read.

    Raises:
        UsageError: keys are wanted where there is no terminal.
    """
    from piar.cli.keys import possible

    shown = messages()
    if lines or (sys.stdin.isatty() and not possible(shown.file)):  # a plain terminal
        return "lines"
    if not possible(shown.file):
        raise UsageError(
            "This is no terminal, so that no key can be read.",
            "Run it in a terminal; or give one answer a line with --lines; or fill in a sheet: "
            "`piar review export rows.csv --batch NAME`.",
        )
    return "keys"


def _sit(project: "Project", sitting: "Sitting", way: str) -> "Tally":
    from rich.console import Console

    from piar.cli.desk import MOST_KEYS, Desk, Lines, Screen, key_of_grades
    from piar.cli.keys import keyboard

    shown, instruction, task = messages().file, project.instruction(), project.task
    grades = key_of_grades(task)
    by_line = way == "lines" or len(task.grades) > MOST_KEYS
    console = Console(file=shown, width=_UNWRAPPED if by_line else None, markup=False, emoji=False, highlight=False)
    if by_line:
        return Desk(sitting, Lines(console, sys.stdin, task, grades), console, instruction).work()
    with keyboard(shown) as keys:  # the console's size follows the terminal's
        tally = Desk(sitting, Screen(console, keys, task.symbols, grades), console, instruction).work()
        with suppress(OSError):  # a terminal that was closed
            console.clear()
    return tally


def _brought(project: "Project", sitting: "Sitting", tally: "Tally") -> "documents.Sat":
    """What came of it; rows of the pool that were answered get their splits."""
    from piar.evolve.ledger import retire
    from piar.review.first import settle_in

    config, place = project.config, sitting.place()
    return {
        "batch": sitting.batch.name,
        "by": sitting.person,
        "answered": len(tally.graded),
        "skipped": len(tally.skipped),
        "undone": tally.undone,
        "median_seconds": tally.median_seconds,
        "left": place.rows - place.done,
        "splits": settle_in(project.store, config.split, config.review.seed),
        "retired": retire(project.store),
    }


def _view(project: "Project", found: "documents.Sat", again: str) -> str:
    """How many, how fast, and what next."""
    pace = "" if found["median_seconds"] is None else f", {found['median_seconds']:.0f} s a row (median)"
    counts = [f"{found[word]:,} {word}" for word in ("skipped", "undone") if found[word]]
    lines = [
        f"batch {found['batch']}: {_rows(found['answered'])} graded by {found['by']}{pace}"
        + "".join(f"; {count}" for count in counts)
    ]
    if found["splits"]:
        moved = ", ".join(f"{split} {n:,}" for split, n in found["splits"].items())
        lines.append(f"  splits: {moved} rows of the pool")
    if found["left"]:
        lines.append(f"  next: {here(f'piar review here{again}')}: {_rows(found['left'])} left")
    else:
        steps = project.status().next
        lines += [f"  next: {here(steps[0].command)}: {steps[0].why}"] if steps else []
    return "\n".join(lines)


def _rows(n: int) -> str:
    return f"{n:,} row{'' if n == 1 else 's'}"
