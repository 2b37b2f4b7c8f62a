"""What a judge's probabilities are worth, in lines under its figures."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from store.figures import bracketed, many, span

if TYPE_CHECKING:
    from piar.judging.forecast import Receipt
    from piar.measure.calibrate import Calibrated, Calibrating
    from store.calibration import Calibration, Fit
    from store.probability_scores import Alone, ProbabilityScores
    from store.stats import Gain, Interval


def probability_lines(found: "ProbabilityScores | None") -> list[tuple[str, RenderableType]]:
    """Proper scores, what may be decided alone, and rows that say nothing; none where no row has probabilities."""
    if found is None:
        return []
    named = {"NLL": found.nll, "Brier": found.brier, "RPS": found.rps, "AURC": found.aurc}
    scores = " · ".join(f"{name} {figure_of(score)}" for name, score in named.items() if score.value is not None)
    return [("probabilities", scores), ("decidable alone", alone_words(found.alone)), *_doubts(found)]


def figure_of(found: "Interval") -> str:
    """A figure that is no share, with its interval."""
    return f"{found.value:.3f}{bracketed(span(found.low, found.high, '{:.3f}'))}" if found.value is not None else "–"


def alone_words(found: "Alone") -> str:
    """Which share of the rows the judge may decide alone."""
    most = f"an error of at most {100 * found.most_error:.0f} %"
    if found.threshold is None:
        return f"no row: no confidence keeps the upper bound of {most}"
    share = f"{100 * (found.share.value or 0):.0f} %{bracketed(span(found.share.low, found.share.high, '{:.0f}', 100))}"
    seen = f"{100 * (found.error.value or 0):.1f} %"
    return f"{share} of the rows, at {most} (seen {seen}): those with a confidence of {found.threshold:.3f} or more"


def _doubts(found: "ProbabilityScores") -> list[tuple[str, RenderableType]]:
    lines: list[tuple[str, RenderableType]] = []
    if found.without:
        lines.append(("", f"{many(found.without, 'row has', 'rows have')} no probabilities; they are left out here"))
    if found.one_hot == found.rows:
        lines.append(("", "they are 0 and 1 on every row: the grade is all that they say"))
    if found.clipped:
        lines.append(
            (
                "",
                f"{many(found.clipped, 'row gave', 'rows gave')} the truth no chance; it counts as one in a million",
            )
        )
    return lines


def calibrated_lines(found: "Calibrated | None") -> list[tuple[str, RenderableType]]:
    """The same figures after the judge's calibration."""
    if found is None:
        return []
    from piar.cli.render.common import gain_short, percent

    on = f"{many(found.rows, 'row')}" + (
        f" in {many(found.groups, 'group')}" if found.groups else " of the batch, without truth"
    )
    by = [NAMES[found.strategy]] if found.strategy else []
    by += [] if found.rule == "argmax" else [RULES[found.rule]]
    fold = ", each row here by other groups" if found.out_of_fold else ""
    accuracy = f"accuracy {percent(found.accuracy)}, {gain_short(found.accuracy_gain)} points"
    lines: list[tuple[str, RenderableType]] = [
        ("calibrated", f"by {' and '.join(by)}, from {on}{fold}"),
        ("", f"{accuracy} · calibration error {percent(found.ece)}"),
    ]
    scores, alone = probability_lines(found.probabilities)[:2]
    lines += [("", scores[1]), ("", f"decidable alone: {alone[1]}")]
    return [*lines, ("", f"a row's truth gains {nats(found.gain)}")]


NAMES = {
    "prior": "the batch's prior",
    "temperature": "a temperature",
    "bias": "a temperature and a bias for each grade",
    "isotonic": "a rising curve for each grade",
}


RULES = {
    "argmax": "the likeliest grade",
    "expected": "the level nearest to the mean",
    "cumulative": "the lowest grade that reaches a cumulative probability",
}


