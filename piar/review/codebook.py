"""What all people's answers together tell of the codebook: where it may be wrong, and how many people a row needs.

Blind answers of all batches and imports that count, the latest of each person to each row that two or more of them
judged.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl

from store.db import Store
from store.enough_raters import Enough, how_many
from store.guideline_doubts import doubts
from store.stats import Ints, group_codes

_MOSTANSWERS = 200_000  # the latest ones are looked at
_CHOSEN = ("queue", "relabel", "adjudicate", "planned", "check")  # roles of rows that were not drawn at random

ANSWERS = f"""
select l.sample_id, s.group_key, l.annotator, l.grade, l.rule, t.role, truth.grade as label
from vote l join samples s using (sample_id) left join truth using (sample_id)
left join review_tasks t on t.batch = l.batch and t.sample_id = l.sample_id and t.annotator = l.annotator
where l.source = 'human' and coalesce(l.blind, true) and not list_contains(l.flags, 'undone')
qualify row_number() over (partition by l.sample_id, l.annotator order by l.created_at desc, l.label_id) = 1
order by l.created_at desc, l.sample_id, l.annotator limit {_MOSTANSWERS}"""

# Sample, and the rule that the teacher's latest verdict cites first.
CITED = """
select sample_id, rules[1] from verdict where vote = 0 and starts_with(judge, 'teacher:') and len(rules) > 0
qualify row_number() over (partition by sample_id order by created_at desc) = 1"""


@dataclass(frozen=True, slots=True)
class GuidelineDoubt:
    """Where better raters contradict the label more often than worse ones; see `store.guideline_doubts`.

    Attributes:
        what: `rule R07`, `grade 1` or `row`; of a rule, rows that people say it decided, else those for which the
            teacher cites it.
        rows: that split their raters there.
        correlation: between ability and agreeing with the label, within rows.
        sample_ids: the most telling rows.
    """

    what: str
    rows: int
    correlation: float
    p_value: float
    q_value: float
    sample_ids: tuple[str, ...]


def guideline_doubts(store: Store) -> tuple[list[GuidelineDoubt], int]:
    """What may be wrong in the guideline, the surest first, and of how many rules, grades and rows that was asked."""
    rows = _shared(store.frame(ANSWERS))
    if rows.is_empty():
        return [], 0
    items, raters, grades, ids = _codes(store, rows)
    told = dict(rows.select("sample_id", "label").rows())
    labels = np.array([-1 if told[key] is None else store.task.index(told[key]) for key in ids])
    found, tested = doubts(items, raters, grades, labels, _named(store, rows, ids, labels), len(store.task.symbols))
    return [
        GuidelineDoubt(
            "row" if d.what.startswith("item ") else d.what,
            d.items,
            d.correlation,
            d.p_value,
            d.q_value,
            tuple(ids[item] for item in d.examples),
        )
        for d in found
    ], tested


def people_needed(store: Store, gain: float) -> Enough:
    """How many people a row needs until one more adds less than `gain`, from rows that were drawn at random.

    Args:
        gain: share of the labels.
    """
    rows = store.frame(ANSWERS).filter(~pl.col("role").is_in(_CHOSEN) | pl.col("role").is_null())
    rows = _shared(rows)
    if rows.is_empty():
        return Enough("no row that was drawn at random was judged by two people or more", 0, 0, gain)
    items, raters, grades, ids = _codes(store, rows)
    group_of = dict(rows.select("sample_id", "group_key").rows())
    groups, _ = group_codes([group_of[key] for key in ids])
    return how_many(items, raters, grades, groups, k=len(store.task.symbols), gain=gain)


def _shared(answers: pl.DataFrame) -> pl.DataFrame:
    return answers.filter(pl.len().over("sample_id") > 1).sort("sample_id", "annotator")


def _codes(store: Store, rows: pl.DataFrame) -> tuple[Ints, Ints, Ints, list[str]]:
    """Item, rater and grade of each answer, and the samples of the items."""
    ids, items = np.unique(rows["sample_id"].to_numpy(), return_inverse=True)
    _, raters = np.unique(rows["annotator"].to_numpy(), return_inverse=True)
    return items, raters, np.array([store.task.index(g) for g in rows["grade"]]), [str(key) for key in ids]


def _named(store: Store, rows: pl.DataFrame, ids: list[str], labels: Ints) -> dict[str, list[int]]:
    """Items by the rule that decided, and by grade where none is known: a fault of a rule is none of its grade."""
    by_people: dict[str, Counter[str]] = {}
    for key, rule in rows.filter(pl.col("rule").is_not_null()).select("sample_id", "rule").rows():
        by_people.setdefault(key, Counter())[rule] += 1
    cited = dict(store.frame(CITED).rows()) | {key: said.most_common(1)[0][0] for key, said in by_people.items()}
    named: dict[str, list[int]] = {}
    for item, (key, label) in enumerate(zip(ids, labels, strict=True)):
        if label >= 0:
            what = f"rule {cited[key]}" if cited.get(key) else f"grade {store.task.symbols[label]}"
            named.setdefault(what, []).append(item)
    return named
