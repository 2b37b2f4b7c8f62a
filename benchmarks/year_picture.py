"""The picture of a simulated year: agreement by week with the revisions marked, and the stale hours after each."""

import statistics
from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 900, 60, 880
TOP, MIDDLE, BOTTOM = (40, 170), (210, 340), 360
_STYLE = (
    "text{font:11px sans-serif;fill:#333}.axis{stroke:#999;fill:none}.line{stroke:#2b6cb0;fill:none;stroke-width:1.5}"
    ".major{stroke:#c05621}.minor{stroke:#888;stroke-dasharray:3 3}.true{fill:none;stroke:#c05621;stroke-width:1.5}"
    ".told{fill:#2b6cb0}.wrong{fill:#c00}"
)


def draw(rows: Sequence[dict[str, Any]], agreement: Sequence[float | None], start: datetime) -> str:
    """An SVG; agreement is the mean of four weeks, and minor edits are dashed.

    Args:
        rows: of `benchmarks.codebook_year.simulate`.
        agreement: Krippendorff's alpha of each week.
    """
    weeks = len(agreement)

    def x(at: float) -> float:
        return LEFT + (RIGHT - LEFT) * at / weeks

    def week_of(row: dict[str, Any]) -> float:
        return float((row["at"] - start).total_seconds() / 604800) + 1

    highest = max(1.0, max(row["hours"] for row in rows))
    parts = [_frame(TOP, "alpha", ("0", "1")), _frame(MIDDLE, "stale hours", ("0", f"{highest:.1f}"))]
    smooth = [statistics.mean(a or 0 for a in agreement[max(0, n - 3) : n + 1]) for n in range(weeks)]
    line = " ".join(f"{x(n + 1):.1f},{TOP[1] - (TOP[1] - TOP[0]) * max(0.0, a):.1f}" for n, a in enumerate(smooth))
    parts.append(f'<polyline class="line" points="{line}"/>')
    for n, row in enumerate(rows, 1):
        beside = sum(week_of(other) - week_of(row) > -1 for other in rows[max(0, n - 3) : n - 1])  # in the same week
        at, kind = x(week_of(row)) + 13 * beside, "minor" if row["small"] else "major"
        scale = (MIDDLE[1] - MIDDLE[0]) / highest
        true, told = MIDDLE[1] - scale * row["hours"], MIDDLE[1] - scale * row["told"]
        title = f"<title>{escape(row['name'])}: {row['hours']:.2f} h, status {row['told']:.1f} h</title>"
        parts += [
            f'<path class="{kind}" d="M{at:.1f} {TOP[0]}V{MIDDLE[1]}"/>',
            f'<text x="{at:.1f}" y="{TOP[0] - 6}" text-anchor="middle">{n}</text>',
            f'<circle class="true" cx="{at:.1f}" cy="{true:.1f}" r="5">{title}</circle>',
            f'<circle class="{"told" if row["right"] else "wrong"}" cx="{at:.1f}" cy="{told:.1f}" r="2.5"/>',
        ]
    legend = [f"{n} {row['name']}" for n, row in enumerate(rows, 1)]
    for n, text in enumerate(legend):
        parts.append(f'<text x="{LEFT + 205 * (n % 4)}" y="{BOTTOM + 20 + 16 * (n // 4)}">{escape(text)}</text>')
    below = BOTTOM + 36 + 16 * ((len(legend) - 1) // 4)
    told = (
        "Simulated. Above: agreement of three raters, the mean of four weeks; one of them drifts from the summer on.",
        "Below: hours of stale labels, circles by the simulation, dots by piar status. Dashed: what costs nothing.",
    )
    parts += [f'<text x="{LEFT}" y="{below + 16 * n}">{text}</text>' for n, text in enumerate(told)]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {below + 28}" role="img" '
        f'aria-label="A simulated year of a codebook"><style>{_STYLE}</style>\n{body}\n</svg>\n'
    )


def _frame(between: tuple[int, int], name: str, ends: tuple[str, str]) -> str:
    top, bottom = between
    return (
        f'<path class="axis" d="M{LEFT} {top}V{bottom}H{RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">{ends[0]}</text>'
        f'<text x="{LEFT - 6}" y="{top + 8}" text-anchor="end">{ends[1]}</text>'
        f'<text x="14" y="{(top + bottom) / 2}" transform="rotate(-90 14 {(top + bottom) / 2})" '
        f'text-anchor="middle">{name}</text>'
    )
