"""How a batch stands: progress, agreement, each person's reliability, and what to talk about."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from piar.review.agreement import Agreement, RuleAgreement, agreement, by_rule, pairs, with_others
from piar.review.answers import in_words
from piar.review.batch import HANDED_ON, SPENT, Batch, seconds_per_row
from piar.review.codebook import CITED, GuidelineDoubt, guideline_doubts
from store.agreement import dawid_skene
from store.db import Store
from store.enough_raters import Enough
from store.files import cell, replacing
from store.stats import Interval


@dataclass(frozen=True, slots=True)
class Person:
    """One annotator's work in a batch.

    Attributes:
        hours: that the answers took; `seconds`: the median of one.
        last: when the latest answer was given, UTC.
        agreement: share of the others' answers to the same random rows that are this person's too.
        reliability: Dawid and Skene's, None below 20 answers.
        foreign: answers in somebody else's project.
    """

    annotator: str
    assigned: int
    answered: int
    skipped: int
    seconds: float | None
    hours: float
    hours_left: float
    last: datetime | None
    checks: int
    checks_passed: int
    agreement: Interval | None
    reliability: float | None
    foreign: int


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """`piar review status`.

    Attributes:
        rules: agreement by the rule that decided, the most disputed first.
        overturned: gold rows that at least two blind people, all of one mind, contradict; in an adjudication those that
            were settled otherwise.
        teacher_right: rows where adjudication sided with the teacher against a blind answer.
        doubts: where the guideline may be wrong by all people's answers so far, of so many `doubts_tested`.
        enough: how many people a row needs, where that was asked.
    """

    batch: str
    annotators: list[Person]
    agreement: Agreement
    rules: list[RuleAgreement]
    overturned: int
    teacher_right: int
    teacher_reliability: float | None
    doubts: list[GuidelineDoubt] = field(default_factory=list)
    doubts_tested: int = 0
    enough: Enough | None = None


_ANSWERS = f"""
with said as (
    select *, {SPENT} as spent from label
    where batch = $1 and source = 'human' and not list_contains(flags, 'undone')
), dealt as (
    select t.sample_id, t.annotator as owner, t.role, l.* exclude (sample_id) from review_tasks t
    left join said l on l.sample_id = t.sample_id and l.annotator = t.annotator
    where t.batch = $1 and (l.sample_id is not null or not {HANDED_ON})
    union all
    select distinct on (t.sample_id, l.annotator) t.sample_id, t.annotator, t.role, l.* exclude (sample_id)
    from review_tasks t join said l on l.sample_id = t.sample_id and l.annotator <> t.annotator
    where t.batch = $1 and list_contains(l.flags, 'foreign_project')
)
select t.sample_id, s.group_key, t.owner, t.role, t.annotator, t.grade, t.rule, t.seconds, t.spent, t.flags,
       t.created_at, g.grade as gold, t.label_id not in (select label_id from superseded) as counts
