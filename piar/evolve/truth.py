"""What is held true of each sample, and how sure people were of it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from store.agreement import dawid_skene
from store.db import Store
from store.errors import PiarError

TruthMode = Literal["gold", "majority", "votes", "dawid_skene"]
# `votes` scores by the share of people who agree, `dawid_skene` weighs them; where that says nothing, the majority's.
VIEWS: dict[TruthMode, str] = {"gold": "truth", "majority": "majority", "votes": "majority", "dawid_skene": "majority"}


@dataclass(frozen=True, slots=True)
class Truth:
    """The grade held true of one sample.

    Attributes:
        votes: grade symbol -> number of people who chose it; empty when no raters are known.
        soft: score a grade by the share of people who chose it.
        settled: people settled it against what stood before; see the view `settled`.
        of_one: it is what the only person said.
    """

    grade: str
    votes: Mapping[str, int] = field(default_factory=dict)
    soft: bool = False
    settled: bool = False
    of_one: bool = False

    def score(self, grade: str | None) -> float:
        """1 for the right grade, 0 for a wrong one or none; with `soft`, the share of people who agree."""
        if self.soft:
            return self.votes.get(grade or "", 0) / max(1, sum(self.votes.values()))
        return float(grade == self.grade)

    @property
    def contested(self) -> bool:
        """Whether people chose different grades and nobody has settled it."""
        return len(self.votes) > 1 and not self.settled


def load_truth(store: Store, mode: TruthMode = "gold") -> dict[str, Truth]:
    """Sample id -> truth, for all samples that have one.

    Args:
        mode: `gold` (what people settled, else gold labels, else the raters' majority), `majority` (of people,
            whatever gold says), `votes` (as majority, scored by the share of people who agree) or `dawid_skene` (of
            people, each weighed by the errors that he is estimated to make).

    Raises:
        PiarError: nothing is labelled that way.
    """
    with store.read() as con:
        grades = con.execute(f"select sample_id::varchar, grade from {VIEWS[mode]}").fetchall()
        basis = dict(con.execute("select sample_id::varchar, basis from truth").fetchall())
        votes = con.execute(
            "select sample_id::varchar, grade, count(*) from vote where source = 'human' "
            "group by sample_id, grade order by grade"
        ).fetchall()
        lone = con.execute(
            "select sample_id::varchar from vote where source = 'human' group by sample_id "
            "having count(distinct annotator) = 1"
        ).fetchall()
    if not grades:
        wanted = "gold labels or raters" if mode == "gold" else "several raters' grades"
        raise PiarError(
            f"No sample has {wanted}, so nothing can be measured.",
            "Import labels with `piar import FILE --gold COLUMN --raters A,B,C`, or let people grade a first batch: "
            "`piar status` says how.",
        )
    people: dict[str, dict[str, int]] = {}
    for sample_id, grade, count in votes:
        people.setdefault(sample_id, {})[grade] = count
    weighed = _consensus(store) if mode == "dawid_skene" else {}
    grades = [(sample_id, weighed.get(sample_id, grade)) for sample_id, grade in grades]
    known, one_person = dict[str, Truth](), {row[0] for row in lone}
    for sample_id, grade in grades:
        voices, why = people.get(sample_id, {}), basis.get(sample_id) if mode == "gold" else "majority"
        of_one = why != "gold" and sample_id in one_person
        known[sample_id] = Truth(grade, voices, mode == "votes", why == "settled", of_one)
    return known


def review_comments(store: Store) -> dict[str, str]:
    """Sample id -> what people wrote about it in review and which rule they found unclear; nobody is named."""
    sql = """select sample_id::varchar, string_agg(concat_ws(': ', rule,
                 if(list_contains(flags, 'rule_unclear'), 'the rule is unclear', null), nullif(comment, '')), ' | '
                 order by created_at, label_id)
             from label anti join superseded using (label_id)
             where source = 'human' and (comment <> '' or list_contains(flags, 'rule_unclear'))
                 and not list_contains(flags, 'draft')
             group by sample_id"""
    with store.read() as con:
        return dict(con.execute(sql).fetchall())


def people_heard(store: Store, samples: Collection[str]) -> dict[str, int]:
    """How much of what people said counts on these samples.

    Returns:
        `labels` (grades by people), `reviewed` (of these, given in review batches), `settled` (samples whose truth
        people settled) and `commented` (samples with a comment or an unclear rule).
    """
    ids = list(samples)
    with store.read() as con:
        counted = con.execute(
            "select count(*), count(*) filter (batch in (select batch from review_batches)) from vote "
            "where source = 'human' and sample_id in (select unnest($1::uuid[]))",
            [ids],
        ).fetchone()
        settled = con.execute(
            "select count(*) from settled where sample_id in (select unnest($1::uuid[]))", [ids]
        ).fetchone()
    labels, reviewed = counted or (0, 0)
    commented = len(review_comments(store).keys() & set(ids))
    return {"labels": labels, "reviewed": reviewed, "settled": settled[0] if settled else 0, "commented": commented}


def ceiling(truths: Iterable[Truth]) -> float | None:
    """How often one person agrees with the truth: what a judge can hope for.

    None where it cannot be told: without raters, and where what one person said is the truth, with which that person
    agrees always.
    """
    shares = [t.votes.get(t.grade, 0) / sum(t.votes.values()) for t in truths if t.votes and not t.of_one]
    return sum(shares) / len(shares) if shares else None


def _consensus(store: Store) -> dict[str, str]:
    """The grade that Dawid and Skene's model holds most probable for each sample that people rated."""
    votes = store.frame(
        "select sample_id, annotator, grade from vote where source = 'human' order by sample_id, annotator, ordinal"
    )
    items, item_codes = np.unique(votes["sample_id"].to_numpy(), return_inverse=True)
    raters, rater_codes = np.unique(votes["annotator"].to_numpy(), return_inverse=True)
    symbols = store.task.symbols
    grades = np.array([symbols.index(g) for g in votes["grade"].to_list()], dtype=np.int64)
    found = dawid_skene(item_codes, rater_codes, grades, n_items=len(items), n_raters=len(raters), k=len(symbols))
    best = np.asarray(found.posterior).argmax(axis=1)
    return {str(item): symbols[i] for item, i in zip(items, best, strict=True)}
