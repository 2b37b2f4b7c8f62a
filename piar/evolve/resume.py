"""The life of a run that can be resumed: what it must not change, its steps with their reasons, its result.

A killed run is replayed, not restored: every answer it paid for is known, every seed is derived from
(run seed, round, role, ordinal), so the replay decides the same and ends with the same instruction.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from store.db import Store, instruction_to_json, now
from store.errors import UsageError
from store.types import Instruction

_CLOSING = ("done", "failed", "abandoned")
_WORDS = {
    "seed": "the seed",
    "task": "task.toml",
    "data": "the samples, their splits or labels",
    "instruction": "instruction.md",
    "teacher": "the teacher",
    "reviser": "the reviser",
    "settings": "the settings",
    "prompts": "a prompt template",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a run, for front ends; `detail` is plain JSON."""

    kind: str
    detail: Mapping[str, Any]


OnEvent = Callable[[Event], None]


class RunLog:
    """Steps of one run: shown at once, written in batches, never twice.

    Args:
        store: keeps the rows of `run_events`.
        run_id: the run.
        on_event: told of every step.
    """

    def __init__(self, store: Store, run_id: str, on_event: OnEvent | None = None) -> None:
        self.store, self.run_id, self._on_event = store, run_id, on_event
        self._waiting: list[Event] = []
        self._instructions: list[Instruction] = []
        with store.read() as con:
            found = con.execute(
                "select count(*) from run_events where run_id = ? and status not in ('interrupted', 'failed')", [run_id]
            ).fetchone()
        self._written = found[0] if found else 0

    def step(self, kind: str, **detail: Any) -> None:
        """Record a step. The first ones of a resumed run are there already: a replay repeats them."""
        event = Event(kind, detail)
        if self._on_event:
            self._on_event(event)
        if self._written:
            self._written -= 1
        else:
            self._waiting.append(event)

    def keep(self, instruction: Instruction) -> None:
        """Keep an instruction with its lineage."""
        self._instructions.append(instruction)

    def flush(self) -> None:
        """Write what waits, in one transaction."""
        if not (self._waiting or self._instructions):
            return
        with self.store.write() as con:
            for instruction in self._instructions:
                self.store.put_instruction(instruction, self.run_id)
            for event in self._waiting:
                con.execute(
                    "insert into run_events values (?, ?, ?, ?, ?)",
                    [self.run_id, event.kind, 0.0, json.dumps(event.detail, ensure_ascii=False), now()],
                )
        self._waiting.clear()
        self._instructions.clear()


@dataclass(frozen=True, slots=True)
class Begun:
    """A run to go on with. `finished` is the result of an identical run that has ended."""

    run_id: str
    resumed: bool
    finished: dict[str, Any] | None = None


def begin(store: Store, verb: str, identity: Mapping[str, Any], seed: int, *, restart: bool = False) -> Begun:
    """Start a run, or go on with the one that was cut off.

    Args:
        identity: what decides the outcome; see `_WORDS` for its keys.
        restart: abandon a run that was cut off, and search anew even when nothing has changed.

    Raises:
        UsageError: a run was cut off and something that decides its outcome has changed since.
    """
    with store.read() as con:
        rows = con.execute(
            "select r.run_id, r.config, e.status, e.detail from runs r left join run_events e "
            "on e.run_id = r.run_id and list_contains(?, e.status) where r.verb = ? "
            "order by r.started desc, e.created_at desc",
            [list(_CLOSING), verb],
        ).fetchall()
    wanted = json.loads(json.dumps(identity))
    if rows:
        run_id, config, status, detail = rows[0]
        before = json.loads(config)
        if status is None and not restart:
            _refuse_changes(run_id, before, wanted)
            return Begun(run_id, True)
        if status is None:
            store.finish_run(run_id, "abandoned")
        if status == "done" and before == wanted and not restart:
            return Begun(run_id, False, json.loads(detail))
    return Begun(store.start_run(verb, wanted, seed), False)


def _refuse_changes(run_id: str, before: Mapping[str, Any], now_wanted: Mapping[str, Any]) -> None:
    changed = [k for k in sorted({*before, *now_wanted}) if before.get(k) != now_wanted.get(k)]
    if changed:
        told = [f"{_WORDS.get(k, k)} ({_short(before.get(k))} → {_short(now_wanted.get(k))})" for k in changed]
        raise UsageError(
            f"{run_id} was cut off, and since then {' and '.join(told)} changed: going on would mix two searches.",
            "Undo the change to go on with it, or add --restart to abandon it and begin anew.",
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def data_fingerprint(store: Store) -> str:
    """A digest of samples, splits and labels; equal exactly when none of them changed."""
    with store.read() as con:
        samples = con.execute(
            "select count(*), coalesce(bit_xor(hash(sample_id, split)), 0)::varchar from samples"
        ).fetchone()
        labels = con.execute(
            "select count(*), coalesce(sum(hash(sample_id, annotator, grade, ordinal, blind, flags, rule, comment)"
            "::hugeint % 1000000007), 0)::varchar from label where source in ('gold', 'human')"
        ).fetchone()
    return f"{samples[0]}-{samples[1]}-{labels[0]}-{labels[1]}" if samples and labels else ""


def lineage_json(instruction: Instruction) -> dict[str, Any]:
    """An instruction as plain JSON, with its lineage."""
    return {
        "id": instruction.id,
        "parent": instruction.parent,
        "author": instruction.author,
        "note": instruction.note,
        **instruction_to_json(instruction),
    }
