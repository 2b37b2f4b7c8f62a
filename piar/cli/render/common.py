"""How answers look on a terminal. Text from data is never markup and holds no control characters."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from piar.cli.render.probabilities import calibrated_lines, probability_lines
from piar.cli.verb import clean
from piar.project.endpoints import Check
from store.figures import NO_INTERVAL, bracketed, many, span

if TYPE_CHECKING:
    from piar.judging.forecast import Forecast, Receipt
    from piar.measure.score import Measured, Scored
    from piar.query.status import Status, Step
    from store.metrics import Scores
    from store.stats import Gain, Interval

BY_ORDER = ("pair_accuracy", "quadratic_kappa", "ndcg")  # figures that need an order of the grades


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], more: int = 0) -> RenderableType:
    """A plain table; numbers to the right."""
    cells = [list(row) for row in rows]
    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        number = bool(cells) and all(isinstance(row[place], int | float | None) for row in cells)
        grid.add_column(clean(name), justify="right" if number else "left", overflow="fold")
    for row in cells:
        grid.add_row(*(figure(value) if isinstance(value, float) else clean(value) for value in row))
    return Group(grid, Text(f"… {more:,} more rows; --csv prints all", style="dim")) if more > 0 else grid


def figure(value: float) -> str:
    """A number as people read it."""
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1000 else f"{value:.4g}"


def checks(found: Sequence[Check]) -> RenderableType:
    """The doctor's list, what fails in red."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for check in found:
        mark = Text("ok", style="green") if check.ok else Text("no", style="bold red")
        grid.add_row(mark, clean(check.name), Text(clean(check.detail), style="" if not check.ok else "dim"))
    return grid


