"""A batch: rows chosen once, given to people, frozen.

Chosen by us: a batch is sized in hours; its random rows alone enter agreement figures; rows seen by
two people are taken from the random rows first; gold checks are rows whose label nobody doubts. Why
blind, and why queue rows may not enter closed splits: arXiv 2507.15821 and the measurements in
docs/experiments/review.md.
"""

import json
import random
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import polars as pl

from piar.review.first import DIVERSE, first_rows, starting
from piar.review.settings import Question, ReviewSettings
from store.db import Store, now
from store.errors import PiarError, UsageError
from store.ids import seed_of
from store.types import Split

Role = Literal["queue", "random", "check", "relabel", "adjudicate", "planned"]
PILOT = "pilot"  # the reason of such rows
DEFAULT_SECONDS = 20.0  # per row, until people's own pace is known


@dataclass(frozen=True, slots=True)
class Assignment:
    """One row for one person."""

    sample_id: str
    annotator: str
    role: Role
    reason: str = ""
    inclusion: float | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What was given to whom.

    `fresh` is False when the batch was composed before; `pace` is the seconds that a row takes; `questions` are asked
    beside the grade.
    """

    name: str
    assignments: tuple[Assignment, ...]
    fresh: bool
    pace: float = DEFAULT_SECONDS
    questions: tuple[Question, ...] = ()

    @property
    def hours(self) -> float:
        """How long it takes, all annotators together."""
        return len(self.assignments) * self.pace / 3600

    @property
    def blind(self) -> bool:
        """Whether people answer without seeing what others and the models said."""
        return all(a.role != "adjudicate" for a in self.assignments)

    @property
    def unqueued(self) -> bool:
        """Whether all its rows were drawn at random, for want of a queue or because that was asked for."""
        return {a.role for a in self.assignments} <= {"random", "check"} and not self.pilot

    @property
    def pilot(self) -> bool:
        """Whether everybody judges the same rows, to find out whether they read the instruction alike."""
        return all((a.role, a.reason) == ("random", PILOT) for a in self.assignments)

    def of(self, annotator: str) -> list[Assignment]:
        """One person's rows in the order in which they are shown."""
        return sorted((a for a in self.assignments if a.annotator == annotator), key=lambda a: a.position)

    @property
    def annotators(self) -> list[str]:
        """Everyone with rows in the batch, by name."""
        return sorted({a.annotator for a in self.assignments})


@dataclass(frozen=True, slots=True)
class _Pick:
    sample_id: str
    role: Role
    reason: str = ""
    inclusion: float | None = None


def compose(
    store: Store,
    name: str,
    settings: ReviewSettings,
    run_id: str,
    *,
    relabel: Split | Sequence[str] | None = None,
    adjudicate: str | None = None,
    rest: str | None = None,
    pilot: int | None = None,
    answers: int | None = None,
    planned: Sequence[tuple[str, float]] = (),
) -> Batch:
    """Choose the rows of a batch and record them; a batch composed before is returned as it was.

    Args:
        store: the project's store; the queue comes from `piar mine`.
        name: the batch's name, e.g. `w47`.
        settings: size, shares and people.
        run_id: recorded with the batch.
        relabel: a whole split, or samples by their ids, to be judged again, blind, instead of queue and random rows.
        adjudicate: an earlier batch; rows on which its people contradict each other or gold are
            settled, with all opinions in sight: that grade is the truth from then on.
        rest: an earlier batch; rows that somebody has left open go to others of `settings.annotators`, as what they
            were.
        pilot: so many random rows, the same for everybody: a round to find out whether people read the instruction
            alike, before the blind batches.
        planned: samples with the chance with which a plan drew them, instead (see `piar.rankings.plan`).
        answers: size of the batch, where it is not to follow from hours and people's pace.

    Raises:
        UsageError: no annotators, or a name that is not a plain word.
        PiarError: nothing to review.
    """
    if known := load(store, name):
        return known
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(f"{name!r} is no batch name", "Use letters, digits, '-', '_' and '.', e.g. --batch w47.")
    if (earlier := adjudicate or rest) and load(store, earlier) is None:
        raise PiarError(f"There is no batch {earlier!r}.", "`piar sql 'select batch from review_batches'` lists them.")
    if not settings.annotators:
        raise UsageError("Nobody is named to annotate.", 'Set [review] annotators = ["ann@example.com"] in piar.toml.')
    answers = answers or max(1, round(settings.hours * 3600 / seconds_per_row(store)))
    draw = seed_of(settings.seed, name, "checks")
    if rest:
        assignments = hand_on(store, rest, settings, name)
    elif adjudicate or planned or pilot:
        picks, settings = _fixed(store, name, settings, adjudicate, planned, pilot)
        assignments = _assign(picks, (), settings, name)
    else:
        wanted = len(_checks(store, round(answers * settings.checks), frozenset(), draw))
        picks = _relabel(store, relabel) if relabel is not None else _rows(store, answers - wanted, settings, name)
        assignments = _assign(
            picks, _checks(store, wanted, {p.sample_id for p in picks}, draw) if picks else (), settings, name
        )
    if not assignments:
        raise _nothing(relabel, adjudicate, rest)
    _record(store, name, assignments, settings, run_id, rest or "")
    return Batch(name, tuple(assignments), True, seconds_per_row(store), settings.questions)


