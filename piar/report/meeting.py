"""The lead's page for a meeting: what people agree on, what divides them, who needs help, what waits.

Reads the store alone, like `piar.report.page`; of a few rows it says that they are few.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from piar.report.guideline import doubted
from piar.report.next_steps import following
from piar.report.page import render
from piar.review.agreement import RuleAgreement, agreement, by_rule, pairs, shared, with_others
from piar.review.batch import Batch, load
from piar.review.codebook import CITED
from piar.review.guide import version
from piar.review.status import Person, answers_of, progress
from store.db import Store, now
from store.figures import many, working_time
from store.files import write_text
from store.stats import FEWEST, Floats, GroupBootstrap, Interval, group_codes, group_sums, ratio, share_by_group
from store.types import Instruction

QUIET = timedelta(days=3)  # without an answer: somebody with open rows has stopped (our choice)
WIDTH, HEIGHT, MARGIN = 900, 260, 44  # of the chart, in pixels
SHOWN_RULES, SHOWN_ROWS = 8, 3

BATCHES = "select batch from review_batches order by created_at, batch"
REVISIONS = "select instruction, since from in_force order by since"


@dataclass(frozen=True, slots=True)
class Help:
    """One person among the others, over all blind batches.

    Attributes:
        hours: spent, over the answers whose seconds are known; None where none are.
        alike: share of the others' answers to the same random rows that are this person's too.
        difference: by how much that is more than the others have among themselves; the interval allows for asking it of
            everybody. None with fewer than three people: of two who differ nobody can say which of them errs.
        right: share of the answers that the truth of settled rows, gold and checks bears out.
    """

    annotator: str
    rows: int
    hours: float | None
    seconds: float | None
    alike: Interval | None
    difference: Interval | None
    right: Interval | None

    @property
    def needed(self) -> bool:
        """Whether this person agrees with the others less than they do among themselves, by the whole interval."""
        return self.difference is not None and self.difference.high is not None and self.difference.high < 0


def meeting(store: Store, out: Path, current: Instruction, stale: Sequence[Any], at: datetime | None = None) -> str:
    """Write the page; returns its headline.

    Args:
        out: the file to write; replaced whole.
        current: the instruction in force.
        stale: of `piar.query.stale_labels.stale_labels`.
        at: when the meeting is, UTC; now when None.
    """
    with store.read():
        values = collect(store, current, stale, at or now())
    write_text(out, render("meeting.html.j2", values))
    return str(values["headline"])


def collect(store: Store, current: Instruction, stale: Sequence[Any], at: datetime) -> dict[str, Any]:
    """Everything that the page shows, as plain values."""
    batches = [batch for name in store.frame(BATCHES)["batch"] if (batch := load(store, name))]
    answers = {batch.name: answers_of(store, batch.name) for batch in batches}
    given = [answers[b.name].filter(pl.col("grade").is_not_null() & pl.col("counts")) for b in batches if b.blind]
    said = pl.concat(given) if given else pl.DataFrame()
    at_random = said.filter(pl.col("role") == "random") if given else said
    found = pairs(at_random) if given else pl.DataFrame()
    rules = by_rule(found, dict(store.frame(CITED).rows())) if len(found) else []
    people = helped(store, said, found) if given else []
    work = [(batch, person) for batch in batches for person in progress(store, batch, answers[batch.name])]
    values: dict[str, Any] = {
        "task": store.task.name,
        "made_at": f"{at:%d %B %Y, %H:%M} UTC",
        "version": version(store, current),
        "people": people,
        "few": FEWEST,
        "rules": [_told(store, current, r, at_random) for r in rules[:SHOWN_RULES]],
        "doubts": doubted(store, current),
        "over_time": over_time(store, batches, answers),
        "stale": [{"what": s.what, "since": s.since, "labels": s.labels, "hours": s.hours} for s in stale],
        "open": [_open(batch, person, at) for batch, person in work if person.answered < person.assigned],
        "duration": working_time,
        "shared": found["sample_id"].n_unique() if len(found) else 0,
    }
    values["next"] = following(store, batches, values, current)
    values["headline"] = _headline(values)
    return values


def helped(store: Store, said: pl.DataFrame, found: pl.DataFrame) -> list[Help]:
    """Everybody's work, and how far each agrees with the others."""
    truth = store.frame("select sample_id, grade as truth from truth where basis in ('settled', 'gold')")
    judged = said.join(truth, on="sample_id").with_columns(right=pl.col("grade") == pl.col("truth"))
    people = sorted(said["annotator"].unique())
    alike = with_others(found)
    result = []
    for person in people:
        mine, checked = said.filter(pl.col("annotator") == person), judged.filter(pl.col("annotator") == person)
        median = mine["seconds"].median()
        result.append(
            Help(
                annotator=person,
                rows=mine["sample_id"].n_unique(),
                hours=float(mine["spent"].sum()) / 3600 if mine["spent"].count() else None,
                seconds=float(median) if isinstance(median, int | float) else None,
                alike=alike.get(person),
                difference=_apart(found, person, len(people)),
                right=_share(checked) if len(checked) else None,
            )
        )
    return result


def _share(rows: pl.DataFrame) -> Interval:
    return share_by_group(rows["right"].cast(pl.Float64).to_numpy(), np.ones(len(rows)), rows["group_key"].to_numpy())