def facts(pairs: Iterable[tuple[str, RenderableType]]) -> Table:
    """Names to the left, each said once, what is known of them to the right."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    last = None
    for name, value in pairs:
        grid.add_row("" if name == last else name, clean(value) if isinstance(value, str) else value)
        last = name
    return grid


def forecast_view(found: "Forecast") -> RenderableType:
    """What would be asked, and what would leave the machine."""
    goes = f"to {found.host}" if found.host else "nowhere: the model runs here"
    return facts(
        [
            ("would ask", f"{many(found.asked, 'request')} of {found.model}{_most(found)}"),
            ("fields", f"{', '.join(found.fields)} go {goes}"),
            ("tokens", f"about {found.tokens_in:,} in, {found.tokens_out:,} out ({found.basis})"),
            ("cost", _cost(found)),
        ]
    )


def _cost(found: "Forecast") -> str:
    if not found.priced:
        return "unknown: no price is set for this model (price = { input = …, output = … }, dollars a million tokens)"
    return f"about ${found.cost_usd:,.4f}{_most_usd(found)}" if found.cost_usd else "$0"


def _most(found: "Forecast") -> str:
    more = found.most_asked is not None and found.most_asked > found.asked
    return f", then more while unsure, {found.most_asked:,} at most" if more else ""


def _most_usd(found: "Forecast") -> str:
    return f", ${found.most_usd:,.4f} at most" if found.most_usd else ""


def receipt_lines(found: "Receipt") -> list[tuple[str, RenderableType]]:
    """What was asked and what it cost."""
    failed = ", ".join(f"{n:,} {kind}" for kind, n in found.failed.items())
    calls = f"{many(found.calls, 'call')} · {found.cached:,} cached · {failed or '0'} failed"
    tokens = f"{found.tokens_in:,} tokens in ({found.tokens_cached:,} cached), {found.tokens_out:,} out"
    cost = dollars(found.cost_usd, found.priced)
    return [("receipt", f"{calls} · {tokens} · {cost} · {found.seconds:,.1f} s")]


def dollars(cost_usd: float, priced: bool) -> str:
    """What was spent; nothing is known of it without a price."""
    return f"${cost_usd:,.4f}" if priced else "cost unknown, no price is set"


def percent(interval: "Interval") -> str:
    """A share with its interval, in per cent."""
    if interval.value is None:
        return "–"
    return f"{100 * interval.value:.1f}{bracketed(span(interval.low, interval.high, '{:.1f}', 100))}"


def gain_short(gain: "Gain") -> str:
    """A gain in points with its interval, for tables."""
    return f"{100 * gain.mean:+.1f}{bracketed(span(gain.low, gain.high, '{:+.1f}', 100))}"


def gain_line(gain: "Gain") -> str:
    """A gain in points with its interval, and whether it is one."""
    ends = span(gain.low, gain.high, "{:+.1f}", 100)
    if not ends:
        return f"{100 * gain.mean:+.1f} points; no interval: {NO_INTERVAL}"
    words = "" if gain.above or gain.below else ": not distinguishable from none"
    return f"{100 * gain.mean:+.1f} points ({ends}){words}"


def score_view(scored: "Scored", receipt: "Receipt") -> RenderableType:
    """Headlines against gold and majority side by side, then baselines, grades, slices and the gain."""
    measured = scored.measured
    scores, majority = measured.scores, measured.majority
    read = f" under {measured.judge.instruction}" if measured.judge.instruction else ""
    of = f"{many(scores.n, 'row')}, {many(scores.groups, 'group')}"
    title = f"{measured.judge.name}{read} on {measured.split}: {of}"
    names = {
        "accuracy": "accuracy",
        "macro_f1": "macro F1",
        "pair_accuracy": "pair accuracy",
        "quadratic_kappa": "quadratic kappa",
        "ndcg": "nDCG",
        "ece": "calibration error",
    }
    columns = ["%", "against truth", *(["against the majority"] if majority else [])]
    rows = [
        [name, percent(getattr(scores, key)), *([percent(getattr(majority, key))] if majority else [])]
        for key, name in names.items()
        if scores.ordered or key not in BY_ORDER
    ]
    rows += [
        [f"{other.judge.name} accuracy", percent(other.scores.accuracy), *_majority(other)]
        for other in scored.baselines
    ]
    grades = [
        [symbol, f"{grade.support:,}", percent(grade.precision), percent(grade.recall), percent(grade.f1)]
        for symbol, grade in scores.per_grade.items()
    ]
    parts: list[RenderableType] = [
        Text(title, style="bold"),
        table(columns, rows),
        "",
        table(["grade", "rows", "precision", "recall", "F1"], grades),
        "",
    ]
    if scores.per_slice:
        slices = [[n, f"{s.n:,}", percent(s.accuracy), percent(s.macro_f1)] for n, s in scores.per_slice.items()]
        parts += [table(["slice", "rows", "accuracy", "macro F1"], slices), ""]
    return Group(
        *parts,
        facts(
            [
                *_no_order(scores),
                *_no_interval(scores),
                *probability_lines(measured.probabilities),
                *calibrated_lines(scored.calibrated),
                *_gain(scored),
                *_latency(scored),
                *receipt_lines(receipt),
            ]
        ),
    )


def _no_order(scores: "Scores") -> list[tuple[str, RenderableType]]:
    words = "is none among the grades (`ordered = false` in task.toml): pair accuracy, kappa and nDCG are left out"
    return [] if scores.ordered else [("order", words)]


def _no_interval(scores: "Scores") -> list[tuple[str, RenderableType]]:
    """Why a figure stands alone, where one does."""
    figures = [scores.accuracy, scores.macro_f1, *(grade.recall for grade in scores.per_grade.values())]
    alone = any(f.value is not None and not span(f.low, f.high, "{:.1f}", 100) for f in figures)
    return [("no interval", f"behind a figure that stands alone: {NO_INTERVAL}")] if alone else []


def _majority(measured: "Measured") -> list[str]:
    return [percent(measured.majority.accuracy)] if measured.majority else []


def _latency(scored: "Scored") -> list[tuple[str, RenderableType]]:
    words = [
        f"{name.replace('_', ' ')} {taken.p50:.1f} ms (p99 {taken.p99:.1f})"
        for name, taken in scored.latency_ms.items()
    ]
    return [("latency", f"{', '.join(words)}; one sample at a time on this machine")] if words else []


def _gain(scored: "Scored") -> list[tuple[str, RenderableType]]:
    gained = scored.gained
    if gained is None:
        return []
    over = gained.against.instruction or gained.against.name
    lines: list[tuple[str, RenderableType]] = [("gain", f"over {over}: {gain_line(gained.gain)}")]
    return lines + ([("", f"against the majority: {gain_line(gained.majority)}")] if gained.majority else [])


def status_view(found: "Status") -> RenderableType:
    """Counts, what is stale, and the next commands with their price."""
    holds = found.holds
    splits = " · ".join(f"{name} {n:,}" for name, n in holds["samples"].items()) or "none"
    lines: list[tuple[str, RenderableType]] = [
        ("instruction", f"{holds['instruction']}, {many(holds['rules'], 'rule')}"),
        ("samples", f"{splits} ({holds['labelled']:,} labelled)"),
    ]
    lines += [("stale", f"{s.what}: {s.why} ({s.fix})") for s in found.stale]
    lines += [
        (
            "minor",
            f"{m.what} has other words since {m.at:%Y-%m-%d}, which change nothing, says {m.by}: "
            f"{many(m.labels, 'label')}, {m.hours:.1f} hours of work, stand{'s' * (m.labels == 1)} "
            f"(piar minor {m.what.split(' ', 1)[1]} --revoke)",
        )
        for m in found.minor
    ]
    if not found.next:
        return facts([*lines, ("next", "nothing is due")])
    return Group(facts(lines), *(part for step in found.next for part in _step(step)))


def _step(step: "Step") -> tuple[RenderableType, RenderableType]:
    """A command on a line of its own, however long, so that it can be copied; below it why, and its price."""
    command = Text(f"next         {step.command}", style="bold", no_wrap=True, overflow="ignore")
    return command, Padding(Text(f"{step.why}{_price(step)}"), (0, 0, 0, 13))


def _price(step: "Step") -> str:
    if not step.calls:
        return ""
    cost = "at a cost that --dry-run tells" if step.cost_usd is None else f"about ${step.cost_usd:,.2f}"
    return f": {many(step.calls, 'call')}, {cost}"
