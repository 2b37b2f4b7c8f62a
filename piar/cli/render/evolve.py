"""How a run of `piar evolve` looks: a line for each step that matters, then what it found."""

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from piar.cli.render.common import dollars, facts, gain_short, table
from piar.evolve.ending import procedure
from store.figures import many
from store.gain_metrics import METRICS
from store.stats import Gain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from piar.evolve.results import EvolveReport
    from piar.evolve.resume import Event
    from store.gain_metrics import Metric


_CAUSES = {
    "knowledge": "that no rule covers",
    "not_applied": "where a rule was there and not applied",
    "misread": "misread",
    "suspect": "where the raters say otherwise than the truth",
}


def event_line(event: "Event") -> Text | None:
    """One step in words; None for steps that only the run's record needs."""
    words = _WORDS[event.kind](event.detail) if event.kind in _WORDS else ""
    return Text(words, style="dim") if words else None


def _opened(detail: "Mapping[str, Any]") -> str:
    return " ".join(filter(None, (detail["detectable"], detail["warning"], _beside(detail))))


def _inspected(detail: "Mapping[str, Any]") -> str:
    causes = ", ".join(f"{n:,} {_CAUSES.get(cause, cause)}" for cause, n in detail["causes"].items())
    when, rows = (f"round {detail['round']}: ", "train") if detail["round"] else ("", "labelled")
    return f"{when}{many(detail['errors'], 'error')} on {detail['rows']:,} {rows} rows ({causes})"


def _fold(detail: "Mapping[str, Any]") -> str:
    drafted = "drafted" if detail["candidate"] else "nothing drafted"
    return f"  fold {detail['fold']} of {detail['of']}: {drafted} without its {many(detail['rows'], 'row')}"


def _refusals(detail: "Mapping[str, Any]") -> str:
    told = ", ".join(f"{reason} ({n})" for reason, n in detail["reasons"].items())
    return f"  refused before anything was asked: {told}"


def _canary(detail: "Mapping[str, Any]") -> str:
    told = f"{detail['flipped']} of {detail.get('asked')} answers that are asked again in every run changed"
    return told if detail.get("asked") else ""


def _searched(detail: "Mapping[str, Any]") -> str:
    after = f" after {detail['rounds']} rounds" if detail["rounds"] else ""
    return f"search ended{after}: {detail['stopped']}"


def _beside(detail: "Mapping[str, Any]") -> str:
    """What the teacher sees beside each row; earlier versions showed nothing."""
    shown = detail.get("neighbours")
    return f"The teacher sees each row beside its {shown} nearest labelled rows of train." if shown else ""


def _does(detail: "Mapping[str, Any]") -> str:
    """How good an instruction is on dev, by the metric of the run."""
    return METRICS[detail.get("metric", "accuracy")].show(detail["dev"])


def _redrafted(detail: "Mapping[str, Any]") -> str:
    drafted = "drafted anew from train and dev"
    if detail["dev"] is None:
        return f"not {drafted}: nothing new came of it"
    share = f"one that is drafted so {_does(detail)} of the dev rows that it was not shown"
    return f"{drafted}: {detail['candidate']}, since {share}" if detail["stands"] else f"not {drafted}: {share}"


_WORDS: "dict[str, Callable[[Mapping[str, Any]], str]]" = {
    "opened": _opened,
    "champion": lambda detail: f"the present instruction {_does(detail)} of {detail['rows']:,} dev rows",
    "inspected": _inspected,
    "survived": lambda detail: f"  {detail['candidate']} {_does(detail)} of dev",
    "redrafted": _redrafted,
    "fold": _fold,
    "refused": _refusals,
    "canary": _canary,
    "audit": lambda detail: f"asked twice: {detail['flipped']} of {many(detail['asked'], 'answer')} changed",
    "searched": _searched,
}


