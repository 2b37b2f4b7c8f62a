"""The comparison's rows as a table and a plot. Intervals are by world: its seeds are repetitions, not evidence."""

from collections import defaultdict
from collections.abc import Sequence
from html import escape
from statistics import mean, median
from typing import Any

from benchmarks.optimizers.worlds import KINDS
from store.stats import bootstrap_by_group

Rows = Sequence[dict[str, Any]]
OURS, PLAIN = "ours", "ours, plain prompt"
FIRST = (
    "Simulated: this shows search, accounting and statistics; not how well a language model reads and writes English."
)
SOMETHING_TO_FIND, NOTHING_TO_FIND = ("rules", "noisy"), ("null", "harmful")
NEARLY = 0.95  # of our tokens


def gain(row: dict[str, Any]) -> float:
    """True gain over the seed instruction, in points."""
    return 100 * float(row["accuracy"] - row["seed_accuracy"])


def table(rows: Rows) -> str:
    """Gains, false promotions and calls, by arm; Markdown."""
    if not rows:
        return FIRST + "\n\nNothing has been run yet.\n"
    worlds = {(r["kind"], r["world"]) for r in rows}
    kinds = ", ".join(f"{sum(kind == k for k, _ in worlds)} {kind}" for kind in KINDS)
    even = [r for r in rows if _times(r) == 1]
    told = f"{len(worlds)} worlds ({kinds}), {len({r['seed'] for r in rows})} seeds, {len(rows)} runs"
    parts = [FIRST, f"\n{told}; {rows[0]['budget']:,} teacher calls each.\n", _gains(even), _tokens(rows)]
    parts += [_promotions(even), _cost(rows), _speed(even), _losses(rows)]
    return "\n".join(parts)


def _gains(rows: Rows) -> str:
    lines = [
        "True gain in points, and how far ours is ahead in the same worlds with the same seeds (95 % by world; "
        "without an interval: one world). In null worlds every instruction is equally "
        "good by construction: what is printed there is sampling error, a point or two.\n"
    ]
    lines += [_line("arm (runs)", *(f"{k}" for k in KINDS), *(f"ours ahead, {k}" for k in KINDS)), _line(*["---"] * 9)]
    for arm in _arms(rows):
        means = [_mean([gain(r) for r in rows if r["arm"] == arm and r["kind"] == kind]) for kind in KINDS]
        ahead = [_ahead(rows, arm, kind) for kind in KINDS]
        lines.append(_line(f"{arm} ({sum(r['arm'] == arm for r in rows)})", *means, *ahead))
    return "\n".join(lines) + "\n"


def _tokens(rows: Rows) -> str:
    """Arms that have used about as many tokens as ours, or more, where there is something to find."""
    found = [r for r in rows if r["kind"] in SOMETHING_TO_FIND]
    used = {arm: mean(r["tokens"] for r in found if r["arm"] == arm) for arm in _arms(found)}
    least = NEARLY * used.get(OURS, 0.0)
    lines = [
        "At equal tokens: our prompt asks the teacher for a reason, so that its calls are dearer. Arms that used at "
        "least as many tokens as ours, cheaper ones by calling more often, and ours with the bare prompt that the "
        "others have, where there is something to find:\n",
        _line("arm", "teacher calls, mean", "thousand tokens", *SOMETHING_TO_FIND,
              *(f"ours ahead, {k}" for k in SOMETHING_TO_FIND)),
        _line(*["---"] * 7),
    ]  # fmt: skip
    for arm, tokens in used.items():
        mine = [r for r in found if r["arm"] == arm]
        if arm in (OURS, PLAIN) or (tokens >= least and not arm.startswith(OURS)):
            gains = [_mean([gain(r) for r in mine if r["kind"] == kind]) for kind in SOMETHING_TO_FIND]
            ahead = [_ahead(rows, arm, kind) for kind in SOMETHING_TO_FIND]
            lines.append(_line(arm, f"{mean(r['calls'] for r in mine):.0f}", f"{tokens / 1000:.0f}", *gains, *ahead))
    return "\n".join(lines) + "\n"


def differences(rows: Rows, arm: str, kinds: Sequence[str]) -> tuple[list[float], list[str]]:
    """Ours minus an arm in the same world with the same seed, and the world of each."""
    found = {(r["kind"], r["world"], r["seed"], r["arm"]): gain(r) for r in rows}
    pairs = [
        (mine - found[kind, world, seed, arm], f"{kind} {world}")
        for (kind, world, seed, name), mine in found.items()
        if name == OURS and kind in kinds and (kind, world, seed, arm) in found
    ]
    return [d for d, _ in pairs], [w for _, w in pairs]


def _ahead(rows: Rows, arm: str, kind: str) -> str:
    values, worlds = differences(rows, arm, (kind,))
    if arm == OURS or not values:
        return ""
    found = bootstrap_by_group(values, worlds)
    if found.low is None or found.high is None:
        return f"{mean(values):+.1f}"
    return f"{mean(values):+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def _promotions(rows: Rows) -> str:
    lines = [
        "Where there is nothing to find: share of runs that return a changed instruction, and its mean true gain:\n"
    ]
    lines += [_line("arm", "null", "harmful"), _line(*["---"] * 3)]
    for arm in _arms(rows):
        cells = []
        for kind in NOTHING_TO_FIND:
            mine = [r for r in rows if r["arm"] == arm and r["kind"] == kind]
            changed = [r for r in mine if r["changed"]]
            worth = f", {_mean([gain(r) for r in changed])} points" if changed else ""
            cells.append(f"{len(changed)} of {len(mine)}{worth}" if mine else "")
        lines.append(_line(arm, *cells))
    return "\n".join(lines) + "\n"