def nats(gain: "Gain") -> str:
    """A gain in log-likelihood."""
    return f"{gain.mean:+.3f} nats{bracketed(span(gain.low, gain.high, '{:+.3f}'))}"


def calibration_view(found: "Calibrating", receipt: "Receipt") -> RenderableType:
    """What was tried, and what is used from now on."""
    from piar.cli.render.common import facts, receipt_lines

    read = f" under {found.judge.instruction}" if found.judge.instruction else ""
    parts: list[RenderableType] = [Text(f"{found.judge.name}{read}", style="bold")]
    if found.fit:
        parts += [_tried(found.fit), ""]
    rules = [("decision rule", words) for words in _rule_lines(found)]
    only = [("note", _only(found.says_only))] if found.says_only is not None else []
    return Group(*parts, facts([("from now on", _kept(found)), *rules, *only, *receipt_lines(receipt)]))


def _only(grade: str) -> str:
    return (
        f"so corrected it says {grade} of every one of these rows: its accuracy is that grade's share, and no row is "
        "told from another by its grade; --strategy temperature changes no grade"
    )


def fit_words(fit: "Fit") -> str:
    """What a fit came to, in one line."""
    on = f"{many(fit.rows, 'row')} in {many(fit.groups, 'group')} of dev"
    if fit.kept is None:
        return f"none: no correction of the probabilities is shown to help on {on}"
    best = next(t for t in fit.tried if t.strategy == fit.kept.strategy)
    right = f"accuracy {100 * (fit.accuracy.value or 0):.1f} to {100 * (best.accuracy.value or 0):.1f} %"
    return f"by {NAMES[best.strategy]}: a row's truth gains {nats(best.gain)}, {right}, out of fold on {on}"


def _tried(fit: "Fit") -> RenderableType:
    from piar.cli.render.common import gain_short, percent, table

    rows = [["as they are", figure_of(fit.nll), "", percent(fit.accuracy), ""]]
    rows += [
        [NAMES[t.strategy], figure_of(t.nll), nats(t.gain), percent(t.accuracy), gain_short(t.accuracy_gain)]
        for t in fit.tried
    ]
    title = f"{many(fit.rows, 'row')}, {many(fit.groups, 'group')}"
    return table([title, "NLL", "a row's truth gains", "accuracy, %", "points"], rows)


def _kept(found: "Calibrating") -> str:
    if found.kept is None:
        few = "; more groups with truth would show smaller gains" if found.fit else ""
        return f"raw probabilities{': none is shown to help' if found.fit else ''}{few}"
    return f"probabilities corrected by {NAMES[found.kept.strategy]} ({_parameters(found.kept)}){_proof(found)}"


def _rule_lines(found: "Calibrating") -> Iterator[str]:
    """The decision rule that is used from now on, and what the others would gain."""
    if found.rules is None:
        return
    at = f", at {found.rule.threshold:.2f}" if found.rule and found.rule.name == "cumulative" else ""
    yield RULES[found.rule.name if found.rule else "argmax"] + at
    for tried in found.rules.tried:
        gain = f"{tried.gain.mean:+.3f}{bracketed(span(tried.gain.low, tried.gain.high, '{:+.3f}'))}"
        yield f"{tried.name}: {found.rules.metric} {tried.value:.3f}, {gain} over the likeliest, out of fold"


def _proof(found: "Calibrating") -> str:
    kept, fit = found.kept, found.fit
    if fit is None:
        return f", unproven: it takes all grades for about equally common, and {found.judge.name} for wrong where not"
    shown = kept is not None and fit.kept is not None and fit.kept.strategy == kept.strategy
    return "" if shown else "; that it helps is not shown"


def _parameters(kept: "Calibration") -> str:
    if kept.curves:
        return f"{many(sum(len(x) for x, _ in kept.curves), 'step')}"
    bias = " ".join(f"{b:+.2f}" for b in kept.bias)
    return f"temperature {kept.temperature:.2f}" + (f", bias {bias}" if any(kept.bias) else "")
