"""Looking closer: an instruction and its versions, what changed between two, a run, a sample."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piar.instructions.diff import RuleChange, rule_changes
from store.errors import PiarError, UsageError
from store.wording import minor_edits

if TYPE_CHECKING:
    from piar.evolve.last_search import Tried
    from piar.llm.settings import ModelSettings
    from piar.measure.score import Gained, Measured
    from piar.measure.word_support import Support
    from store.db import Store
    from store.judges import Judge
    from store.types import Instruction, Split

SHOWN_FLIPS = 8
MEASURED: "tuple[Split, ...]" = ("dev", "holdout", "test")


@dataclass(frozen=True, slots=True)
class Version:
    """One known instruction.

    Attributes:
        outcome: the latest decision about it, "" when there is none.
        minor: what of the edit that made it was called minor and by whom, "" where nothing was.
    """

    id: str
    parent: str | None
    author: str
    note: str
    rules: int
    made: Any
    outcome: str
    minor: str = ""


@dataclass(frozen=True, slots=True)
class Flip:
    """How many samples of a split went from one grade to another (None: the answer failed)."""

    split: str
    before: str | None
    after: str | None
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Two instructions side by side.

    Attributes:
        judge: whose verdicts are compared; None when nobody has judged under both.
        measured: split -> (before, after), where both have judged the whole split.
        gained: split -> what `after` gains.
        flipped: samples that changed grade, from train and dev only: the others stay closed to who edits rules.
        support: id of a rule that is new or changed -> the rows behind each word that it quotes.
        procedure: what was tested in the place of `after`, where cross-fitting proposed it; else "".
        taught: splits that hold rows which have taught `after` so: their figures flatter it.
    """

    before: "Instruction"
    after: "Instruction"
    rules: tuple[RuleChange, ...]
    judge: str | None
    flips: tuple[Flip, ...]
    measured: "Mapping[str, tuple[Measured, Measured]]"
    gained: "Mapping[str, Gained]"
    flipped: tuple[dict[str, Any], ...]
    support: "Mapping[str, tuple[Support, ...]]"
    procedure: str = ""
    taught: "frozenset[str]" = frozenset()


def versions(store: "Store") -> list[Version]:
    """Every known instruction, oldest first."""
    frame = store.frame(
        """select instruction_id, parent, author, note, json_array_length(body, '$.rules') as rules, i.created_at,
                  coalesce((select outcome from decisions d where d.instruction = i.instruction_id
                                and kind in ('promotion', 'acceptance', 'rejection')
                            order by d.created_at desc limit 1), '') as outcome
           from instructions i order by i.created_at, instruction_id"""
    )
    called: dict[str, list[str]] = {}
    for edit in minor_edits(store):
        called.setdefault(edit.version, []).append(f"{edit.what} by {edit.by}, {edit.at:%Y-%m-%d}")
    return [Version(*(*row, "; ".join(called.get(row[0], ())))) for row in frame.rows()]


def difference(store: "Store", before: "Instruction", after: "Instruction") -> Difference:
    """Rules changed, samples that changed grade, and what was gained, as far as a judge has read both."""
    from piar.evolve.last_search import untested
    from piar.evolve.ledger import taught_splits
    from piar.measure.score import compare, measure
    from piar.measure.word_support import support
    from store.judges import Judge

    changes = rule_changes(before, after)
    edited = {change.id for change in changes if change.kind in ("added", "changed")}
    words = support(store, [rule for rule in after.rules if rule.id in edited])
    procedure, name = untested(store, after.id), _judge_of_both(store, before.id, after.id)
    if name is None:
        return Difference(before, after, changes, None, (), {}, {}, (), words, procedure)
    old, new = Judge(name, before.id), Judge(name, after.id)
    whole = [split for split in MEASURED if _judged_whole(store, old, split) and _judged_whole(store, new, split)]
    return Difference(
        before,
        after,
        changes,
        name,
        _flips(store, old, new),
        {split: (measure(store, old, split), measure(store, new, split)) for split in whole},
        {split: compare(store, new, old, split) for split in whole},
        _flipped(store, old, new),
        words,
        procedure,
        taught_splits(store, after.id),
    )


def candidate(store: "Store", prefix: str = "") -> "Tried":
    """The candidate that met the instruction in force last, and what became of it.

    Args:
        prefix: beginning of its id, to see an earlier one.

    Raises:
        UsageError: none was tested, or none of that id.
    """
    from piar.evolve.last_search import tried

    found = tried(store, prefix)
    if found is None:
        raise UsageError(
            f"No candidate {prefix + ' ' if prefix else ''}has met the instruction in force on the holdout.",
            "`piar evolve` tests the best one that it finds; `piar show run evolve` lists what it tried.",
        )
    return found


def _judge_of_both(store: "Store", before: str, after: str) -> str | None:
    found = store.frame(
        "select judge from verdicts where instruction in (?, ?) group by judge having count(distinct instruction) = 2 "
        "order by max(created_at) desc limit 1",
        [before, after],
    )
    return str(found.item()) if found.height else None


def _judged_whole(store: "Store", judge: "Judge", split: str) -> bool:
    counts = store.frame(
        "select count(*) as n, count(v.sample_id) as judged from samples s join truth t using (sample_id) "
        "left join (select sample_id from verdict where judge = ? and instruction = ? and vote = 0) v "
        "using (sample_id) where s.split = ?",
        [judge.name, judge.instruction, split],
    ).row(0)
    return bool(counts[0] and counts[0] == counts[1])