def _nothing(relabel: Split | Sequence[str] | None, adjudicate: str | None, rest: str | None) -> PiarError:
    """Why a batch has no row, by what it was to hold."""
    if relabel is not None:
        which = f"split {relabel} has no row" if isinstance(relabel, str) else "no label of a person is stale"
        return PiarError(f"There is nothing to judge again: {which}.", "`piar status` says what is stale.")
    if adjudicate:
        why = f"in {adjudicate} nobody contradicts another or gold yet, or all of it is settled"
        return PiarError(f"There is nothing to settle: {why}.", f"`piar review status --batch {adjudicate}` says more.")
    if rest:
        why = f"{rest} has no open row that somebody else could take"
        return PiarError(
            f"There is nothing to hand on: {why}.", f"`piar review status --batch {rest}` says who has how many left."
        )
    return PiarError(
        "There is nothing to review: no row is queued or left to draw.",
        "Import more rows, or run `piar label` and `piar mine`, then push again.",
    )


def _fixed(
    store: Store,
    name: str,
    settings: ReviewSettings,
    adjudicate: str | None,
    planned: Sequence[tuple[str, float]],
    pilot: int | None,
) -> tuple[list[_Pick], ReviewSettings]:
    """The rows of a batch whose size nobody chooses by hours, and how they are dealt."""
    if pilot:
        drawn = _rows(store, pilot, settings.model_copy(update={"random": 1.0, "overlap": 0.0}), name)
        everybody = {"overlap": 1.0, "raters": max(2, len(settings.annotators))}
        return [_Pick(p.sample_id, "random", PILOT, p.inclusion) for p in drawn], settings.model_copy(update=everybody)
    alone: dict[str, object] = {"overlap": 0.0}
    if adjudicate:
        people = (settings.lead,) if settings.lead else settings.annotators
        return _disputed(store, adjudicate), settings.model_copy(update=alone | {"annotators": people})
    return [_Pick(i, "planned", "compare", p) for i, p in planned], settings.model_copy(update=alone)


def load(store: Store, name: str) -> Batch | None:
    """A batch composed before, or None."""
    rows = store.frame("select * from review_tasks where batch = ? order by annotator, position", [name]).rows(
        named=True
    )
    assignments = (
        Assignment(r["sample_id"], r["annotator"], r["role"], r["reason"], r["inclusion"], r["position"]) for r in rows
    )
    if not rows:
        return None
    config = json.loads(store.frame("select config from review_batches where batch = ?", [name]).item())
    questions = tuple(Question.model_validate(q) for q in config.get("questions", ()))
    return Batch(name, tuple(assignments), False, seconds_per_row(store), questions)


def pushed(store: Store) -> frozenset[str]:
    """Batches that are in Label Studio; the others are sheets, or are judged at a terminal."""
    return frozenset(store.frame("select distinct batch from review_projects")["batch"])


def free_name(name: str, taken: Collection[str]) -> str:
    """This name for a new batch, or the next one that is not taken: `again`, `again-2`, …"""
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def giving(name: str, options: str, label_studio: bool) -> str:
    """The command that gives people a new batch, in Label Studio or as sheets."""
    where = "push" if label_studio else f"export {name}.csv"
    return f"piar review {where} --batch {name} {options}"


def open_pilots(store: Store) -> list[tuple[str, str, int]]:
    """Batch, person and number of rows of calibration rounds that somebody has not finished."""
    sql = f"""select t.batch, t.annotator, count(*) from review_tasks t
              where t.role = 'random' and t.reason = '{PILOT}' and {OPEN} group by all order by all"""
    return store.frame(sql).rows()


