"""Another student takes over from the one that serves, at SIGHUP, and no request is lost."""

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from piar.serve.offer import Offer
from store.errors import PiarError
from store.task import Task
from trainers.checkpoint import MARKER, check, fingerprint
from trainers.students import AnySession, load_student, session_of

log = logging.getLogger(__name__)


def same_task(task: Task, other: Task, where: Path) -> None:
    """Make sure that clients of one student can be answered by another: fields, grades and their values are alike.

    Raises:
        PiarError: they are not.
    """
    if (task.fields, task.values, task.ordered) != (other.fields, other.values, other.ordered):
        raise PiarError(
            f"The student in {where} judges another task: its fields or grades are not those of the one that serves.",
            "Name one that was taught the same task, or serve this one by a server of its own.",
        )


def whole_student(folder: Path, device: str | None, task: Task | None = None) -> AnySession:
    """A student from a folder whose every file is what it was when it was written, warm.

    Args:
        task: whose fields and grades it must have.

    Raises:
        PiarError: no student there, a checkpoint that is not whole, or one of another task.
    """
    if (folder / MARKER).exists():
        check(folder, hashes=True)
    student = load_student(folder, device=device)
    if task is not None:
        same_task(task, student.task, folder)
    return session_of(student)


def whole(folder: Path, device: str | None, reasons: Path | None = None, task: Task | None = None) -> AnySession:
    """A student and, where one is named, the one that writes its reasons.

    Args:
        task: whose fields and grades they must have.

    Raises:
        PiarError: see `whole_student`.
        UsageError: the other one was taught no traces.
    """
    session = whole_student(folder, device, task)
    if reasons is None:
        return session
    from trainers.explained import Explained

    return Explained(session, whole_student(reasons, device, session.student.task))


def reload(app: FastAPI, folder: Path, device: str | None, reasons: Path | None = None) -> None:
    """Read a student and let it answer from now on; until it is warm, and if it cannot be read, the old one does.

    Raises:
        PiarError: see `whole`; or a cascade was fitted for the student from before.
    """
    engine, offer, second = app.state.engine, app.state.offer, app.state.second
    if second is not None:
        second.cascade.require(0, fingerprint(folder), f"student:{folder}")
    session = whole(folder, device, reasons, offer.task)
    app.state.offer = Offer.of(session.student, offer.names, offer.most)
    engine.replace(session)


def reload_on_hangup(
    app: FastAPI, folder: Path, device: str | None, tell: Callable[[str], None], reasons: Path | None = None
) -> None:
    """Reload at SIGHUP, beside the requests; one at a time. Does nothing where there is no such signal."""
    if not hasattr(signal, "SIGHUP"):
        return
    turn = threading.Lock()

    def again() -> None:
        with turn:
            try:
                reload(app, folder, device, reasons)
                tell(f"Read {folder} again: it answers from now on.")
            except Exception as error:
                if not isinstance(error, PiarError):
                    log.exception("reloading %s failed", folder)
                tell(f"Not reloaded, the student from before still answers: {error}")

    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=again, name="reload", daemon=True).start())