def evolve_view(report: "EvolveReport", *, accepted: bool) -> RenderableType:
    """What the run decided, then how much, on what, what next."""
    style = "bold green" if report.proposal else "bold yellow"
    lines: list[tuple[str, RenderableType]] = []
    for tested in report.promotions:
        mark = Text("passed", style="green") if tested["passed"] else Text("not passed", style="yellow")
        lines += [
            ("test", Text.assemble(mark, f"  {tested['reason']}")),
            (
                "",
                f"fixed {many(tested['fixed'], 'row')}, broke {tested['broke']:,}, of {tested['n']:,} "
                f"in {many(tested['groups'], 'group')}",
            ),
        ]
        lines += [("procedure", told)] if (told := procedure(tested)) else []
    if not report.promotions:
        lines.append(("test", f"not made. {report.detail}"))
    lines += [("guards", told) for told in _guards(report)]
    lines += [("rules", told) for told in _rules(report)]
    lines += [("reviser", told) for told in _revisers(report)]
    lines += [("provable", report.detectable)]
    if report.ceiling is not None:
        lines.append(("ceiling", f"one person agrees with the truth on {100 * report.ceiling:.0f} %"))
    elif report.of_one:
        told = "cannot be told: the truth is what one person said; let a second person grade some of the rows"
        lines.append(("ceiling", told))
    lines += [("people", _people(report.people))] if report.people.get("labels") else []
    lines += [("note", warning) for warning in report.warnings]
    lines.append(("spent", f"{many(report.calls, 'call')} · {dollars(report.cost_usd, report.priced)}"))
    lines.append(("next", "accepted" if accepted and report.proposal else report.advice))
    decided = "A better instruction was proposed and accepted" if accepted and report.proposal else report.headline
    return Group(Text(decided, style=style), *_figures(report), facts(lines))


def _figures(report: "EvolveReport") -> list[RenderableType]:
    """The run's metric before and after. Of a refused candidate only what decided; test was not opened for it."""
    metric = METRICS[next((tested["metric"] for tested in report.promotions if "metric" in tested), "accuracy")]
    decided = _DECIDED[report.search]
    rows = [_refused(tested, decided) for tested in report.promotions if not tested["passed"]]
    splits: dict[str, Any] = {f"test, {k}": v for k, v in report.test.items()}
    if report.proposal:
        splits = {decided: report.holdout, **splits}
    for name, found in splits.items():
        if isinstance(found, dict) and "gain" in found:
            before, standing = (_figure(found[side], metric) for side in ("seed", "champion"))
            after = [standing, gain_short(Gain.model_validate(found["gain"]))]
            rows.append([name, f"{found['n']:,}", before, *(after if report.proposal else ["–", "–"])])
    name = "proposed" if report.proposal else "refused" if report.promotions else "candidate"
    return (
        [
            table(
                [
                    f"{metric.words}, %" if not metric.named else metric.words,
                    "rows",
                    "in force",
                    name,
                    "gain, 95 % by group",
                ],
                rows,
            ),
            "",
        ]
        if rows
        else []
    )


def _figure(side: "Mapping[str, float]", metric: "Metric") -> str:
    return f"{side['score']:.3f}" if metric.named else f"{100 * side['accuracy']:.1f}"


_DECIDED = {"rounds": "holdout", "cross_fitted": "out of fold"}


def _refused(tested: "Mapping[str, Any]", decided: str) -> list[str]:
    gain = gain_short(Gain.model_validate(tested["gain"]))
    metric = METRICS[tested.get("metric", "accuracy")]
    known = tested.get("score" if metric.named else "accuracy")  # not kept by earlier versions
    shown = "{:.3f}" if metric.named else "{:.1%}"
    before, after = (shown.format(known[when]).rstrip("%") if known else "–" for when in ("before", "after"))
    return [decided, f"{tested['n']:,}", before, after, gain]


def _people(heard: "Mapping[str, int]") -> str:
    return (
        f"{many(heard['labels'], 'label')} used, {heard['reviewed']:,} of them from review; "
        f"{many(heard['settled'], 'grade')} settled by people, {many(heard['commented'], 'sample')} commented on"
    )


def _guards(report: "EvolveReport") -> "Iterator[str]":
    """How many guards hold, and what is behind those that need a word."""
    words = {"holds": "hold", "unclear": "cannot be told", "harm": "are harmed", "unearned": "lose what was not earned"}
    for tested in report.promotions:
        states = [guard["state"] for guard in tested["guards"]]
        told = ", ".join(f"{states.count(state)} {word}" for state, word in words.items() if state in states)
        if states:
            yield f"{told} of {many(len(states), 'grade')} and slices"
        else:
            yield "too few rows for any" if tested["passed"] else "not asked without a passed test"
        yield from (f"{guard['name']}: {guard['note']}" for guard in tested["guards"] if guard.get("note"))


def _revisers(report: "EvolveReport") -> "Iterator[str]":
    """How far the proposals of each reviser came."""
    for one in report.revisers:
        told = f"{one['model']}: {many(one['asked'], 'candidate')} asked for, {one['usable']:,} usable"
        best = ", one of them the best" if one["won"] else ""
        yield told + (f", {one['survived']:,} not beaten on dev{best}" if report.search == "rounds" else "")
        if one["answers"] > one["read"]:
            yield f"{one['answers'] - one['read']:,} of its {one['answers']:,} answers could not be read"
        yield from (f"its window is full: {words}" for words in one["shortened"][:2])


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
    if states and report.proposal and report.search == "cross_fitted":
        yield "these figures flatter the rules: the rows that cite them have taught them"