def _cost(rows: Rows) -> str:
    lines = ["By the server's own ledger:\n"]
    lines += [_line("arm", "teacher calls, mean", "most", "runs over budget", "reviser calls", "thousand tokens")]
    lines += [_line(*["---"] * 6)]
    for arm in _arms(rows):
        mine = [r for r in rows if r["arm"] == arm]
        calls = [r["calls"] for r in mine]
        over = sum(r["calls"] > _times(r) * r["budget"] for r in mine)
        tokens = mean(r["tokens"] for r in mine) / 1000
        cells = f"{mean(calls):.0f}", max(calls), over, f"{mean(r['reviser_calls'] for r in mine):.1f}", f"{tokens:.0f}"
        lines.append(_line(arm, *cells))
    return "\n".join(lines) + "\n"


def _speed(rows: Rows) -> str:
    """Teacher calls until the arm's choice had a share of the oracle's gain; only arms whose steps are known."""
    known = [r for r in rows if r["reached"] is not None and r["kind"] not in NOTHING_TO_FIND]
    shares = list(known[0]["reached"]) if known else []
    lines = [
        "Teacher calls until what the arm would return then had this share of the oracle's gain: median over the runs "
        "that came so far, and how many did (worlds with something to find; a test that follows is not counted):\n",
        _line("arm", *(f"{100 * float(share):.0f} %" for share in shares)),
        _line(*["---"] * (1 + len(shares))),
    ]
    for arm in _arms(known):
        mine = [r["reached"] for r in known if r["arm"] == arm]
        came = [[r[share] for r in mine if r[share] is not None] for share in shares]
        cells = [f"{median(calls):.0f} ({len(calls)} of {len(mine)})" if calls else f"(0 of {len(mine)})"
                 for calls in came]  # fmt: skip
        lines.append(_line(arm, *cells))
    return "\n".join(lines) + "\n"


def grid(rows: Rows) -> str:
    """True gain by arm and by the share of the rules that a whole rewrite loses; Markdown."""
    drops, worlds = sorted({r["drop"] for r in rows}), len({(r["kind"], r["world"]) for r in rows})
    lines = [
        FIRST,
        f"\nTrue gain in points where a rewrite loses this share of the rules (mean of {worlds} worlds that begin "
        "with most of the oracle's rules; operations on single rules cannot lose any):\n",
        _line("arm", *(f"{100 * drop:.0f} %" for drop in drops)),
        _line(*["---"] * (1 + len(drops))),
    ]
    for arm in _arms(rows):
        lines.append(_line(arm, *(_mean([gain(r) for r in rows if r["arm"] == arm and r["drop"] == d]) for d in drops)))
    return "\n".join(lines) + "\n"


def _losses(rows: Rows) -> str:
    lines = ["Where ours is behind by more than a point on average:\n"]
    for arm in _arms(rows):
        for kind in KINDS:
            values = differences(rows, arm, (kind,))[0]
            if arm not in (OURS, "oracle") and values and mean(values) < -1:
                lines.append(f"- {arm}, {kind} worlds: {_ahead(rows, arm, kind)} points")
    return "\n".join(lines if len(lines) > 1 else [*lines, "- nowhere"]) + "\n"


def _times(row: dict[str, Any]) -> int:
    """How many times the budget the arm might spend."""
    return int(row.get("times", 1))


def _arms(rows: Rows) -> list[str]:
    return list(dict.fromkeys(r["arm"] for r in rows))


def _mean(values: Sequence[float]) -> str:
    return f"{mean(values):+.1f}" if values else ""


def _line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


# -- plot -------------------------------------------------------------------------------------------

_LEFT, _STEP, _WIDTH, _SCALE = 250, 22, 750, 7.5


def plot(rows: Rows) -> str:
    """Mean true gain by arm with its 95 % interval by world, in the worlds where there is something to find; SVG."""
    by_arm: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["kind"] not in NOTHING_TO_FIND:
            by_arm[row["arm"]].append(row)
    marks = [_text(_LEFT, 16, "true gain in points, 95 % by world (runs); simulated", "start")]
    for at, (arm, mine) in enumerate(by_arm.items()):
        y = 40 + _STEP * at
        found = bootstrap_by_group([gain(r) for r in mine], [f"{r['kind']} {r['world']}" for r in mine])
        value, low, high = found.value or 0.0, found.low, found.high
        if low is not None and high is not None:
            marks.append(f'<path d="M{_x(low)} {y}H{_x(high)}" stroke="#888"/>')
        fill = "#c33" if arm == OURS else "#246"
        marks += [
            f'<circle cx="{_x(value)}" cy="{y}" r="4" fill="{fill}"/>',
            _text(_LEFT - 10, y + 4, f"{arm} ({len(mine)})", "end"),
        ]
        marks.append(_text(_WIDTH - 10, y + 4, f"{value:+.1f}", "end"))
    height = 50 + _STEP * len(by_arm)
    axis = f'<path d="M{_x(0)} 26V{height - 14}" stroke="#ccc"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" '
        f'font-size="12">{axis}{"".join(marks)}</svg>\n'
    )


def _x(points: float) -> float:
    return round(_LEFT + 20 + _SCALE * points, 1)


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'
