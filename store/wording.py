"""Whether two wordings of a rule or a grade say the same: for their letters, or because somebody called the edit minor.

Typography counts as nothing: blanks, quotes, dashes, a full stop at the end. All else is a change until a person says
that it was none (`piar minor`). That is a decision like others: who, when, of which edit; a later one takes it back.

What has been overtaken is kept in the table `overtaken`, from which the views tell which labels no longer vote.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING
from unicodedata import normalize

if TYPE_CHECKING:
    from store.db import Store
    from store.types import Instruction

_TYPOGRAPHY = str.maketrans(
    dict.fromkeys("‘’‚‛", "'")
    | dict.fromkeys("“”„«»", '"')
    | dict.fromkeys("‐‑‒–—−", "-")
    | dict.fromkeys("\u00ad\u200b\u2060\ufeff", "")
    | {"…": "..."}
)
_TIMELINE = """
select instruction_id as instruction, created_at as since from instructions
where run_id in (select run_id from runs where verb = 'edit')
union all select instruction, created_at from decisions where outcome in ('accepted', 'in force')
order by since"""


@dataclass(frozen=True, slots=True)
class Minor:
    """One rule or grade whose words were changed, as somebody said, without changing what they ask.

    Attributes:
        what: `rule R07` or `grade 1`.
        version, against: the instruction that has the new words, and the one before it.
    """

    what: str
    version: str
    against: str
    by: str
    at: datetime


def timeline(store: "Store", current: "Instruction | None" = None) -> list[tuple[datetime, "Instruction"]]:
    """Each time that an instruction came into force, the first one first, `current` last, where the store may not know
    it yet."""
    from store.db import now

    known = store.frame(_TIMELINE).rows()
    held = [(since, store.instruction(id)) for id, since in known]
    if held and current and held[-1][1].id != current.id:  # an edit that nobody has asked under yet
        held.append((now(), current))
    return held


def words(instruction: "Instruction", store: "Store") -> dict[str, str]:
    """`grade 1`, `rule R07` -> what it says, typography apart; a rule that is not there says nothing."""
    meanings = {f"grade {g.symbol}": instruction.meanings.get(g.symbol, g.meaning) for g in store.task.grades}
    rules = {f"rule {rule.id}": f"{rule.grade} {rule.words}" for rule in instruction.rules}
    return {what: _plain(text) for what, text in (meanings | rules).items()}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What says something else; arguments as of `words`."""
    return [what for what in dict.fromkeys((*before, *after)) if before.get(what) != after.get(what)]


def minor_edits(store: "Store") -> list[Minor]:
    """What was called minor and not taken back since, the oldest first."""
    rows = store.frame(
        "select instruction, against, detail, outcome, decided_by, created_at from decisions "
        "where kind = 'minor' order by created_at"
    ).rows()
    standing: dict[tuple[str, str, str], Minor] = {}
    for version, against, detail, outcome, by, at in rows:
        for what in json.loads(detail)["what"]:
            standing.pop((what, version, against), None)
            if outcome == "minor":
                standing[what, version, against] = Minor(what, version, against, by, at)
    return list(standing.values())


def overtaken(
    store: "Store", held: "Sequence[tuple[datetime, Instruction]]", minor: Iterable[Minor]
) -> dict[str, list[tuple[datetime, datetime]]]:
    """`grade 1`, `rule R07` -> the spans of time, the first one first, in which it said something else than now.

    Args:
        held: of `timeline`.
        minor: edits that changed nothing of what is asked.
    """
    wordings = Wordings(store, minor)
    versions = [words(instruction, store) for _, instruction in held]
    starts = [datetime.min, *(since for since, _ in held[1:])]
    found: dict[str, list[tuple[datetime, datetime]]] = {}
    for what in {what for said in versions for what in said}:
        meant = [wordings.meaning(what, said.get(what)) for said in versions]
        edges = [i for i, meaning in enumerate(meant) if not i or meaning != meant[i - 1]]
        spans = [(starts[a], starts[b]) for a, b in pairwise(edges) if meant[a] != meant[-1]]
        if spans:
            found[what] = spans
    return found


def mark_overtaken(store: "Store") -> None:
    """Bring the table `overtaken` up to date: to be called in the transaction that changes what is in force."""
    held = timeline(store)
    spans = overtaken(store, held, minor_edits(store)) if len(held) > 1 else {}
    rows = [(what, *span) for what, each in sorted(spans.items()) for span in each]
    with store.write() as con:
        con.execute("delete from overtaken")
        if rows:
            con.executemany("insert into overtaken values (?, ?, ?)", rows)


class Wordings:
    """Which wordings say the same.

    Args:
        minor: edits that changed nothing of what is asked.
    """

    def __init__(self, store: "Store", minor: Iterable[Minor]) -> None:
        self._same: dict[tuple[str, str | None], tuple[str, str | None]] = {}
        for edit in minor:
            before, after = (words(store.instruction(id), store).get(edit.what) for id in (edit.against, edit.version))
            if (a := self.meaning(edit.what, before)) != (b := self.meaning(edit.what, after)):
                self._same[b] = a

    def meaning(self, what: str, said: str | None) -> tuple[str, str | None]:
        """Equal for wordings of a thing that say the same."""
        found = (what, said)
        while found in self._same:
            found = self._same[found]
        return found

    def agree(self, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
        """Whether all rules and grades say the same."""
        return all(self.meaning(w, before.get(w)) == self.meaning(w, after.get(w)) for w in changed(before, after))


def same_but_for_words(store: "Store", current: "Instruction") -> list[str]:
    """Ids of other instructions that were in force and ask the same as `current`, by typography or minor edits.

    The preamble and the examples must be the same, and the rules stand in the same order.
    """
    wordings, now = Wordings(store, minor_edits(store)), words(current, store)
    order = [rule.id for rule in current.rules]
    return [
        held.id
        for held in {i.id: i for _, i in timeline(store, current)}.values()
        if held.id != current.id
        and (_plain(held.preamble), held.examples) == (_plain(current.preamble), current.examples)
        and [rule.id for rule in held.rules] == order
        and wordings.agree(words(held, store), now)
    ]


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", normalize("NFC", text).translate(_TYPOGRAPHY)).strip().removesuffix(".").rstrip()
