"""The first two sentences of the report: what was decided last, and the figures behind it.

A gain is claimed only by its interval, and only of an instruction that is in force or proposed; what was refused is
called refused, however much it gained.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from piar.evolve.ending import HEADLINES, Ended, procedure
from piar.evolve.last_search import Tried
from piar.report.pair import Pair
from store.figures import NO_INTERVAL, span
from store.stats import Interval
from store.types import Instruction

Told = tuple[str, str]

NOTHING = (
    "Nothing has been measured yet",
    "Run `piar evolve`, then `piar score --split test`, then make this page again.",
)
STUDENTS_ALONE = (
    "No instruction has been measured yet; students have, below",
    "Run `piar evolve`, then `piar score --split test`, to stand the instruction beside them.",
)
_WHO: dict[str, tuple[str, str]] = {
    "waits": ("The proposed instruction", "the one in force"),
    "in force": ("The instruction in force", "the one you started with"),
    "accepted": ("The instruction accepted last", "the one you started with"),
    "": ("The latest instruction", "the one you started with"),
}


def headline(
    gains: Mapping[str, Any] | None,
    pair: Pair,
    current: Instruction | None,
    tried: Tried | None,
    search: Ended | str | None,
    *,
    students: bool = False,
    beside: Sequence[Mapping[str, Any]] = (),
) -> Told:
    """The decision, and what is behind it.

    Args:
        gains: `piar.report.figures.gains` of the pair.
        pair: the two instructions that the page compares.
        current: the instruction in force, None where that is not known.
        tried: the candidate that was tested last.
        search: how the last search ended; see `piar.evolve.last_search.last_search`.
        students: whether the page shows any.
        beside: `piar.report.figures.beside_baselines`: what `piar score` measured without any search.
    """
    claimed = claim(gains, pair.role)
    first, second = (
        _decided(claimed, pair, tried, search) or _alone(beside) or (STUDENTS_ALONE if students else NOTHING)
    )
    if tried and current and current.id not in (tried.candidate, "" if tried.state == "accepted" else tried.against):
        second += f" That was not {current.id}, which is in force: the instruction has been edited."
    return first, second


def _alone(beside: Sequence[Mapping[str, Any]]) -> Told | None:
    """How often the teacher is right where no second instruction was measured beside its own."""
    measured = {row["name"]: row["accuracy"] for row in beside}
    teacher: Interval | None = measured.get("teacher, instruction in force")
    if teacher is None or teacher.value is None:
        return None
    value, name = max((row.value, name) for name, row in measured.items() if name.startswith("baseline: "))
    ends = span(teacher.low, teacher.high, "{:.1f}", 100)
    sure = f"95 % interval {ends} %, by group" if ends else f"No interval: {NO_INTERVAL}"
    return (
        f"The instruction in force is right on {100 * teacher.value:.1f} % of test; no other was measured beside it",
        f"{sure}. The best plain baseline, {name.removeprefix('baseline: ')}, is right on {100 * value:.1f} %. "
        "Run `piar evolve` to search for a better instruction.",
    )


def _decided(claimed: Told | None, pair: Pair, tried: Tried | None, search: Ended | str | None) -> Told | None:
    if tried and tried.state == "waits" and not isinstance(search, str):
        by_accuracy = tried.tested.get("metric", "accuracy") == "accuracy"
        said = (claimed if by_accuracy else None) or (HEADLINES["proposed"], f"{tried.reason}.")
        return said[0], " ".join(filter(None, (said[1], procedure(tried.tested))))
    had = f" {claimed[0]}. {claimed[1]}" if claimed and pair.role == "in force" else ""
    if isinstance(search, str):
        return "No decision: the last search did not end", f"{search.rstrip('.')}.{had}"
    if search and search.ending != "proposed":
        return search.headline, search.detail + had
    if tried and tried.state == "rejected":
        return f"No change: the proposal was rejected by {tried.by}", f"{tried.reason}.{had}"
    return claimed


def claim(gains: Mapping[str, Any] | None, role: str) -> Told | None:
    """What the interval lets one say of an instruction; None where nothing was measured or nobody has the gain."""
    rows = [] if gains is None else gains["rows"]
    unseen = {r["split"]: r for r in reversed(rows) if r.get("unseen", True)}
    best = unseen.get("test") or unseen.get("holdout")
    if best is None or role not in _WHO:
        return None
    who, other = _WHO[role]
    where = f"{best['groups']} {'untouched test' if best['split'] == 'test' else 'holdout'} groups"
    ends = span(best["low"], best["high"], "{:+.1f}", 100)
    sure = f"95 % interval {ends} points, by group" if ends else f"no interval: {NO_INTERVAL}"
    measured = f"{sure}; on {where}, against {best['truth']}."
    if best["tone"] == "good":
        return f"{who} is right {100 * best['mean']:.1f} points more often than {other}", measured
    if best["tone"] == "bad":
        return f"{who} is right {-100 * best['mean']:.1f} points less often than {other}", measured
    return (
        f"No difference can be claimed between {who[0].lower()}{who[1:]} and {other}",
        f"{100 * best['mean']:+.1f} points on {where}; {sure}.",
    )
