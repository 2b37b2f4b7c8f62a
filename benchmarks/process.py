"""Cost of one piece of work in a fresh process: wall clock, processor time, memory; and how cost grows with size."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WIDE, _HIGH, _EDGE = 640, 360, 60  # pixels of a plot


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work took; `result` is what it returned."""

    seconds: float
    processor: float
    gigabytes: float
    result: Any

    def __str__(self) -> str:
        return f"{self.seconds:7.1f} s, {self.processor:7.1f} s of processor, {self.gigabytes:5.2f} GB"


def alone(work: Callable[..., Any], *arguments: Any) -> Cost:
    """Run a function of a module in a process of its own, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Cost:
    began, processor = time.monotonic(), time.process_time()
    result = work(*arguments)
    seconds, processor = time.monotonic() - began, time.process_time() - processor
    return Cost(seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, result)


def plot(path: Path, title: str, lines: dict[str, Sequence[tuple[float, float]]]) -> None:
    """Write an SVG of cost over size, both axes from zero, so that linear growth is a straight line."""
    most_x = max(x for points in lines.values() for x, _ in points)
    most_y = max(y for points in lines.values() for _, y in points)

    def place(x: float, y: float) -> str:
        return f"{_EDGE + x / most_x * (_WIDE - 2 * _EDGE):.1f},{_HIGH - _EDGE - y / most_y * (_HIGH - 2 * _EDGE):.1f}"

    drawn = [f'<text x="{_EDGE}" y="24">{title}</text>']
    for number, (name, points) in enumerate(lines.items()):
        colour = ("#1668a7", "#b3541e", "#3b7d3b", "#7a4b9a")[number % 4]
        corners = " ".join(place(x, y) for x, y in ((0.0, 0.0), *points))
        drawn.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{_EDGE + 8}" y="{_EDGE + 16 * number}" fill="{colour}">{name}</text>')
        for x, y in points:
            at_x, at_y = place(x, y).split(",")
            drawn.append(f'<circle cx="{at_x}" cy="{at_y}" r="3" fill="{colour}"/>')
            drawn.append(f'<text x="{at_x}" y="{float(at_y) - 6}" font-size="10">{y:.0f}</text>')
            drawn.append(f'<text x="{at_x}" y="{_HIGH - _EDGE + 16}" font-size="10">{x / 1e6:g} M</text>')
    axes = f"{place(0, most_y)} {place(0, 0)} {place(most_x, 0)}"
    drawn.append(f'<polyline points="{axes}" fill="none" stroke="#888"/>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDE}" height="{_HIGH}" font-family="sans-serif" '
        f'font-size="13">{"".join(drawn)}</svg>\n',
        encoding="utf-8",
    )
