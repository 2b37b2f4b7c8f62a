"""What a judge's probabilities are worth, in lines under its figures."""

from typing import TYPE_CHECKING

from rich.console import RenderableType

from store.figures import bracketed, span

if TYPE_CHECKING:
    from store.probability_scores import Alone, ProbabilityScores
    from store.stats import Interval


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
        lines.append(("", f"{found.without:,} rows have no probabilities; they are left out here"))
    if found.one_hot == found.rows:
        lines.append(("", "they are 0 and 1 on every row: the grade is all that they say"))
    if found.clipped:
        lines.append(("", f"{found.clipped:,} rows gave the truth no chance at all; it counts as one in a million"))
    return lines
