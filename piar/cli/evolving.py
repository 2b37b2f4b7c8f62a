"""How a run of `piar evolve` looks: a line for each step that matters, then what it found."""

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from piar.cli.views import facts, gain_short, table
from store.stats import Gain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from piar.evolve import EvolveReport
    from piar.history import Event


def event_line(event: "Event") -> Text | None:
    """One step in words; None for steps that only the run's record needs."""
    detail = event.detail
    match event.kind:
        case "opened":
            words = detail["detectable"] + (f" {detail['warning']}" if detail["warning"] else "")
        case "champion":
            words = f"the present instruction is right on {100 * detail['dev']:.1f} % of {detail['rows']:,} dev rows"
        case "inspected":
            causes = ", ".join(f"{n:,} {cause.replace('_', ' ')}" for cause, n in detail["causes"].items())
            words = f"round {detail['round']}: {detail['errors']:,} errors on {detail['rows']:,} train rows ({causes})"
        case "survived":
            words = f"  {detail['candidate']} is right on {100 * detail['dev']:.1f} % of dev"
        case "redrafted":
            words = _redrafted(detail)
        case "refused":
            told = ", ".join(f"{reason} ({n})" for reason, n in detail["reasons"].items())
            words = f"  refused before anything was asked: {told}"
        case "canary" if detail["asked"]:
            words = f"canary: {detail['flipped']} of {detail['asked']} known answers changed"
        case "audit":
            words = f"asked twice: {detail['flipped']} of {detail['asked']} answers changed"
        case "searched":
            words = f"search ended after {detail['rounds']} rounds: {detail['stopped']}"
        case _:
            return None
    return Text(words, style="dim")


def _redrafted(detail: "Mapping[str, Any]") -> str:
    drafted = "drafted anew from train and dev"
    if detail["dev"] is None:
        return f"not {drafted}: nothing new came of it"
    share = f"such drafts are right on {100 * detail['dev']:.1f} % of the dev rows that they were not shown"
    return f"{drafted}: {detail['candidate']}, since {share}" if detail["stands"] else f"not {drafted}: {share}"


def evolve_view(report: "EvolveReport", *, accepted: bool) -> RenderableType:
    """What the run found, in the order in which one asks: passed or not, how much, on what, what next."""
    lines: list[tuple[str, RenderableType]] = []
    for promotion in report.promotions:
        mark = Text("passed", style="bold green") if promotion["passed"] else Text("not passed", style="bold yellow")
        lines += [
            ("test", Text.assemble(mark, f"  {promotion['reason']}")),
            ("", f"fixed {promotion['fixed']:,} rows, broke {promotion['broke']:,}, of {promotion['n']:,} "
                 f"in {promotion['groups']:,} groups"),
        ]  # fmt: skip
    if not report.promotions:
        lines.append(("test", "not made: the search found nothing better than the present instruction"))
    lines += [("guards", _guards(report))] if report.promotions else []
    lines += [("", f"{g['name']}: {g['note']}") for p in report.promotions for g in p["guards"] if g.get("note")]
    lines += [("rules", told) for told in _rules(report)]
    lines += [("provable", report.detectable)]
    if report.ceiling is not None:
        lines.append(("ceiling", f"one person agrees with the truth on {100 * report.ceiling:.0f} %"))
    lines += [("people", _people(report.people))] if report.people.get("labels") else []
    lines += [("note", warning) for warning in report.warnings]
    lines.append(("spent", f"{report.calls:,} calls · ${report.cost_usd:,.4f}"))
    lines.append(("next", _next(report, accepted)))
    return Group(*_figures(report), facts(lines))


def _figures(report: "EvolveReport") -> list[RenderableType]:
    rows = []
    splits: dict[str, Any] = {"holdout": report.holdout, **{f"test, {k}": v for k, v in report.test.items()}}
    for name, found in splits.items():
        if isinstance(found, dict) and "gain" in found:
            gain = Gain.model_validate(found["gain"])
            rows.append(
                [
                    name,
                    f"{found['n']:,}",
                    f"{100 * found['seed']['accuracy']:.1f}",
                    f"{100 * found['champion']['accuracy']:.1f}",
                    gain_short(gain),
                ]
            )
    return [table(["accuracy, %", "rows", "before", "after", "gain, 95 % by group"], rows), ""] if rows else []


def _people(heard: "Mapping[str, int]") -> str:
    return (
        f"{heard['labels']:,} labels used, {heard['reviewed']:,} of them from review; {heard['settled']:,} grades "
        f"settled by people, {heard['commented']:,} samples commented on"
    )


def _guards(report: "EvolveReport") -> str:
    states = [guard["state"] for promotion in report.promotions for guard in promotion["guards"]]
    words = {"holds": "hold", "unclear": "cannot be told", "harm": "are harmed", "unearned": "lose what was not earned"}
    told = ", ".join(f"{states.count(state)} {word}" for state, word in words.items() if state in states)
    if states:
        return f"{told} of {len(states)} grades and slices"
    return "too few rows for any" if any(p["passed"] for p in report.promotions) else "not asked without a passed test"


def _rules(report: "EvolveReport") -> "Iterator[str]":
    """What each rule is worth, counted, and those that had better go."""
    states = [worth["state"] for worth in report.attribution]
    words = {"helps": "help", "unclear": "cannot be told", "harms": "harm", "dead": "are cited by no row"}
    if states:
        yield ", ".join(f"{states.count(state)} {word}" for state, word in words.items() if state in states)
    for worth in report.attribution:
        if worth["state"] == "dead":
            yield f"take out {worth['rule']}: no row of dev and holdout cites it"
        elif worth["state"] == "harms":
            gain = gain_short(Gain.model_validate(worth["gain"]))
            yield f"take out {worth['rule']}: {gain} points on the {worth['cited']:,} rows that cite it"


def _next(report: "EvolveReport", accepted: bool) -> str:
    if report.proposal is None:
        return "the present instruction stays; label more groups, or edit instruction.md and evolve again"
    return "accepted" if accepted else "piar show proposal, then piar accept --by NAME (or piar reject)"
