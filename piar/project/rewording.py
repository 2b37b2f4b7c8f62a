"""An edit that somebody calls minor: its words are new, what it asks is not, and no label rests on the difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from piar.project.workspace import whoami
from store.errors import UsageError

if TYPE_CHECKING:
    from piar.project.workspace import Workspace
    from store.types import Instruction


@dataclass(frozen=True, slots=True)
class Rewording:
    """What was called minor, or no longer is: `what` of the edit from `against` to `instruction`."""

    outcome: str
    instruction: str
    against: str
    what: tuple[str, ...]
    by: str
    at: datetime


def minor(
    project: "Workspace",
    what: Sequence[str] = (),
    *,
    version: str | None = None,
    revoke: bool = False,
    by: str | None = None,
) -> Rewording:
    """Say that an edit of the instruction changed words only, or take that back.

    Args:
        what: `R07`, `rule R07` or `grade 1`; all that the edit changed when empty.
        version: beginning of the id of the instruction that the edit made; the latest edit that changed all of `what`
            when None, and where it is taken back the latest that was called minor.
        by: who says so; the person at work when None.

    Raises:
        UsageError: there is no such edit, or it adds or drops a rule or gives one another grade.
    """
    from piar.evolve.ledger import record
    from store.db import now
    from store.wording import mark_overtaken

    by = by or whoami(project.folder)
    before, after, chosen = _latest(project, what, version, revoke=revoke)
    if not revoke:
        _words_alone(before, after, chosen)
    outcome = "revoked" if revoke else "minor"
    reason = f"{', '.join(chosen)}: {'not only the wording' if revoke else 'the wording only'}"
    with project.run("minor", {"by": by, "revoke": revoke}) as run_id, project.store.write():
        record(project.store, "minor", after.id, before.id, outcome, reason, {"what": chosen}, by, run_id)
        mark_overtaken(project.store)
    return Rewording(outcome, after.id, before.id, tuple(chosen), by, now())


def _latest(
    project: "Workspace", what: Sequence[str], version: str | None, *, revoke: bool
) -> "tuple[Instruction, Instruction, list[str]]":
    """The latest edit that is meant, and what of it."""
    for before, after, touched in reversed(_edits(project, revoke=revoke)):
        names = {name.casefold(): t for t in touched for name in (t.partition(" ")[2], t)}
        if touched and after.id.startswith(version or "") and all(name.casefold() in names for name in what):
            return before, after, list(dict.fromkeys(names[name.casefold()] for name in what)) or touched
    named, made = ", ".join(what) or "a rule or a grade", f" that made {version}" if version else ""
    raise UsageError(
        f"No edit{made} of {named} is called minor." if revoke else f"No edit{made} changed {named}.",
        "`piar show instruction` lists the versions, `piar show diff A B` says what changed between two.",
    )


def _words_alone(before: "Instruction", after: "Instruction", chosen: Sequence[str]) -> None:
    """Refuse to call minor what no reader would take for other words."""
    more: dict[str, str] = {}
    for what in (what for what in chosen if what.startswith("rule ")):
        was, now = (i.rule(what.partition(" ")[2]) for i in (before, after))
        if was is None or now is None:
            more[what] = f"{'adds' if was is None else 'drops'} {what}"
        elif was.grade != now.grade:
            more[what] = f"gives {what} another grade"
    if not more:
        return
    rest = [what.partition(" ")[2] if what.startswith("rule ") else f"'{what}'" for what in chosen if what not in more]
    raise UsageError(
        f"{before.id} → {after.id} {' and '.join(more.values())}: that is more than other words.",
        f"Call the rest of it minor: `piar minor {' '.join(rest)} --edit {after.id}`."
        if rest
        else "Labels that rest on what it changed are judged again: `piar status` names them and their hours. A new "
        "rule makes none stale.",
    )


def _edits(project: "Workspace", *, revoke: bool) -> "list[tuple[Instruction, Instruction, list[str]]]":
    """The instruction before each edit and after it, and what it changed; to take back: what of it is called minor."""
    from store.wording import changed, minor_edits, timeline, words

    held = [instruction for _, instruction in timeline(project.store, project.adopt_instruction())]
    called = minor_edits(project.store) if revoke else []
    found = []
    for before, after in pairwise(held):
        touched = [m.what for m in called if (m.against, m.version) == (before.id, after.id)]
        if not revoke:
            touched = changed(words(before, project.store), words(after, project.store))
        found.append((before, after, touched))
    return found
