"""Screens: each answers (passed, reason) for one draft and the evidence about it, and can be tested alone."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from store.db import Store, quote
from store.fragments import sample_words
from store.leaks import one_word_apart
from store.task import Task
from store.types import CLOSED_SPLITS, Sample, Verdict
from synth.drafts import Draft, Status
from synth.settings import SynthSettings

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST = 20_000
SIMILAR = 0.8  # share of common words from which texts one word apart count as near
PER_PARENT = 3  # kept drafts of one cell that may share a parent


@dataclass(frozen=True, slots=True)
class Match:
    """A stored sample with the same words (similarity 1) or all but one of them."""

    sample_id: str
    split: str
    grade: str | None
    similarity: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a draft.

    Attributes:
        matches: stored samples that nearly say the same.
        group_split: split of the draft's group where the group is known.
        verdicts: the teacher's votes; empty before it was asked.
        siblings: drafts of the same cell and parent that were kept already.
        repeats: whether an earlier draft of this run says the same.
    """

    matches: tuple[Match, ...] = ()
    group_split: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    siblings: int = 0
    repeats: bool = False


Screened = tuple[bool, str]
Screen = Callable[[Draft, Evidence, Task, SynthSettings], Screened]


def schema(draft: Draft, evidence: Evidence, task: Task, settings: SynthSettings) -> Screened:
    """Exactly the task's fields, each a text without control characters, none empty or the dots of the form."""
    if set(draft.fields) != set(task.fields):
        return False, "schema: other fields than the task's"
    texts = list(draft.fields.values())
    if not all(isinstance(t, str) and len(t) <= _LONGEST and not _CONTROL.search(t) for t in texts):
        return False, "schema: a field is no plain text"
    return (True, "") if all(str(t).strip(" \n\t.…") for t in texts) else (False, "schema: a field is empty")


def duplicate(draft: Draft, evidence: Evidence, task: Task, settings: SynthSettings) -> Screened:
    """Not the words of a sample or draft that is there already."""
    known = evidence.repeats or any(m.similarity == 1 and m.split not in CLOSED_SPLITS for m in evidence.matches)
    return not known, "duplicate" if known else ""


def leak(draft: Draft, evidence: Evidence, task: Task, settings: SynthSettings) -> Screened:
    """Neither a closed sample's words but for one, nor a row of a closed group."""
    if evidence.group_split in CLOSED_SPLITS:
        return False, "leak: group of a closed split"
    near = any(m.split in CLOSED_SPLITS for m in evidence.matches)
    return not near, "leak: near a closed sample" if near else ""


def near_duplicate(draft: Draft, evidence: Evidence, task: Task, settings: SynthSettings) -> Screened:
    """Not one word from a sample of the same grade; with another grade it is a contrast, and welcome."""
    near = any(m.grade == draft.target.grade for m in evidence.matches)
    return not near, "near duplicate" if near else ""


def agreement(draft: Draft, evidence: Evidence, task: Task, settings: SynthSettings) -> Screened:
    """The teacher, which was not told the target, gives the target's grade in enough of its votes."""
    share = agreeing(draft, evidence)
    return share >= settings.agree, "" if share >= settings.agree else "teacher disagrees"


def rule_fires(draft: Draft, evidence: Evidence, task: Task, settings: SynthSettings) -> Screened:
    """Every vote for the grade cites the targeted rule, and no other; a cell without a rule asks for none."""
    if not draft.target.rule:
        return True, ""
    cited = [v.trace.rules for v in evidence.verdicts if v.trace and v.grade == draft.target.grade]
    fires = bool(cited) and all(rules == (draft.target.rule,) for rules in cited)
    return fires, "" if fires else "another rule decides"


def diversity(draft: Draft, evidence: Evidence, task: Task, settings: SynthSettings) -> Screened:
    """Not too many of a cell from one parent."""
    many = evidence.siblings >= PER_PARENT
    return not many, "too many of one parent" if many else ""


BEFORE_ASKING: tuple[Screen, ...] = (schema, duplicate, leak, near_duplicate)
AFTER_ASKING: tuple[Screen, ...] = (agreement, rule_fires, diversity)


def first_failure(
    screens: Sequence[Screen], draft: Draft, evidence: Evidence, task: Task, settings: SynthSettings
) -> str:
    """Reason of the first screen that a draft does not pass, "" when it passes all."""
    for screen in screens:
        passed, reason = screen(draft, evidence, task, settings)
        if not passed:
            return reason
    return ""


def agreeing(draft: Draft, evidence: Evidence) -> float:
    """Share of the teacher's votes that give the target's grade; failed votes count against it."""
    votes = evidence.verdicts
    return sum(v.grade == draft.target.grade for v in votes) / len(votes) if votes else 0.0


def status(draft: Draft, evidence: Evidence, reason: str, settings: SynthSettings) -> Status:
    """Kept without a reason; borderline when the teacher is split; dropped otherwise."""
    if not reason:
        return "kept"
    split = reason == "teacher disagrees" and agreeing(draft, evidence) >= settings.agree / 2
    return "borderline" if split else "dropped"


def find_matches(
    con: duckdb.DuckDBPyConnection, store: Store, drafts: Sequence[Sample]
) -> tuple[dict[str, list[Match]], dict[str, str]]:
    """Stored samples close to each draft, and the splits of known groups: (draft id -> matches, group -> split)."""
    task = store.task
    columns = {"id": [d.id for d in drafts], "grp": [d.group for d in drafts]}
    columns |= {f"field {name}": [d.fields[name] for d in drafts] for name in task.fields}
    con.register("drafts", pa.table(columns))
    named = ", ".join(f"{quote('field ' + name)} as {quote(name)}" for name in task.fields)
    words = sample_words(task)
    one_word_apart(
        con,
        f"select id, {words} as words from (select id, {named} from drafts)",
        f"select sample_id as id, {words} as words from samples",
        SIMILAR,
    )
    matches: dict[str, list[Match]] = {}
    rows = con.execute(
        "select a.id, s.sample_id::varchar, s.split, t.grade, a.similarity from apart a "
        "join samples s on s.sample_id = a.other left join truth t on t.sample_id = s.sample_id order by all"
    ).fetchall()
    for draft, *match in rows:
        matches.setdefault(draft, []).append(Match(*match))
    groups = dict(
        con.execute(
            "select group_key, min(split) filter (where split in ('dev', 'holdout', 'test')) from samples "
            "where group_key in (select grp from drafts) group by group_key"
        ).fetchall()
    )
    con.unregister("drafts")
    return matches, groups
