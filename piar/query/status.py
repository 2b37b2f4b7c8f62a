"""Where a project stands: what it holds, what is stale, what comes next and what that would cost."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from store.figures import bracketed, many, span

if TYPE_CHECKING:
    from piar.llm.settings import ModelSettings
    from piar.measure.live_logs import Drift
    from piar.query.stale_labels import StaleLabels
    from store.db import Store
    from store.types import Instruction

FIRST_GAIN = 0.25  # a first search is proposed once the holdout can show this much
MOVED = 0.01  # p-value below which the grades' shares are said to have moved
_GRADING = ("review-here", "review-import", "review-pull")  # runs that bring people's labels
FEWEST_GROUPS = 5  # groups nobody has graded, from which on it is worth asking people for more


@dataclass(frozen=True, slots=True)
class Stale:
    """Something that newer knowledge has overtaken."""

    what: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Reworded:
    """A rule or a grade whose words changed, as somebody said, without changing what they ask.

    Attributes:
        version: the instruction that brought the new words.
        labels, hours: of people's labels that rest on the older words and stand because of that.
    """

    what: str
    version: str
    by: str
    at: datetime
    labels: int
    hours: float


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next. `cost_usd` is None where earlier answers of this teacher tell nothing yet."""

    command: str
    why: str
    calls: int = 0
    cost_usd: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """Counts, and what follows from them."""

    holds: dict[str, Any]
    stale: tuple[Stale, ...]
    next: tuple[Step, ...]
    minor: tuple[Reworded, ...] = ()


@dataclass(frozen=True, slots=True)
class _State:
    """What the rules below look at.

    Attributes:
        to_judge: train and pool rows that the teacher has not judged under the present instruction.
        older: of those, rows that it has judged under another one.
        reworded: of these, rows that it has judged under one that says the same in other words.
        price: dollars for one call of this teacher, None when unknown.
        unscored: labelled test rows without a verdict under the present instruction.
        last: verb -> when it was last done.
        cut_off: a search that did not end, or None.
        lacking: why a first search could show nothing yet, and how many groups more would do, or None.
        waiting: groups that nobody has graded.
        overtaken: people's labels that a later change of policy made stale.
        calibrated: the instruction that the teacher was calibrated under, where that is not the present one; else None.
        other_truth: what is held true has changed since the teacher's calibration was fitted.
        again: the command that has stale labels judged again.
        drift: the teacher's grades among the latest logs beside earlier ones, None where too few are judged.
    """

    samples: int
    labelled: int
    to_judge: int
    older: int
    reworded: int
    price: float | None
    unscored: int
    last: dict[str, Any]
    cut_off: str | None
    proposal: bool
    lacking: str | None
    waiting: int
    overtaken: "list[StaleLabels]"
    drift: "Drift | None"
    calibrated: str | None
    other_truth: bool
    again: str


def status(
    store: "Store",
    teacher: "ModelSettings",
    judge: str,
    current: "Instruction",
    *,
    proposal: bool,
    beside: "Iterable[Stale]" = (),
) -> Status:
    """Look at the store and say where the project stands; nothing is asked and nothing is changed.

    Args:
        teacher: prices what comes next.
        judge: whose its verdicts are.
        current: the instruction in force.
        proposal: whether one waits.
        beside: what is stale outside of the store.
    """
    state = _read(store, teacher, judge, current, proposal)
    counts = store.frame("select split, count(*) as n from samples group by split order by split").rows()
    holds = {
        "instruction": current.id,
        "rules": len(current.rules),
        "samples": dict(counts),
        "labelled": state.labelled,
    }
    stale = (*(found for rule in _STALE for found in rule(state)), *beside)
    return Status(holds, stale, tuple(step for rule in _NEXT for step in rule(state)), _reworded(store, current))