def seconds_per_row(store: Store) -> float:
    """Median seconds a person took, over the labels that know it."""
    row = store.frame(
        "select median(seconds) as m, count(seconds) as n from label where source = 'human' and seconds > 0"
    ).row(0)
    return float(row[0]) if row[1] >= 20 else DEFAULT_SECONDS


# Seconds of a label that count as work: a page that was left open overnight counts as ten ordinary answers, at least as
# five minutes (our choice).
SPENT = """if(seconds is null, null, least(seconds, greatest(300, 10 * (
    select median(seconds) from label where source = 'human' and seconds > 0))))"""
# A row of `review_tasks t` that others took over, since its annotator annotated no more.
HANDED_ON = """exists (
    select 1 from review_batches b join review_tasks o on o.batch = b.batch
    where b.config->>'rest' = t.batch and o.sample_id = t.sample_id
        and not list_contains(from_json(b.config->'annotators', '["VARCHAR"]'), t.annotator))"""
# A row of `review_tasks t` that has no answer yet, and that its annotator still has.
OPEN = f"""not {HANDED_ON} and not exists (
    select 1 from label l where l.sample_id = t.sample_id and l.annotator = t.annotator and l.batch = t.batch
        and l.source = 'human' and not list_contains(l.flags, 'undone'))"""
_FREE = """s.split not in ('dev', 'holdout', 'test') and s.origin = 'import'
  and not exists (select 1 from review_tasks t where t.sample_id = s.sample_id)"""


def _rows(store: Store, answers: int, settings: ReviewSettings, name: str) -> list[_Pick]:
    """Random rows first (they are the honest part), then the queue by rank; without a queue, random rows alone.

    Closed splits are never queued. At a project's beginning, see `piar.review.first`.
    """
    unique = max(1, round(answers / (1 + settings.overlap)))
    if starting(store):
        at_random, diverse = first_rows(
            store, unique, seed_of(settings.seed, name, "first"), min(DIVERSE, 1 - settings.random)
        )
        if at_random:
            return [_Pick(i, "random", "", p) for i, p in at_random] + [_Pick(i, "queue", "diverse") for i in diverse]
    free = store.frame(f"select s.sample_id from samples s where {_FREE} order by s.sample_id")["sample_id"].to_list()
    queue = _queue(store, settings.reasons)
    wanted = min(len(free), unique if queue.is_empty() else round(unique * settings.random))
    drawn = random.Random(seed_of(settings.seed, name, "random")).sample(free, wanted)
    chance = wanted / len(free) if free else None
    picks = [_Pick(i, "random", "", chance) for i in drawn]
    taken = set(drawn)
    queued = [_Pick(i, "queue", reason, p) for i, reason, p in queue.rows() if i not in taken]
    return picks + queued[: unique - len(picks)]


def _queue(store: Store, reasons: Sequence[str]) -> pl.DataFrame:
    """The queue with these reasons first, in its own order; then the rest, the most doubtful label first."""
    mined = store.frame(
        "select 1 from information_schema.columns where table_name = 'signals' and column_name = 'suspicion'"
    )
    doubt = "(select suspicion from signals x where x.sample_id = s.sample_id)" if mined.height else "null"
    return store.frame(
        f"""select s.sample_id, s.reason, s.inclusion, list_contains($1, s.reason) as wanted from label_queue s
            where {_FREE} order by wanted desc, if(wanted, null, {doubt}) desc nulls last, s.rank""",
        [list(reasons)],
    ).drop("wanted")


def _relabel(store: Store, split: Split | Sequence[str]) -> list[_Pick]:
    if not isinstance(split, str):
        return [_Pick(i, "relabel", "stale", 1.0) for i in sorted(set(split))]
    ids = store.frame("select sample_id from samples where split = ? order by sample_id", [split])[
        "sample_id"
    ].to_list()
    return [_Pick(i, "relabel", split, 1.0) for i in ids]


def _disputed(store: Store, batch: str) -> list[_Pick]:
    """Rows on which the people of an earlier batch contradict each other or the gold label, unless settled since."""
    sql = """select sample_id from label l
             where grade is not null and (batch = $1 and source = 'human' or source = 'gold')
                 and not exists (select 1 from settlement s where s.sample_id = l.sample_id and s.blind = false
                                 and not s.stale and s.batch <> $1)
             group by sample_id having count(distinct grade) > 1 and bool_or(batch = $1 and source = 'human')
             order by sample_id"""
    return [_Pick(i, "adjudicate", batch) for i in store.frame(sql, [batch])["sample_id"].to_list()]


