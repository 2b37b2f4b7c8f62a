"""What a cascade comes to: who decides how much, how surely, at what cost."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from piar.cli.render.common import facts, percent, receipt_lines, table
from store.figures import bracketed, many, span

if TYPE_CHECKING:
    from piar.judging.forecast import Receipt
    from piar.measure.cascade import FittedCascade
    from store.cascade import Cascade, Tier


def cascade_view(found: "FittedCascade", path: Path, receipt: "Receipt") -> RenderableType:
    """A table of the judges, what the cascade comes to beside the last judge alone, and where it is kept."""
    cascade = found.cascade
    title = f"{cascade.split}: {many(cascade.rows, 'row')} with truth in {many(cascade.groups, 'group')}"
    rows = [*map(_row, cascade.tiers), ["people", percent(cascade.people), "", "", "", ""]]
    heads = ["", "decides, %", "right, %, at least", "from", "$ / 1,000", "s"]
    lines: list[tuple[str, RenderableType]] = [
        ("decided", f"{percent(found.decided)} % of the rows, {percent(found.precision)} % of them right"),
        *_cost_lines(found),
        *_weak_lines(found),
        *_nothing_lines(found),
        ("kept", _kept(found, path)),
    ]
    return Group(
        Text(title, style="bold"),
        table(heads, rows),
        "",
        facts([*lines, *_silent_lines(found), *receipt_lines(receipt)]),
    )


def _kept(found: "FittedCascade", path: Path) -> str:
    if not (earlier := found.instead):
        return f"{path}; {_used(found.cascade, path)}"
    judges = " and ".join(tier.judge for tier in earlier.tiers)
    return (
        f"{path} as it was, of {earlier.made[:10]}: {judges} at {100 * earlier.target:g} %. Its judges answer as they "
        "did; this one decides nothing and was not written"
    )


def _used(cascade: "Cascade", path: Path) -> str:
    if cascade.runs:
        return f"used by `piar serve` and `piar score --pool FILES` with `--cascade {path}`"
    return "to read: only a student runs in pools and servers, alone or with the teacher after it"


def _row(tier: "Tier") -> list[str]:
    if tier.threshold is None:
        return [tier.judge, "nothing", "–", "–", _usd(tier.cost_usd), _seconds(tier)]
    least = "–" if tier.precision.low is None else f"{100 * tier.precision.low:.1f}"
    seen = f"{least}, seen {100 * (tier.precision.value or 0):.1f}"
    return [tier.judge, percent(tier.share), seen, f"{tier.threshold:.3f}", _usd(tier.cost_usd), _seconds(tier)]


def _usd(one: float | None) -> str:
    return "unknown" if one is None else f"{1000 * one:.2f}"


def _seconds(tier: "Tier") -> str:
    return "–" if tier.seconds is None else f"{tier.seconds:.3f}"


def _cost_lines(found: "FittedCascade") -> list[tuple[str, RenderableType]]:
    if found.alone is None:
        return []
    share = f"{100 * (found.alone.share.value or 0):.1f} %"
    ends = bracketed(span(found.alone.share.low, found.alone.share.high, "{:.1f}", 100))
    told = f"{found.alone.judge} alone would decide {share}{ends} at the same precision"
    if found.usd_per_1000 is None or found.alone.usd_per_1000 is None:
        return [("beside it", f"{told}; what it costs is unknown: no price is set")]
    each = f"${found.usd_per_1000:.2f} for 1,000 rows, against ${found.alone.usd_per_1000:.2f}"
    return [("cost", each), ("beside it", told)]


def _weak_lines(found: "FittedCascade") -> list[tuple[str, RenderableType]]:
    """The grade that is right least often: the promise is for all decided rows together."""
    counted = {grade: right / n for grade, (n, right) in found.grades.items() if n}
    if len(counted) < 2:
        return []
    grade = min(counted, key=counted.__getitem__)
    n, right = found.grades[grade]
    return [("the least sure", f"grade {grade}: {right:,} of {n:,} right; the promise is for all grades together")]


def _nothing_lines(found: "FittedCascade") -> list[tuple[str, RenderableType]]:
    """Why a judge decides nothing, and what would help."""
    promised = f"{100 * found.cascade.target:g} %"
    lines: list[tuple[str, RenderableType]] = [
        ("not shown", f"{promised} for any confidence of {judge}; its surest tenth is {percent(share)} % right")
        for judge, share in found.surest.items()
    ]
    return [*lines, ("", "label more groups of dev, take a better judge, or ask for less")] if lines else []


def _silent_lines(found: "FittedCascade") -> list[tuple[str, RenderableType]]:
    silent = [tier.judge for tier in found.cascade.tiers if tier.silent]
    return [("no probabilities", f"{name}: all of its grades count as equally sure") for name in silent]