def _read(store: "Store", teacher: "ModelSettings", judge: str, current: "Instruction", proposal: bool) -> _State:
    from piar.measure.live_logs import drift
    from piar.query.stale_labels import stale_labels
    from piar.review.batch import free_name, giving, pushed
    from store.calibrated import calibrated_elsewhere, fitted_on_other_truth
    from store.judges import Judge
    from store.wording import same_but_for_words

    row = store.frame(
        """with mine as (select distinct sample_id from verdicts
                         where judge = $1 and instruction = $2 and grade is not null),
                other as (select distinct sample_id from verdicts where judge = $1 and instruction <> $2),
                alike as (select distinct sample_id from verdicts where judge = $1 and grade is not null
                          and instruction in (select unnest($3::varchar[]))),
                every as (select sample_id, split, sample_id in (select sample_id from truth) as labelled,
                                 sample_id in (from mine) as judged, sample_id in (from other) as older,
                                 sample_id in (from alike) as reworded from samples)
           select count(*), count(*) filter (labelled),
                  count(*) filter (split in ('train', 'pool') and not judged),
                  count(*) filter (split in ('train', 'pool') and not judged and older),
                  count(*) filter (split in ('train', 'pool') and not judged and reworded),
                  (select avg(cost_usd) from completions where failure is null
                   and key in (select key from verdicts where judge = $1)),
                  count(*) filter (split = 'test' and labelled and not judged)
           from every""",
        [judge, current.id, same_but_for_words(store, current)],
    ).row(0)
    last = store.frame(
        "select verb, max(started) as at_time from runs join run_events using (run_id) "
        "where status = 'done' group by verb"
    ).rows()
    cut_off = store.frame(
        "select run_id from runs r where verb = 'evolve' and not exists (select 1 from run_events e "
        "where e.run_id = r.run_id and e.status in ('done', 'failed', 'abandoned')) order by started desc limit 1"
    )
    free = 0.0 if teacher.host is None else None
    price = free if row[5] is None or not teacher.priced else float(row[5])
    found = str(cut_off.item()) if cut_off.height else None
    waiting = _waiting(store)
    lacking = _lacking(store, waiting) if row[1] else None
    overtaken = stale_labels(store, current)
    teaching = Judge(judge, current.id)
    moved = drift(store, teaching)
    calibrated = (calibrated_elsewhere(store, teaching), fitted_on_other_truth(store, teaching))
    taken = store.frame("select batch from review_batches")["batch"].to_list()
    again = giving(free_name("again", taken), "--relabel stale", bool(pushed(store)))
    told = (dict(last), found, proposal, lacking, waiting, overtaken, moved, *calibrated, again)
    return _State(row[0], row[1], row[2], row[3], row[4], price, row[6], *told)


def _reworded(store: "Store", current: "Instruction") -> tuple[Reworded, ...]:
    """What minor edits let stand: the labels that would be stale without them."""
    from piar.query.stale_labels import stale_labels
    from store.wording import minor_edits

    called = {edit.what: edit for edit in minor_edits(store)}
    if not called:
        return ()
    overtaken = {old.what: old for old in stale_labels(store, current)}
    found = []
    for old in stale_labels(store, current, ()):
        lost = overtaken.get(old.what)
        labels, hours = old.labels - (lost.labels if lost else 0), old.hours - (lost.hours if lost else 0.0)
        if old.what in called and labels:
            edit = called[old.what]
            found.append(Reworded(edit.what, edit.version, edit.by, edit.at, labels, hours))
    return tuple(found)


def _waiting(store: "Store") -> int:
    """Groups of the pool that nobody has graded."""
    return store.frame(
        "select 1 from samples group by group_key having bool_and(split = 'pool') and "
        "not bool_or(sample_id in (select sample_id from truth))"
    ).height


def _lacking(store: "Store", waiting: int) -> str | None:
    """What a search lacks to run, or to show a gain of `FIRST_GAIN` where more could be graded; None: nothing."""
    from piar.evolve.inputs import DEALT
    from piar.evolve.promotion import needed, power
    from piar.evolve.settings import PromotionSettings
    from store.splits import SplitSettings

    rows = store.frame(
        "select split, group_key, grade from samples join truth using (sample_id) "
        "where split in ('train', 'dev', 'holdout')"
    ).rows()
    groups = {split: [g for s, g, _ in rows if s == split] for split in ("train", "dev", "holdout")}
    thin = [split for split, found in groups.items() if len(set(found)) < 2]
    known = store.frame(
        "select count(distinct group_key) from samples join truth using (sample_id) where split <> 'pool'"
    ).item()
    if thin:
        more = f"; about {DEALT - known} more would do" if known < DEALT else ""
        return f"fewer than two labelled groups in {', '.join(thin)}{more}"
    if len(grades := {grade for *_, grade in rows}) == 1:
        return f"every labelled row is {grades.pop()}: nothing can be learned before other grades are among them"
    level = PromotionSettings().alpha
    found = power(groups["holdout"], level)
    if waiting < FEWEST_GROUPS or (found.detectable is not None and found.detectable <= FIRST_GAIN):
        return None
    due = round(max(0, needed(groups["holdout"], level, FIRST_GAIN) - found.groups) / SplitSettings().holdout)
    shown = "nothing" if found.detectable is None else f"no gain below {100 * found.detectable:.0f} points"
    return (
        f"{found.groups} labelled holdout groups can show {shown}; about {many(due, 'group')} more in all would "
        f"show {100 * FIRST_GAIN:.0f} points"
    )


# -- what is stale --------------------------------------------------------------------------------


