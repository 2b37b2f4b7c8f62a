"""How a comparison of rankings looks on a terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

from piar.cli.render.common import facts, table
from store.figures import NO_INTERVAL, bracketed, span

if TYPE_CHECKING:
    from rich.console import RenderableType

    from piar.rankings.comparison import Comparison
    from piar.rankings.system_order import SystemOrder
    from store.stats import Interval


def comparison_view(found: "Comparison", out: Path | None) -> "RenderableType":
    """The claim, every measure, the segments, the queries that decide, and how it was read."""
    from rich.console import Group
    from rich.text import Text

    claim = found.differences[0]
    name_a, name_b = found.names
    measures = [
        [d.measure, _mean(d.a), _mean(d.b), _signed(d.difference), f"{d.p_value:.3g}", _number(d.detectable)]
        for d in found.differences
    ]
    parts: list[RenderableType] = [
        Text(verdict(found), style="bold"),
        table(["", f"A {name_a}", f"B {name_b}", "B - A (95 %)", "p", "detectable"], measures),
        "",
    ]
    if found.segments:
        rows = [
            [name, f"{d.queries:,}", _mean(d.a), _mean(d.b), _signed(d.difference)]
            for name, d in found.segments.items()
        ]
        parts += [table([claim.measure, "queries", "A", "B", "B - A (95 %)"], rows), ""]
    deciding = [[query, f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}"] for query, a, b in found.deciding()]
    parts += [table([f"decided by ({claim.measure})", "A", "B", "B - A"], deciding), ""]
    share_a, share_b = found.unjudged
    unjudged = f"{share_a:.1%} of A's and {share_b:.1%} of B's first {found.depth} places; they count as not relevant"
    lines = [
        ("queries", f"{claim.queries:,}, judged by {found.judge}"),
        ("unjudged", unjudged),
        *([("gold alone", f"{claim.measure} {_signed(claim.alone)}")] if claim.alone else []),
        *(("read", note) for note in found.notes),
        *([("written", str(out))] if out else []),
    ]
    return Group(*parts, facts(lines))


def order_view(found: "SystemOrder") -> "RenderableType":
    """Each system's mean by each judge, and how far the judges' orders agree."""
    from rich.console import Group

    judges = list(found.means)
    systems = list(found.means[judges[0]])
    rows = [[system, *(f"{found.means[judge][system]:.3f}" for judge in judges)] for system in systems]
    lines = [
        (
            "agreement",
            f"{a} and {b}: tau "
            + ("not defined: one has all systems level" if tau.value is None else _signed(tau))
            + f" on the order of {len(systems)} systems",
        )
        for (a, b), tau in found.agreement.items()
    ]
    lines += [("queries", f"{found.queries:,}, those that all judges have graded"), *(("read", n) for n in found.notes)]
    return Group(table([found.measure, *judges], rows), "", facts(lines))


def verdict(found: "Comparison") -> str:
    """One sentence: which ranking is better, or that this cannot be told; and what it does not answer."""
    claim = found.differences[0]
    ends = span(claim.difference.low, claim.difference.high, "{:+.3f}")
    sure = f"95 % interval {ends} over queries" if ends else f"no interval: {NO_INTERVAL}"
    figure = f"{claim.measure} {claim.difference.value or 0:+.3f} (B - A), {sure}"
    silent = "".join(
        f" {name} does not answer {n:,} of the {claim.queries:,} queries and counts 0 there."
        for name, n in zip(found.names, found.unanswered, strict=True)
        if n
    )
    if claim.decided:
        return f"{found.names[int((claim.difference.value or 0) > 0)]} is better: {figure}.{silent}"
    return f"No difference can be claimed: {figure}.{silent}"


def _mean(interval: "Interval | None") -> str:
    return "–" if interval is None or interval.value is None else f"{interval.value:.3f}"


def _signed(interval: "Interval") -> str:
    value = interval.value or 0.0
    return f"{value:+.3f}{bracketed(span(interval.low, interval.high, '{:+.3f}'))}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
