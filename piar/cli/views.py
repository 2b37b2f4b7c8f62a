"""How answers look on a terminal. Text from data is never markup and holds no control characters."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from piar.doctor import Check

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