_BOTH = """from verdict a join verdict b using (sample_id) join samples s using (sample_id)
    where a.judge = $judge and b.judge = $judge and a.instruction = $before and b.instruction = $after
      and a.vote = 0 and b.vote = 0 and a.grade is distinct from b.grade"""


def _flips(store: "Store", old: "Judge", new: "Judge") -> tuple[Flip, ...]:
    with store.read() as con:
        rows = con.execute(
            f"select s.split, a.grade, b.grade, count(*) as n {_BOTH} group by all order by all",
            {"judge": old.name, "before": old.instruction, "after": new.instruction},
        ).fetchall()
    return tuple(Flip(*row) for row in rows)


def _flipped(store: "Store", old: "Judge", new: "Judge") -> tuple[dict[str, Any], ...]:
    from store.db import quote

    fields = ", ".join(f"s.{quote(name)}" for name in store.task.fields)
    with store.read() as con:
        rows = con.execute(
            f"select s.sample_id::varchar, s.split, {fields}, "
            "(select grade from truth t where t.sample_id = s.sample_id), "
            f"a.grade, b.grade {_BOTH} and s.split in ('train', 'dev') order by s.sample_id limit {SHOWN_FLIPS}",
            {"judge": old.name, "before": old.instruction, "after": new.instruction},
        ).fetchall()
    names = ("sample_id", "split", *store.task.fields, "truth", "before", "after")
    return tuple(dict(zip(names, row, strict=True)) for row in rows)


def show_run(store: "Store", prefix: str = "", models: "Sequence[ModelSettings]" = ()) -> dict[str, Any]:
    """One command's life: how it was run, its steps, what it asked and what that cost.

    Args:
        prefix: beginning of the run's id, or a verb for its latest run; the latest of all when empty.
        models: of the project, as they are set now; a price among them tells that an answer for $0 was free.

    Raises:
        PiarError: none matches, or several.
    """
    from piar.judging.forecast import cost_is_known, receipt

    found = "select * from runs where starts_with(run_id, ?) or verb = ? order by started desc"
    rows = store.frame(found, [prefix, prefix]).rows(named=True)
    rows = rows[:1] if not prefix or all(row["verb"] == prefix for row in rows) else rows
    if len(rows) != 1:
        raise PiarError(f"{len(rows) or 'No'} runs match {prefix!r}.", '`piar sql "select * from runs"` lists them.')
    run = rows[0]
    steps = store.frame(
        "select status, detail, created_at from run_events where run_id = ? order by created_at", [run["run_id"]]
    ).rows(named=True)
    return {
        **run,
        "config": json.loads(run["config"]),
        "steps": [{**step, "detail": json.loads(step["detail"])} for step in steps],
        "receipt": receipt(store, run["run_id"], priced=cost_is_known(store, run["run_id"], models)),
    }


def show_sample(store: "Store", prefix: str) -> dict[str, Any]:
    """Everything known of one sample: its fields, labels and verdicts.

    Args:
        prefix: beginning of its id, or the owner's own id.

    Raises:
        PiarError: none matches, or several.
    """
    found = store.frame(
        "select * from samples where starts_with(sample_id::varchar, ?) or external_id = ? limit 2", [prefix, prefix]
    ).rows(named=True)
    if len(found) != 1:
        raise PiarError(f"{len(found) or 'No'} samples match {prefix!r}.", "Give more of its id, or your own id of it.")
    key = found[0]["sample_id"]
    parts = {
        "truth": "select grade, basis from truth where sample_id = ?",
        "labels": "select source, annotator, grade, comment, flags, blind, batch, created_at, "
        "label_id in (select label_id from superseded) as superseded from label "
        "where sample_id = ? order by source, annotator, ordinal",
        "verdicts": "select judge, instruction, vote, grade, probs, evidence, steps, rules, trace_verdict, failure, "
        "created_at from verdict where sample_id = ? order by created_at",
        "signals": "select * from signals where sample_id = ?",  # a column for each signal
        "difficulty": "select p, bucket, judge from difficulty where sample_id = ?",
    }
    known = {name: store.frame(query, [uuid.UUID(key)]).rows(named=True) for name, query in parts.items()}
    signals = (item for row in known["signals"] for item in sorted(row.items()) if item[0] != "sample_id")
    known["signals"] = [{"name": name, "value": value} for name, value in signals]
    return {"sample": found[0], **known}


def pair_of(store: "Store", current: "Instruction", ids: "tuple[str, ...]") -> "tuple[Instruction, Instruction]":
    """The two instructions of `piar show diff [A [B]]`: by default the one in force against the one
    that it replaced.

    Raises:
        UsageError: there is nothing to compare with.
    """
    if len(ids) == 2:
        return store.instruction(ids[0]), store.instruction(ids[1])
    if ids:
        return store.instruction(ids[0]), current
    accepted = store.frame("select against from in_force where instruction = ? and accepted is not null", [current.id])
    if accepted.height:
        return store.instruction(accepted.item()), current
    if current.parent is None:
        raise UsageError(f"{current.id} has no parent to compare with.", "Name two: `piar show diff A B`.")
    return store.instruction(current.parent), current
