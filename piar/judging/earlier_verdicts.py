"""What judges have said already: in the store, and in this process where it is not folded yet."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from piar.judging.requests import Ask
from piar.llm.cost import Charge
from store.db import Store
from store.journal import Journal, waiting
from store.task import Task
from store.types import Trace, Verdict

# An answer came, though not a usable one: the same run does not ask again.
ANSWERED = frozenset({"malformed", "refused", "truncated"})


class Known:
    """One judge's earlier verdicts, found by the key of their request.

    Args:
        run_id: the run that asks now; what it was answered before a crash is known to it, usable or not. None where
            nothing is asked.
        journal: the folder where some of them may lie still, where nothing is to be folded.
    """

    def __init__(self, store: Store, judge: str, *, run_id: str | None = None, journal: Path | None = None) -> None:
        self._store, self._judge = store, judge
        unfolded = (_from_row(row[:-2], store.task) for row in (waiting(journal, store) if journal else ()))
        self._unfolded = {verdict.key: verdict for verdict in unfolded if verdict.judge == judge and verdict.grade}
        self._useless: set[str] = set()
        self._stored: dict[str, set[str]] = {}
        with store.read() as con:
            paid = con.execute(
                "select key, sum(greatest(attempts, 1)), sum(cost_usd), sum(tokens_in + tokens_out) from completions "
                "where run_id = ? group by key",
                [run_id],
            ).fetchall()
        self._paid = {key: Charge(usd, int(tokens), int(calls)) for key, calls, usd, tokens in paid}
        self._uncharged = set(self._paid)

    def find(self, asks: Iterable[Ask]) -> dict[str, Verdict]:
        """Verdicts that need no asking: those with a grade, and what this run was answered, however useless."""
        found: dict[str, Verdict] = {}
        stored: list[str] = []
        for ask in asks:
            key = ask.request.key
            if key in self._unfolded:
                found[key] = self._unfolded[key]
            elif key in self._keys(ask.instruction):
                stored.append(key)
        found.update(stored_verdicts(self._store, stored) if stored else {})
        return {key: verdict for key, verdict in found.items() if verdict.grade is not None or self._answered(verdict)}

    def add(self, verdict: Verdict) -> None:
        """Remember a verdict that is in the journal."""
        self._unfolded[verdict.key] = verdict
        if verdict.failure in ANSWERED:
            self._useless.add(verdict.key)

    def fold(self, journal: Journal) -> None:
        """Bring what is in the journal into the store."""
        if self._unfolded:
            journal.fold(self._store)
            for verdict in self._unfolded.values():
                self._keys(verdict.instruction).add(verdict.key)
            self._unfolded.clear()

    def catch_up(self, journal: Journal) -> None:
        """Learn what other processes were answered meanwhile."""
        journal.fold(self._store)
        self._unfolded.clear()
        self._stored.clear()

    def charge(self, key: str) -> Charge:
        """What this run has paid for a request before it was cut off, told once."""
        if key not in self._uncharged:
            return Charge(calls=0)
        self._uncharged.discard(key)
        return self._paid[key]

    def _keys(self, instruction: str) -> set[str]:
        """Keys of the verdicts in the store; without them every chunk would search all verdicts."""
        if instruction not in self._stored:
            with self._store.read() as con:
                rows = con.execute(
                    "select distinct key from verdicts where judge = ? and instruction = ?", [self._judge, instruction]
                )
                self._stored[instruction] = {row[0] for row in rows.fetchall()}
        return self._stored[instruction]

    def _answered(self, verdict: Verdict) -> bool:
        """Whether this run has had an answer; the next run asks again."""
        return verdict.failure in ANSWERED and (verdict.key in self._useless or verdict.key in self._paid)


def stored_verdicts(store: Store, keys: Sequence[str]) -> dict[str, Verdict]:
    """Verdicts of these requests, an answered one before a failed one, the latest before the earlier."""
    with store.read() as con:
        rows = con.execute(
            "select key, sample_id::varchar, judge, instruction, vote, grade, probs, evidence, steps, rules, "
            "trace_verdict, failure from verdicts where key in (select unnest(?::varchar[])) "
            "order by grade is not null, rowid",
            [list(keys)],
        ).fetchall()
    return {row[0]: _from_row(row, store.task) for row in rows}


def _from_row(row: tuple[Any, ...], task: Task) -> Verdict:
    key, sample_id, judge_name, instruction, vote, grade, probs, evidence, steps, rules, closing, failure = row
    trace = None
    if grade is not None:
        named = dict(zip((s.name for s in task.steps), steps or (), strict=False))
        trace = Trace(grade, tuple(evidence or ()), named, tuple(rules or ()), closing or "")
    return Verdict(
        key, sample_id, judge_name, instruction, vote, grade, tuple(probs) if probs else None, trace, failure
    )