def _apart(found: pl.DataFrame, person: str, asked: int) -> Interval | None:
    """How much more the others' pairs with this person agree than their pairs without, by group (Bonferroni)."""
    rows = found.with_columns(mine=(pl.col("annotator") == person) | (pl.col("other") == person))
    if rows.is_empty() or rows["mine"].all() or not rows["mine"].any():
        return None
    mine, same = (rows[name].cast(pl.Float64).to_numpy() for name in ("mine", "same"))
    codes, n = group_codes(rows["group_key"].to_numpy())
    sums = group_sums(np.column_stack([mine * same, mine, (1 - mine) * same, 1 - mine]), codes, n)
    difference: Callable[[Floats], Floats] = lambda s: ratio(s[..., :2]) - ratio(s[..., 2:])  # noqa: E731
    return GroupBootstrap(n, level=1 - 0.05 / asked).interval(sums, difference)


def _told(store: Store, current: Instruction, found: RuleAgreement, answers: pl.DataFrame) -> dict[str, Any]:
    """A rule's row on the page, with some rows on which people differ."""
    rule = current.rule(found.rule)
    apart = shared(answers).filter(pl.col("grade").n_unique().over("sample_id") > 1)
    named = apart.filter((pl.col("rule") == found.rule).any().over("sample_id")) if found.rule else apart.clear()
    keys = named["sample_id"].unique().sort().to_list()[:SHOWN_ROWS]
    samples = {s.id: s.fields for s in store.samples(ids=set(keys))} if keys else {}
    rows = [
        {
            "fields": samples[key],
            "said": named.filter(pl.col("sample_id") == key).select("annotator", "grade", "rule").rows(named=True),
        }
        for key in keys
    ]
    text = rule.text if rule else ("" if not found.rule else "This rule is not in the instruction.")
    return {"found": found, "text": text, "rows": rows, "apart": round(found.pairs * (1 - (found.same.value or 0)))}


def _open(batch: Batch, person: Person, at: datetime) -> dict[str, Any]:
    """Rows that somebody has left, and whether that person has stopped: rows answered in part, none of late."""
    stopped = person.last is not None and at - person.last > QUIET
    return {"batch": batch.name, "person": person, "stopped": stopped}


def over_time(store: Store, batches: Sequence[Batch], answers: dict[str, pl.DataFrame]) -> dict[str, Any] | None:
    """Agreement of each batch in the order of their answers, and the revisions between; None without any."""
    points: list[dict[str, Any]] = []
    for batch in batches:
        rows = answers[batch.name].filter(pl.col("grade").is_not_null() & (pl.col("role") == "random"))
        found = agreement(store.task, rows)
        if batch.blind and found.alpha is not None and found.alpha.value is not None:
            at = rows["created_at"].median()
            points.append({"batch": batch.name, "at": at, "items": found.items, "alpha": found.alpha})
    points.sort(key=lambda p: p["at"])
    if not points:
        return None
    revisions = [{"number": n, "at": at} for n, (_, at) in enumerate(store.frame(REVISIONS).rows(), 1) if n > 1]
    return {"points": points, "revisions": revisions, "chart": _chart(points, revisions)}


def _chart(points: list[dict[str, Any]], revisions: list[dict[str, Any]]) -> dict[str, Any]:
    """Places in the drawing: agreement upwards from at most 0 to 1, time to the right."""
    times = [p["at"].timestamp() for p in (*points, *revisions)]
    first, last = min(times), max(times)
    low = min(0.0, *(p["alpha"].low if p["alpha"].low is not None else p["alpha"].value for p in points))

    def across(at: datetime) -> float:
        share = (at.timestamp() - first) / (last - first) if last > first else 0.5
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    def up(value: float | None) -> float | None:
        return None if value is None else round(HEIGHT - MARGIN - (value - low) / (1 - low) * (HEIGHT - 2 * MARGIN), 1)

    drawn = [
        {"x": across(p["at"]), "y": up(p["alpha"].value), "low": up(p["alpha"].low), "high": up(p["alpha"].high)} | p
        for p in points
    ]
    return {
        "size": (WIDTH, HEIGHT),
        "points": drawn,
        "line": " ".join(f"{p['x']},{p['y']}" for p in drawn),
        "revisions": [{"x": across(r["at"])} | r for r in revisions],
        "levels": [(up(v), f"{v:g}") for v in (0.0, 0.5, 1.0)],
        "left": MARGIN,
        "right": WIDTH - MARGIN,
    }


def _headline(values: dict[str, Any]) -> str:
    """The first sentence: how far people agree, and who or what needs attention."""
    points = values["over_time"]["points"] if values["over_time"] else []
    told = [p for p in points if p["alpha"].low is not None]
    if not values["people"]:
        parts = ["Nobody has answered a review yet"]
    elif told:
        ends = told[-1]["alpha"]
        parts = [f"Agreement in {told[-1]['batch']} is {ends.value:.2f} ({ends.low:.2f} to {ends.high:.2f})"]
    else:
        few = "too few rows were" if points else "no row was"
        parts = [f"Agreement is not known: {few} judged by two people"]
    helped = [p.annotator for p in values["people"] if p.needed]
    verb = "differs" if len(helped) == 1 else "differ"
    parts += [f"{', '.join(helped)} {verb} from the others more than by chance"] if helped else []
    named = [d["found"].what for d in values["doubts"]["rows"]] if values["doubts"] else []
    doubts = [what for what in named if what != "row"]
    parts += [f"{', '.join(doubts)} may be wrong in the guideline"] if doubts else []
    stale, hours = (sum(s[name] for s in values["stale"]) for name in ("labels", "hours"))
    are = "is" if stale == 1 else "are"
    parts += [f"{many(stale, 'label')} {are} stale, {working_time(hours)} of work"] if stale else []
    return "; ".join(parts)