def _search_is_behind(state: _State) -> Iterator[Stale]:
    evolved, imported = state.last.get("evolve"), state.last.get("import")
    if evolved and imported and imported > evolved:
        yield Stale("the search", "rows were imported after the last evolve", "piar evolve")


def _labels_are_behind(state: _State) -> Iterator[Stale]:
    if state.older:
        same = f", {state.reworded:,} of them under one that says the same in other words" if state.reworded else ""
        yield Stale(
            "labels",
            f"{many(state.older, 'row was', 'rows were')} judged under an older instruction only{same}",
            "piar label",
        )


def _score_is_behind(state: _State) -> Iterator[Stale]:
    if state.unscored and "score" in state.last:
        yield Stale("the score", f"{state.unscored:,} test rows are unjudged under this instruction", "piar score")


def _mining_is_behind(state: _State) -> Iterator[Stale]:
    mined, labelled = state.last.get("mine"), state.last.get("label")
    if mined and labelled and labelled > mined:
        yield Stale("signals and the queue", "verdicts came in after the last mine", "piar mine")


def _calibration_is_behind(state: _State) -> Iterator[Stale]:
    if state.calibrated:
        why = f"it was fitted under instruction {state.calibrated}; under this one none corrects it"
        yield Stale("the teacher's calibration", why, "piar calibrate")
    if state.other_truth:
        why = "the truth of its rows has changed since it was fitted, or rows have come"
        yield Stale("the teacher's calibration", why, "piar calibrate")


def _policy_has_moved_on(state: _State) -> Iterator[Stale]:
    for old in state.overtaken:
        why = (
            f"{old.what} changed on {old.since:%Y-%m-%d}; {many(old.labels, 'label')}, {old.hours:.1f} hours of "
            "work; they stand if `piar minor` says that only the wording changed"
        )
        yield Stale("people's labels", why, state.again)


def _logs_have_moved(state: _State) -> Iterator[Stale]:
    if state.drift and state.drift.p_value < MOVED:
        before, now, difference = state.drift.shares[state.drift.most]
        ends = bracketed(span(difference.low, difference.high, "{:+.0f}", 100))
        why = (
            f"in {state.drift.source} grade {state.drift.most} went from {100 * before:.0f} to {100 * now:.0f} %"
            f"{ends}, p = {state.drift.p_value:.3f}"
        )
        yield Stale("what is known of the logs", why, "piar review export FILE --batch NAME --random 100%")


_STALE: tuple[Callable[[_State], Iterator[Stale]], ...] = (
    _search_is_behind,
    _labels_are_behind,
    _score_is_behind,
    _mining_is_behind,
    _calibration_is_behind,
    _policy_has_moved_on,
    _logs_have_moved,
)

# -- what comes next ------------------------------------------------------------------------------


def _import(state: _State) -> Iterator[Step]:
    if not state.samples:
        yield Step("piar import FILE", "the store is empty")


def _decide(state: _State) -> Iterator[Step]:
    if state.proposal:
        yield Step("piar show proposal", "a proposal waits: accept or reject it")


def _go_on(state: _State) -> Iterator[Step]:
    if state.cut_off:
        yield Step("piar evolve", f"{state.cut_off} was cut off; it goes on where it was", cost_usd=None)


def _ask_people(state: _State) -> Iterator[Step]:
    if state.samples and not state.labelled:
        yield Step(
            "piar review here",
            "nothing is labelled: rows of random groups, and some that differ most, for you to grade at this "
            "terminal (`piar review export` writes sheets for several people, `piar review push` asks Label Studio)",
        )
    elif state.lacking and "evolve" not in state.last:
        if state.waiting:
            yield Step("piar review here", state.lacking)
        else:
            yield Step("piar import FILE", f"{state.lacking}; every row here is graded")


def _evolve(state: _State) -> Iterator[Step]:
    evolved, graded = state.last.get("evolve"), max((t for v, t in state.last.items() if v in _GRADING), default=None)
    fresh = evolved is None or (graded is not None and graded > evolved)
    if state.labelled and not state.lacking and fresh and not state.cut_off:
        yield Step("piar evolve --dry-run", f"{state.labelled:,} labelled rows wait to teach the rules", cost_usd=None)


def _label(state: _State) -> Iterator[Step]:
    if state.to_judge:
        cost = None if state.price is None else state.price * state.to_judge
        yield Step("piar label", "train and pool rows without a verdict", state.to_judge, cost)


def _score(state: _State) -> Iterator[Step]:
    if state.unscored:
        cost = None if state.price is None else state.price * state.unscored
        yield Step("piar score --split test", "how good it is on rows that nobody has used", state.unscored, cost)


_NEXT: tuple[Callable[[_State], Iterator[Step]], ...] = (_import, _decide, _go_on, _ask_people, _evolve, _label, _score)
