"""The experiments' rows as a Markdown table and one SVG figure a claim."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import mean

from benchmarks.claims.harness import Claim, Row
from benchmarks.claims.scales import Scale
from benchmarks.claims.verdict import Outcome, outcome

NOTHING = "students from nothing in one kind of world. It says how losses behave, not what a large model does."
WIDTH, LINE, LEFT, RIGHT = 720, 26, 250, 30
CURVE = 90  # height of a course over the steps
COLOURS = ("#0b6e99", "#b5542a", "#3d7a3d", "#7a4f9e", "#8a6d00", "#a03060", "#406080", "#606060")


def table(claims: Sequence[Claim], rows: Sequence[Row], scale: Scale) -> str:
    """Verdicts, then every arm's figures."""
    seeds = sorted({row["seed"] for row in rows})
    parts = [f"{_first(scale)} Scale `{scale.name}`, seeds {', '.join(map(str, seeds)) or 'none'}.\n",
             _line("claim", "gain in points (95 %)", "by seed", "verdict"), _line(*["---"] * 4)]  # fmt: skip
    for claim in claims:
        mine = [row for row in rows if row["claim"] == claim.number]
        for i, contrast in enumerate(claim.contrasts):
            found = outcome(contrast, mine)
            name = f"{claim.number}. {claim.hypothesis}" if i == 0 else "· beside it"
            if found:
                seeds_gains = ", ".join(f"{100 * g:+.1f}" for g in found.gains)
                told = f"{name}: {contrast.better} − {contrast.worse}"
                parts.append(_line(told, _gain(found), seeds_gains, _verdict(found, i == 0)))
            elif i == 0:
                parts.append(_line(name, "", "", "not run"))
    return "\n".join(parts) + "\n\n" + "\n".join(_arms(claim, rows) for claim in claims)


def _first(scale: Scale) -> str:
    """Whose grades these are, and what the students start from."""
    start = NOTHING if scale.student == "tiny" else f"students from `{Path(scale.student).name}`."
    return f"{'Simulated' if scale.on == 'shop' else f'People’s grades ({scale.on})'}: {start}"


def _verdict(found: Outcome, decides: bool) -> str:
    if found.contrast.margin and found.verdict == "holds":
        return f"**holds** (not worse by {100 * found.contrast.margin:.0f})"
    return f"**{found.verdict}**" if decides else found.verdict


def _gain(found: Outcome) -> str:
    if abs(found.low) == float("inf") or abs(found.high) == float("inf"):
        return f"{100 * found.mean:+.1f}"
    return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _arms(claim: Claim, rows: Sequence[Row]) -> str:
    mine = [row for row in rows if row["claim"] == claim.number]
    if not mine:
        return ""
    names = list(dict.fromkeys(name for row in mine for name in row["figures"]))
    lines = [f"### {claim.number}. {claim.title}\n\nScore: {claim.measure}.\n",
             _line("arm", "seeds", "score", *names), _line(*["---"] * (len(names) + 3))]  # fmt: skip
    for arm in claim.arms:
        of_arm = [row for row in mine if row["arm"] == arm]
        if of_arm:
            scores = " / ".join(f"{100 * row['score']:.1f}" for row in sorted(of_arm, key=lambda row: row["seed"]))
            told = [[row["figures"][n] for row in of_arm if n in row["figures"]] for n in names]
            lines.append(_line(arm, len(of_arm), scores, *(_number(mean(found)) if found else "" for found in told)))
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


# --- figures ----------------------------------------------------------------------------------------


def figure(claim: Claim, rows: Sequence[Row], note: str = " (simulated)") -> str:
    """Contrasts with their intervals, and the courses over the steps where arms have them; empty without rows."""
    found = [one for one in (outcome(contrast, rows) for contrast in claim.contrasts) if one]
    if not found:
        return ""
    reach = max(0.05, *(abs(x) for one in found for x in (one.mean, *one.gains, *_ends(one))))
    parts = [_text(10, 20, f"{claim.number}. {claim.title}{note}", weight="bold")]
    parts += [part for i, one in enumerate(found) for part in _contrast(one, 50 + i * LINE, reach)]
    bottom = 50 + len(found) * LINE
    parts.append(_rule(_x(0, reach), 34, _x(0, reach), bottom - 10, "#999"))
    parts.append(_text(LEFT, bottom + 12, f"points, ±{100 * reach:.0f}; bar: 95 %; dots: seeds", size=11))
    courses, height = _courses(rows, bottom + 40)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join([*parts, *courses])}</svg>\n')  # fmt: skip


def _ends(one: Outcome) -> list[float]:
    return [x for x in (one.low, one.high) if abs(x) != float("inf")]


def _x(gain: float, reach: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (gain / reach + 1) / 2


def _contrast(one: Outcome, y: float, reach: float) -> list[str]:
    parts = [_text(10, y + 4, f"{one.contrast.better} − {one.contrast.worse}", size=12)]
    if len(_ends(one)) == 2:
        parts.append(_rule(_x(one.low, reach), y, _x(one.high, reach), y, COLOURS[0], 3))
    dots = [(gain, 3, COLOURS[1]) for gain in one.gains] + [(one.mean, 5, COLOURS[0])]
    return parts + [f'<circle cx="{_x(g, reach):.1f}" cy="{y}" r="{r}" fill="{colour}"/>' for g, r, colour in dots]


def _courses(rows: Sequence[Row], top: float) -> tuple[list[str], float]:
    """One small plot a metric, one line an arm (mean over seeds)."""
    curves: dict[str, list[list[dict[str, float]]]] = {}
    for row in rows:
        if row["curve"]:
            curves.setdefault(row["arm"], []).append(row["curve"])
    parts: list[str] = []
    if not curves:
        return parts, top
    for i, arm in enumerate(curves):
        parts.append(_text(10 + (i % 4) * 175, top + 16 * (i // 4), arm, size=12, fill=COLOURS[i % len(COLOURS)]))
    top += 16 * (len(curves) // 4) + 20
    names = [name for name in next(iter(curves.values()))[0][0] if name != "step"]
    for number, name in enumerate(names):
        x, y = 10 + (number % 3) * 235, top + (number // 3) * (CURVE + 34)
        lines = {arm: [mean(values) for values in zip(*([p[name] for p in c] for c in of_arm), strict=False)]
                 for arm, of_arm in curves.items()}  # fmt: skip
        low, high = (pick(v for line in lines.values() for v in line) for pick in (min, max))
        parts.append(_text(x, y + 10, f"{name.removeprefix('tail/')}: {low:.3g} to {high:.3g}", size=11))
        for i, line in enumerate(lines.values()):
            parts.append(f'<polyline points="{_points(line, x, y + 18, low, (high - low) or 1)}" fill="none" '
                         f'stroke="{COLOURS[i % len(COLOURS)]}"/>')  # fmt: skip
    return parts, top + ((len(names) + 2) // 3) * (CURVE + 34)


def _points(line: Sequence[float], x: float, y: float, low: float, spread: float) -> str:
    step = 215 / max(1, len(line) - 1)
    return " ".join(f"{x + step * k:.1f},{y + CURVE * (1 - (v - low) / spread):.1f}" for k, v in enumerate(line))


def _text(x: float, y: float, text: str, *, size: int = 14, weight: str = "normal", fill: str = "#222") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" stroke="{colour}" stroke-width="{width}"/>'
