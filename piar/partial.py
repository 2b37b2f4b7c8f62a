"""Labelling again after an edit by asking a part of the rows: cheaper, and unsound for a language model.

Rows that no changed rule can apply to, as far as its words can be followed, keep their grade. A language model may
change its mind on any row after any edit, so a random part of these rows is asked all the same, and the share of them
that flipped is reported with the kept grades. What is kept is no answer: its key says so, a later full labelling asks
for it, and searches, promotion tests and figures never see it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from piar.instructions.diff import rule_changes
from piar.judging.earlier_verdicts import stored_verdicts
from piar.judging.labeller import Batch, Labeller
from piar.judging.outcome import LabelReport
from piar.offline.predicates import Predicate
from piar.offline.rulebook_reader import Policy, defined_kinds, follow
from piar.offline.words import read_text
from store.errors import UsageError
from store.ids import seed_of
from store.stats import Interval, share_by_group
from store.task import Task
from store.types import Instruction, Sample, Verdict

KEPT = "kept:"  # begins the key of a verdict that was taken over and not asked
OPEN_SPLITS = ("train", "pool")
Applies = Callable[[Sample], bool]


@dataclass(frozen=True, slots=True)
class Split:
    """What is asked again and what keeps its grade.

    Attributes:
        asked: rows that a changed rule may touch, and rows without an earlier grade.
        again: rows chosen at random among the others, to see how many flip.
        kept: the rest.
        unread: ids of changed rules whose words cannot be followed; any of them may touch every row.
    """

    asked: tuple[Sample, ...]
    again: tuple[Sample, ...]
    kept: tuple[Sample, ...]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """What labelling in part did.

    Attributes:
        asked: rows asked because a changed rule may touch them.
        again: rows asked that should not have changed.
        flipped: those of them that did.
        flip_rate: their share, with its interval by group; the kept grades are as wrong as that.
        kept: rows that kept their earlier grade.
    """

    asked: int
    again: int
    flipped: int
    flip_rate: Interval
    kept: int
    unread: tuple[str, ...] = ()
    report: LabelReport = field(default_factory=LabelReport)


def divide(
    earlier: Mapping[str, Verdict],
    before: Instruction,
    after: Instruction,
    samples: Sequence[Sample],
    task: Task,
    *,
    again: int,
    seed: int,
) -> Split:
    """Which rows an edit can touch.

    A rule that was changed, dropped or moved touches the rows that cite it and those to which its words, old or new,
    apply. A changed preamble, meaning or example, or a changed rule that cannot be followed, touches every row.

    Args:
        earlier: sample id -> verdict under `before`.
        again: rows to ask of those that are not touched.

    Raises:
        UsageError: a sample belongs to dev, holdout or test.
    """
    if closed := {s.split for s in samples} - set(OPEN_SPLITS):
        raise UsageError(
            f"Grades are not kept in {', '.join(sorted(closed))}: figures and promotion tests rest on what was asked.",
            "Choose rows of train and pool, or label without --since.",
        )
    changes = rule_changes(before, after)
    named = {change.id for change in changes}
    applies, unread = _conditions(before, after, named, task)
    everything = bool(unread) or replace(before, rules=()).id != replace(after, rules=()).id

    def touched(sample: Sample) -> bool:
        verdict = earlier.get(sample.id)
        if everything or verdict is None or verdict.grade is None:
            return True
        cited = set(verdict.trace.rules) if verdict.trace else set()
        return bool(cited & named) or any(holds(sample) for holds in applies)

    asked = tuple(s for s in samples if touched(s))
    taken = {s.id for s in asked}
    rest = [s for s in samples if s.id not in taken]
    order = np.random.default_rng(seed_of(seed, "partial", after.id)).permutation(len(rest))
    chosen = set(order[:again].tolist())
    return Split(
        asked,
        tuple(s for i, s in enumerate(rest) if i in chosen),
        tuple(s for i, s in enumerate(rest) if i not in chosen),
        unread,
    )


def _conditions(
    before: Instruction, after: Instruction, named: set[str], task: Task
) -> tuple[list[Applies], tuple[str, ...]]:
    """When the changed rules apply, in their old and new words, and the ids of those that cannot be followed."""
    names = {grade.name.lower(): grade.symbol for grade in task.grades if grade.name}
    applies, unread = list[Applies](), list[str]()
    for instruction in (before, after):
        kinds = defined_kinds(rule.text for rule in instruction.rules)
        for rule in (r for r in instruction.rules if r.id in named):
            clauses = follow(Policy(rule.id, rule.grade, rule.text), task.symbols, names, task.fields, kinds)
            if clauses:
                applies.append(partial(_holds, clauses[0].condition))
            elif instruction is after:  # of an old rule it is enough to know who cites it
                unread.append(rule.id)
    return applies, tuple(unread)


def _holds(condition: Predicate, sample: Sample) -> bool:
    return condition.holds({name: read_text(text) for name, text in sample.fields.items()})


def label_since(
    labeller: Labeller, before: Instruction, after: Instruction, samples: Sequence[Sample], *, again: int, seed: int = 0
) -> Kept:
    """Ask what an edit can touch and a random part of the rest; the others keep their grade.

    Args:
        labeller: of the teacher that judged under `before`.
        again: rows to ask of those that should not change; at least 1.

    Raises:
        UsageError: nothing would be asked again, or rows of dev, holdout or test are among the samples.
    """
    earlier, parts = parted(labeller, before, after, samples, again=again, seed=seed)
    said: dict[str, Verdict] = {}
    report = labeller.judge([Batch(after, [*parts.asked, *parts.again])], lambda v: said.__setitem__(v.sample_id, v))
    labeller.fold()
    known = [s for s in parts.again if said[s.id].grade is not None]
    flips = [float(said[s.id].grade != earlier[s.id].grade) for s in known]
    kept = [replace(earlier[s.id], key=KEPT + earlier[s.id].key, instruction=after.id) for s in parts.kept]
    labeller.store.record_verdicts(kept, labeller.run_id)
    rate = _rate(flips, [s.group for s in known])
    return Kept(len(parts.asked), len(known), int(sum(flips)), rate, len(kept), parts.unread, report)


def parted(
    labeller: Labeller, before: Instruction, after: Instruction, samples: Sequence[Sample], *, again: int, seed: int = 0
) -> tuple[dict[str, Verdict], Split]:
    """The earlier verdicts, and what `label_since` with the same arguments would ask."""
    if again < 1:
        raise UsageError("Keeping grades without asking any of them again hides what changed.", "Pass --recheck 200.")
    earlier = _earlier(labeller, before)
    return earlier, divide(earlier, before, after, samples, labeller.store.task, again=again, seed=seed)


def _rate(flips: Sequence[float], groups: Sequence[str]) -> Interval:
    """The share that flipped."""
    return share_by_group(flips, [1.0] * len(flips), groups) if flips else Interval(value=None)


def _earlier(labeller: Labeller, before: Instruction) -> dict[str, Verdict]:
    """Sample id -> what this teacher was heard to say under an instruction; kept grades are not kept again."""
    with labeller.store.read() as con:
        keys = con.execute(
            "select key from verdict where judge = ? and instruction = ? and vote = 0 and not starts_with(key, ?)",
            [labeller.judge_name, before.id, KEPT],
        ).fetchall()
    return {v.sample_id: v for v in stored_verdicts(labeller.store, [key for (key,) in keys]).values()}
