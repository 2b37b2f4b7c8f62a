"""A proposal waits in `instruction.proposed.md` until a person accepts or rejects it."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from piar.project.folder import INSTRUCTION, PROPOSAL
from piar.project.workspace import whoami
from store.errors import PiarError, UsageError
from store.files import read_text

if TYPE_CHECKING:
    from piar.project.workspace import Workspace
    from store.db import Store
    from store.types import Instruction


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a proposal, by whom and when.

    Attributes:
        procedure: what was tested in its place, where cross-fitting proposed it; else "".
    """

    outcome: str
    instruction: str
    against: str
    by: str
    at: datetime
    procedure: str = ""


def propose(project: "Workspace", instruction: "Instruction | None") -> None:
    """Put a proposal beside `instruction.md`, or take away the one that is there."""
    from piar.instructions.markdown import write
    from store.files import write_text

    path = project.folder / PROPOSAL
    if instruction is None:
        path.unlink(missing_ok=True)
    else:
        write_text(path, write(instruction, project.task))


def proposal(project: "Workspace") -> "Instruction":
    """What waits in `instruction.proposed.md`; edited by hand, it is a new version of what was proposed.

    Raises:
        PiarError: nothing waits.
    """
    from piar.instructions.markdown import parse

    path = project.folder / PROPOSAL
    if not path.exists():
        raise PiarError("No proposal waits.", "`piar evolve` ends with one when it finds something better.")
    written = parse(read_text(path), project.task, PROPOSAL)
    if project.store.knows(written.id):
        return project.store.instruction(written.id)
    return replace(written, parent=_tested(project.store)[0], note="The proposal, edited before it was accepted.")


def accept(project: "Workspace", by: str | None = None) -> Decision:
    """Let the proposal replace `instruction.md`, which must be what the proposal was tested against.

    Args:
        by: who accepts; the person at work when None.

    Raises:
        PiarError: nothing waits, or `instruction.md` has changed since.
    """
    from piar.instructions.markdown import write
    from store.files import write_text
    from store.wording import mark_overtaken

    store, by = project.store, by or whoami(project.folder)
    with project.run("accept", {"by": by}) as run_id:
        current, waiting = project.adopt_instruction(), proposal(project)
        _, against = _tested(store)
        if against is not None and against != current.id:
            raise PiarError(
                f"The proposal was tested against {against}, but {INSTRUCTION} now holds {current.id}: accepting would "
                "undo that edit.",
                "Run `piar evolve` again, or reject the proposal.",
            )
        author = waiting.author if waiting.author != "seed" else by
        with store.write():
            store.put_instruction(replace(waiting, author=author), run_id)
            decision = _decide(store, "acceptance", "accepted", waiting.id, current.id, by, run_id)
            mark_overtaken(store)
        write_text(project.folder / INSTRUCTION, write(waiting, project.task))
        propose(project, None)
    return decision


def reject(project: "Workspace", by: str | None = None) -> Decision:
    """Send the proposal away; `instruction.md` stays.

    Args:
        by: who rejects; the person at work when None.

    Raises:
        PiarError: nothing waits.
    """
    by = by or whoami(project.folder)
    with project.run("reject", {"by": by}) as run_id:
        current, waiting = project.adopt_instruction(), _sent_away(project)
        decision = _decide(project.store, "rejection", "rejected", waiting, current.id, by, run_id)
        propose(project, None)
    return decision


def _sent_away(project: "Workspace") -> str:
    """The id of what waits; of an edit that cannot be read, of the proposal that was edited."""
    try:
        return proposal(project).id
    except UsageError:
        tested = _tested(project.store)[0]
        if tested is None:
            raise
        return tested


def _decide(store: "Store", kind: str, outcome: str, instruction: str, against: str, by: str, run_id: str) -> Decision:
    from piar.evolve.last_search import untested
    from piar.evolve.ledger import record
    from store.db import now

    record(store, kind, instruction, against, outcome, f"{outcome} by {by}", {}, by, run_id)
    return Decision(outcome, instruction, against, by, now(), untested(store, instruction))


def _tested(store: "Store") -> tuple[str, str] | tuple[None, None]:
    """The latest instruction that passed the test, and the one that it beat."""
    found = store.frame(
        "select instruction, against from decisions where kind = 'promotion' and outcome = 'proposed' "
        "order by created_at desc limit 1"
    )
    return found.row(0) if found.height else (None, None)