from dealt t join samples s using (sample_id)
left join (select sample_id, max(grade) as grade from label where source = 'gold' group by sample_id
           having count(distinct grade) = 1) g on g.sample_id = t.sample_id"""


def status(store: Store, batch: Batch) -> BatchStatus:
    """Everything known about a batch that was pulled."""
    answers = answers_of(store, batch.name)
    given = answers.filter(pl.col("grade").is_not_null())
    reliability, teacher = _reliability(store, given)
    overturned = _overturned(given, people=2 if batch.blind else 1)
    at_random = given.filter(pl.col("role") == "random")
    found = pairs(at_random)
    agreed = with_others(found)
    doubts, tested = guideline_doubts(store)
    return BatchStatus(
        batch=batch.name,
        annotators=progress(store, batch, answers, reliability, agreed),
        agreement=agreement(store.task, at_random),
        rules=by_rule(found, dict(store.frame(CITED).rows())),
        overturned=overturned,
        teacher_right=_teacher_right(store, batch.name),
        teacher_reliability=teacher,
        doubts=doubts,
        doubts_tested=tested,
    )


def progress(
    store: Store,
    batch: Batch,
    answers: pl.DataFrame,
    reliability: Mapping[str, float] | None = None,
    agreed: Mapping[str, Interval] | None = None,
) -> list[Person]:
    """Everybody's work in a batch.

    Args:
        answers: of `answers_of`.
        reliability, agreed: of each person, where they are known.
    """
    pace = seconds_per_row(store)
    return [_person(answers, person, pace, reliability or {}, agreed or {}) for person in batch.annotators]


def answers_of(store: Store, batch: str) -> pl.DataFrame:
    """What people said of the rows of a batch: a row for each that was dealt, and for each answer by somebody else.

    Columns: those of `piar.review.agreement.ANSWER`, `owner` (to whom it was dealt), `role`, `seconds`, `spent` (as far
    as they count as work), `flags`, `created_at`, `gold`, and whether it `counts` or has been superseded; all of an
    answer are null where there is none.
    """
    return store.frame(_ANSWERS, [batch])


def _person(
    answers: pl.DataFrame, person: str, pace: float, reliability: Mapping[str, float], agreed: Mapping[str, Interval]
) -> Person:
    dealt = answers.filter(pl.col("owner") == person)
    mine = dealt.filter(pl.col("annotator").is_null() | (pl.col("annotator") == person))
    done = mine.filter(pl.col("annotator").is_not_null())
    skipped = done.filter(pl.col("flags").list.contains("skipped")).height
    checks = done.filter((pl.col("role") == "check") & pl.col("grade").is_not_null())
    median, last = done["seconds"].median(), done["created_at"].max()
    seconds = float(median) if isinstance(median, int | float) else None
    return Person(
        annotator=person,
        assigned=mine.height,
        answered=done.height,
        skipped=skipped,
        seconds=seconds,
        hours=float(done["spent"].sum() or 0.0) / 3600,
        hours_left=(mine.height - done.height) * (seconds or pace) / 3600,
        last=last if isinstance(last, datetime) else None,
        checks=checks.height,
        checks_passed=checks.filter(pl.col("grade") == pl.col("gold")).height,
        agreement=agreed.get(person),
        reliability=reliability.get(person),
        foreign=answers.filter((pl.col("annotator") == person) & (pl.col("owner") != person)).height,
    )


def _reliability(store: Store, given: pl.DataFrame) -> tuple[dict[str, float], float | None]:
    """Dawid–Skene over the teacher and everyone who ever judged the batch's rows: two alone cannot be told apart."""
    if given.height < 20:
        return {}, None
    rows = given.select("sample_id").unique()
    votes = store.frame(
        """select sample_id, annotator, grade from vote where source = 'human'
           qualify row_number() over (partition by sample_id, annotator order by created_at desc) = 1"""
    ).join(rows, on="sample_id")
    teacher = store.frame(
        """select sample_id, 'teacher' as annotator, grade from verdict
           where starts_with(judge, 'teacher:') and vote = 0 and grade is not null
           qualify row_number() over (partition by sample_id order by created_at desc) = 1"""
    ).join(rows, on="sample_id")
    both = pl.concat([votes, teacher]).sort("sample_id", "annotator")
    names = sorted(set(both["annotator"]))
    items = both["sample_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
    raters = np.array([names.index(a) for a in both["annotator"]])
    grades = np.array([store.task.index(g) for g in both["grade"]])
    found = dawid_skene(
        items, raters, grades, n_items=int(items.max()) + 1, n_raters=len(names), k=len(store.task.symbols)
    )
    result = {name: float(r) for name, r in zip(names, found.reliability, strict=True)}
    return {n: r for n, r in result.items() if n != "teacher"}, result.get("teacher")


def _overturned(given: pl.DataFrame, people: int) -> int:
    """Gold that at least so many people, all of one mind, contradict."""
    doubted = (
        given.filter(pl.col("gold").is_not_null())
        .unique(["sample_id", "annotator"])
        .group_by("sample_id")
        .agg(people=pl.len(), minds=pl.col("grade").n_unique(), against=(pl.col("grade") != pl.col("gold")).all())
    )
    return doubted.filter((pl.col("people") >= people) & (pl.col("minds") == 1) & pl.col("against")).height


def _teacher_right(store: Store, batch: str) -> int:
    sql = """select count(distinct b.sample_id) from label b
             join label j on j.sample_id = b.sample_id and j.blind = false and j.grade is not null
             join verdict v on v.sample_id = b.sample_id and v.vote = 0 and starts_with(v.judge, 'teacher:')
             where b.batch = ? and b.blind and b.grade <> j.grade and v.grade = j.grade"""
    return int(store.frame(sql, [batch]).item())


def agenda(store: Store, batch: Batch, instruction_rules: Sequence[tuple[str, str]]) -> str:
    """Comments on unclear rules and open disagreements, grouped by rule, as Markdown for a meeting."""
    fields = ", ".join(f's."{f}"' for f in store.task.fields)
    rows = store.frame(
        f"""select coalesce(l.rule, '') as rule, l.sample_id, l.annotator, l.grade, l.comment, l.flags, l.further,
                   {fields}
            from label l join samples s using (sample_id)
            where l.batch = ? and l.source = 'human' and not list_contains(l.flags, 'undone')
            order by rule, l.sample_id, l.annotator""",
        [batch.name],
    )
    disputed = set(
        rows.filter(pl.col("grade").is_not_null())
        .group_by("sample_id")
        .agg(pl.col("grade").n_unique().alias("n"))
        .filter(pl.col("n") > 1)["sample_id"]
    )
    open_rows = [
        r
        for r in rows.iter_rows(named=True)
        if r["sample_id"] in disputed
        or r["comment"]
        or set(r["flags"]) & {"rule_unclear", "ambiguous", "gold_is_wrong"}
    ]
    texts = dict(instruction_rules)
    lines = [f"# Agenda of batch {batch.name}", "", f"{len({r['sample_id'] for r in open_rows})} open rows.", ""]
    by_sample: dict[str, list[dict[str, object]]] = {}
    for row in open_rows:
        by_sample.setdefault(str(row["sample_id"]), []).append(row)
    for rule, samples in _by_rule(by_sample):
        lines += [f"## {rule or 'No rule named'}", "", *([_md(texts[rule]), ""] if rule in texts else [])]
        for said in samples:
            lines.append("- " + "; ".join(f"{f}: {_md(str(said[0][f] or ''))}" for f in store.task.fields))
            lines += [f"    - {_md(str(s['annotator']))}: {s['grade'] or 'no grade'}{_aside(s)}" for s in said]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _by_rule(samples: dict[str, list[dict[str, object]]]) -> list[tuple[str, list[list[dict[str, object]]]]]:
    grouped: dict[str, list[list[dict[str, object]]]] = {}
    for said in samples.values():
        rule = next((str(s["rule"]) for s in said if s["rule"]), "")
        grouped.setdefault(rule, []).append(said)
    return sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0]))


def _aside(said: dict[str, object]) -> str:
    flags = said["flags"]
    words = [str(f).replace("_", " ") for f in flags] if isinstance(flags, list) else []
    further = [_md(part) for part in in_words(str(said["further"]))]
    parts = [*words, *([f"“{_md(str(said['comment']))}”"] if said["comment"] else []), *further]
    return f" ({'; '.join(parts)})" if parts else ""


def _md(text: str) -> str:
    """Text from data as Markdown text: markup in it stays visible."""
    flat = " ".join(text.split())[:300]
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in flat)


def hours(store: Store, out: Path) -> int:
    """CSV of hours spent per person, batch and day; returns its number of rows."""
    rows = store.frame(
        f"""select annotator, batch, created_at::date as day, count(*) as rows, round(sum({SPENT}) / 3600, 3) as hours
            from label where source = 'human' and seconds is not null group by all order by annotator, day, batch"""
    )
    with replacing(out) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(rows.columns)
        sheet.writerows([cell(v) if isinstance(v, str) else v for v in row] for row in rows.rows())
    return rows.height


def latest_batch(store: Store) -> str | None:
    """Name of the batch composed last."""
    row = store.frame("select batch from review_batches order by created_at desc limit 1")
    return None if row.is_empty() else str(row.item())