def _checks(store: Store, n: int, taken: Set[str], seed: int) -> list[_Pick]:
    """Rows whose gold nobody doubts: at least two people said the same as gold, none another grade."""
    sql = """select l.sample_id from vote l join samples s using (sample_id)
             where l.source in ('gold', 'human') and s.split = 'train' group by l.sample_id
             having count(distinct l.grade) = 1 and count(*) >= 3 and bool_or(l.source = 'gold') order by l.sample_id"""
    ids = [i for i in store.frame(sql)["sample_id"].to_list() if i not in taken]
    return [_Pick(i, "check") for i in random.Random(seed).sample(ids, min(n, len(ids)))]


def _assign(picks: Sequence[_Pick], checks: Sequence[_Pick], settings: ReviewSettings, name: str) -> list[Assignment]:
    """Deal rows round robin, overlapping rows to several people, then shuffle each person's pile."""
    people = sorted(settings.annotators)
    rng = random.Random(seed_of(settings.seed, name, "deal"))
    dealt = rng.sample(list(picks), len(picks))
    raters = min(settings.raters, len(people))
    shared = 0 if raters < 2 else round(len(picks) * settings.overlap)
    overlapping = {p.sample_id for p in sorted(dealt, key=lambda p: p.role == "queue")[:shared]}
    piles: dict[str, list[_Pick]] = {person: [] for person in people}
    for turn, pick in enumerate(dealt):
        for place in range(raters if pick.sample_id in overlapping else 1):
            piles[people[(turn + place) % len(people)]].append(pick)
    for turn, pick in enumerate(checks):
        piles[people[turn % len(people)]].append(pick)
    return _in_piles(piles, rng)


def hand_on(store: Store, batch: str, settings: ReviewSettings, name: str) -> list[Assignment]:
    """The open rows of people of an earlier batch who annotate no more, each to somebody who has not had it, evenly.

    A row that all the others have had stays where it is.
    """
    left = store.frame(
        f"""select t.sample_id, t.annotator, t.role, t.reason, t.inclusion from review_tasks t
            where t.batch = ? and {OPEN} order by t.sample_id, t.annotator""",
        [batch],
    ).rows()
    people, absent = sorted(settings.annotators), {person for _, person, *_ in left} - set(settings.annotators)
    if left and not absent:
        busy = ", ".join(sorted({person for _, person, *_ in left}))
        raise UsageError(
            f"Everybody who has rows of {batch} open still annotates: {busy}.",
            "Take whoever has stopped out of [review] annotators in piar.toml, or for once with --set.",
        )
    had = set(store.frame("select sample_id, annotator from review_tasks where batch = ?", [batch]).rows())
    left = [row for row in left if row[1] in absent]
    rng = random.Random(seed_of(settings.seed, name, "deal"))
    piles: dict[str, list[_Pick]] = {person: [] for person in people}
    for key, _, role, reason, inclusion in rng.sample(left, len(left)):
        free = [p for p in people if (key, p) not in had]
        if free:
            taker = min(free, key=lambda p: len(piles[p]))
            piles[taker].append(_Pick(key, role, reason, inclusion))
            had.add((key, taker))
    return _in_piles(piles, rng)


def _in_piles(piles: dict[str, list[_Pick]], rng: random.Random) -> list[Assignment]:
    """Each person's rows, shuffled."""
    result = []
    for person, pile in piles.items():
        rng.shuffle(pile)
        result += [Assignment(p.sample_id, person, p.role, p.reason, p.inclusion, i) for i, p in enumerate(pile)]
    return result


def _record(
    store: Store, name: str, assignments: Sequence[Assignment], settings: ReviewSettings, run_id: str, rest: str
) -> None:
    rows = pl.DataFrame(
        [(a.sample_id, a.annotator, a.role, a.reason, a.inclusion, a.position) for a in assignments],
        orient="row",
        schema={
            "sample_id": pl.String,
            "annotator": pl.String,
            "role": pl.String,
            "reason": pl.String,
            "inclusion": pl.Float64,
            "position": pl.Int32,
        },
    )
    with store.write() as con:
        con.execute(
            "insert into review_batches values (?, ?, ?, ?)",
            [name, json.dumps({**settings.model_dump(mode="json"), "rest": rest}), run_id, now()],
        )
        con.register("composed", rows.to_arrow())
        con.execute(
            "insert into review_tasks "
            "select ?, sample_id::uuid, annotator, role, reason, inclusion, position from composed",
            [name],
        )
        con.unregister("composed")
