"""How answers look on a terminal. Text from data is never markup and holds no control characters."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from piar.doctor import Check

if TYPE_CHECKING:
    from piar.project import Imported

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(value: Any) -> str:
    """Text from data as one terminal may safely print it."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", "" if value is None else str(value))


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
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.4g}"


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


def imported(found: "Imported", folder: Path) -> RenderableType:
    """What an import took for what, what it added, and what it left out."""
    report = found.report
    pairs = [
        ("rows", f"{report.read:,} read · {report.added:,} new samples · {report.known:,} known"),
        ("labels", f"{report.labels:,} new"),
    ]
    if report.repeats:
        pairs.append(("repeats", f"{report.repeats:,} rows repeat a sample: more votes on it"))
    if report.splits:
        pairs.append(("splits", " · ".join(f"{name} {n:,}" for name, n in sorted(report.splits.items()))))
    pairs += [("guessed", f"{role} = {reason}") for role, reason in found.reasons.items()]
    reasons = Counter(rejection.reason for rejection in report.rejected)
    for reason, n in reasons.most_common(5):
        lines = [str(r.line) for r in report.rejected if r.reason == reason][:5]
        pairs.append(("left out", f"{n:,} × {reason} (line {', '.join(lines)}{', …' if n > 5 else ''})"))
    if found.proposed:
        pairs.append(("task", f"{folder / 'task.toml'} was proposed: give its grades names and meanings"))
    pairs.append(("next", f"piar evolve -C {folder}"))
    return facts(pairs)
