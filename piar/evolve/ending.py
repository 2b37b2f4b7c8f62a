"""How a search ended, in the same words for terminal, JSON and report: what was decided, why, and what to do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Ending = Literal["proposed", "refused by test", "refused by guard", "refused by audit", "nothing found", "budget spent"]

BUDGET_SPENT = "the budget for searching is spent"  # why a search stopped; other reasons are free text


@dataclass(frozen=True, slots=True)
class Ended:
    """What a search decided.

    Attributes:
        ending: one of the ways in which a search can end.
        headline: the decision in one sentence.
        detail: the figures behind it.
        advice: what to do next, as the cause asks.
    """

    ending: Ending
    headline: str
    detail: str
    advice: str


def ended(report: Mapping[str, Any]) -> Ended:
    """How the search of a report ended.

    Args:
        report: an `EvolveReport` as JSON; also one that an earlier version kept.
    """
    promotions = report["promotions"]
    if not promotions:
        return _nothing_to_test(report)
    tested = promotions[-1]
    ending = ending_of(tested)
    spent = "The search had ended because its budget was spent." if report["stopped"] == BUDGET_SPENT else ""
    headline = f"{HEADLINES[ending]}{lost(tested)}"
    detail = " ".join(filter(None, (f"{tested['reason']}.", procedure(tested), spent)))
    return Ended(ending, headline, detail, _ADVICE[ending](tested))


def ending_of(tested: Mapping[str, Any]) -> Ending:
    """What became of a tested candidate; earlier versions did not keep what refused it."""
    if tested["passed"]:
        return "proposed"
    if (by := tested.get("refused_by")) is not None:
        return _REFUSED[by]
    if any(guard["state"] == "harm" for guard in tested["guards"]):
        return "refused by guard"
    return "refused by audit" if tested.get("audit") else "refused by test"


def lost(tested: Mapping[str, Any]) -> str:
    """The grades and slices that a refused candidate harms, with how much; "" where none is."""
    harmed = [g for g in tested["guards"] if g["state"] == "harm"]
    told = ", ".join(f"{g['name']} ({100 * g['change']:+.1f} points)" for g in harmed)
    return f" on {told}" if told else ""


def procedure(tested: Mapping[str, Any]) -> str:
    """What a test by cross-fitting has tested, and what not; "" where the candidate itself was tested."""
    folds = tested.get("folds", 0)
    if not folds:
        return ""
    bare = folds - tested["drafted"]
    none = f" (for {bare} of them nothing was drafted, which counts as no change)" if bare else ""
    return (
        f"The procedure was tested, by cross-fitting: what was drafted from the labels of all folds but one was judged "
        f"on that one, for each of {folds} folds{none}. This text was drafted once more from all {tested['n']:,} "
        "labels and was not itself tested."
    )


_REFUSED: dict[str, Ending] = {
    "test": "refused by test",
    "guard": "refused by guard",
    "audit": "refused by audit",
}

HEADLINES: dict[Ending, str] = {
    "proposed": "A better instruction is proposed",
    "refused by test": "No change: the best candidate was refused, its gain is not shown",
    "refused by guard": "No change: the best candidate was refused, it loses too much",
    "refused by audit": "No change: the best candidate was refused, it gains no more than the teacher wavers",
    "nothing found": "No change: the search found nothing better than the instruction in force",
    "budget spent": "No change: the budget was spent before the search found anything better",
}


def _nothing_to_test(report: Mapping[str, Any]) -> Ended:
    untested = "No candidate was tested on the holdout" if _by_rounds(report) else "Nothing was tested"
    if report["stopped"] == BUDGET_SPENT:
        when = f" in round {report['rounds']}" if report["rounds"] else ""
        return Ended(
            "budget spent",
            HEADLINES["budget spent"],
            f"{untested}; {BUDGET_SPENT}{when}.",
            "raise --max-calls, --max-usd or --max-tokens (piar evolve --dry-run says what a whole search takes)",
        )
    cause, advice = _nothing_found(report)
    return Ended("nothing found", HEADLINES["nothing found"], f"{untested}: {cause}.", advice)


def _by_rounds(report: Mapping[str, Any]) -> bool:
    """Whether the search raced candidates; earlier versions knew nothing else."""
    return bool(report.get("search", "rounds") == "rounds")


def _nothing_found(report: Mapping[str, Any]) -> tuple[str, str]:
    """Why no candidate was better on dev, and what to do about it."""
    if report.get("errors") == 0:
        rows = "the train rows of a round" if _by_rounds(report) else "the labelled rows"
        return (
            f"the instruction in force makes no error on {rows}, so there is nothing to mend",
            "import or label rows that are harder; on these there is nothing to gain",
        )
    if not _by_rounds(report):
        return (
            report["stopped"],
            "piar show run evolve says why; write what your people know into instruction.md, ask another model in "
            f"[reviser], or search in rounds: {_ROUNDS}",
        )
    if report["rounds"] == 0:
        return "no round was made", "piar evolve --rounds 4"
    return (
        f"the search ended after {report['rounds']} rounds, {report['stopped']}",
        "piar show run evolve lists what was tried; write what your people know into instruction.md, or ask another "
        "model in [reviser], then evolve again",
    )


_ROUNDS = "piar evolve --set evolve.search=rounds"


def _after_test(tested: Mapping[str, Any]) -> str:
    if tested["gain"]["mean"] <= 0 and tested.get("folds"):
        return f"what is drafted from some groups does not hold on others: label more groups, or {_ROUNDS}"
    if tested["gain"]["mean"] <= 0:
        return "what dev promised did not hold on new groups: label more groups, so that the search sees more of them"
    if tested["p_value"] > tested["level"]:
        return "label more groups: the line `provable` says how many would show a smaller gain"
    return "label more groups, in particular large ones: few of them decide the figure"


def _after_guard(tested: Mapping[str, Any]) -> str:
    names = " and ".join(g["name"] for g in tested["guards"] if g["state"] == "harm")
    broke = "" if tested.get("folds") else "piar show candidate lists what it broke; "
    return (
        f"{broke}write into instruction.md what {names} needs and evolve again, or bear a larger loss: "
        "piar evolve --set evolve.promotion.margin=0.2 (a share)"
    )


_ADVICE: dict[Ending, Callable[[Mapping[str, Any]], str]] = {
    "proposed": lambda _: "piar show proposal, then piar accept --by NAME (or piar reject)",
    "refused by test": _after_test,
    "refused by guard": _after_guard,
    "refused by audit": lambda _: "steady the teacher (temperature 0, or another model in [teacher]), then evolve",
}
