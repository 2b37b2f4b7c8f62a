"""What judges' probabilities are worth, drawn: reliability, and error against the share of rows decided."""

from dataclasses import dataclass
from typing import Any

from piar.measure.calibrate import Corrected, corrected, decided_alone
from store.db import Store
from store.figures import many
from store.judges import Judge
from store.probability_scores import MOST_ERROR, Alone, Bin, alone, normalised, reliability, risk_curve
from store.stats import Floats

SIDE, LEFT, BELOW = 200, 30, 22  # of a square of the drawing, and the room for its numbers, in pixels
ROWS_A_POINT = 40  # at least, where there are so many; ten points at most
MOST = 4  # judges drawn, the latest
SPLITS = ("test", "dev")  # the first one that a judge has probabilities on
JUDGES = """select judge, instruction, max(created_at) as last from verdict
where probs is not null and (starts_with(judge, 'teacher:') or starts_with(judge, 'student:')) and sample_id in (
    select s.sample_id from samples s join truth using (sample_id) where s.split in ('test', 'dev'))
group by judge, instruction
order by instruction is not distinct from (select instruction from in_force order by since desc limit 1) desc,
    last desc"""


@dataclass(frozen=True, slots=True)
class _Scale:
    """From shares to pixels of the drawing; `top` is the largest share that it shows upwards."""

    top: float = 1.0

    def x(self, share: float) -> float:
        return round(LEFT + SIDE * share, 1)

    def y(self, share: float) -> float:
        return round(BELOW / 2 + SIDE * (1 - min(share, self.top) / self.top), 1)


def probabilities(store: Store) -> dict[str, Any] | None:
    """Each judge that gives probabilities, on test, else on dev; None without any.

    A teacher under the instruction in force, where it has any there, else under the latest: a search tries others on a
    few rows.
    """
    newest: dict[str, Judge] = {}
    for name, instruction, _ in store.frame(JUDGES).rows():
        newest.setdefault(name, Judge(name, instruction))
    drawn = [found for judge in list(newest.values())[:MOST] if (found := _judge(store, judge)) is not None]
    if not drawn:
        return None
    return {
        "judges": drawn,
        "size": (SIDE + LEFT + 10, SIDE + BELOW + 12),
        "source": f"{JUDGES};\n\n-- piar score --json",
    }


def _judge(store: Store, judge: Judge) -> dict[str, Any] | None:
    for split in SPLITS:
        if (rows := corrected(store, judge, split)) is not None:
            break
    else:
        return None
    after, bins = rows.calibration is not None, min(10, max(3, len(rows.gold) // ROWS_A_POINT))
    stages = [("raw", rows.raw), *([("calibrated", rows.probs)] if after else [])]
    curves = {name: risk_curve(rows.gold, probs) for name, probs in stages}
    highest = max(error for points in curves.values() for _, error in points)
    scale = _Scale(next(top for top in (0.1, 0.25, 0.5, 1.0) if highest <= top))
    return {
        "name": judge.name,
        "split": split,
        "rows": len(rows.gold),
        "groups": len(set(rows.groups)),
        "calibrated": after,
        "out_of_fold": rows.out_of_fold,
        "reliability": [
            {"name": name, "bins": [_bin(one) for one in reliability(rows.groups, rows.gold, probs, bins=bins)]}
            for name, probs in stages
        ],
        "diagonal": _line([(0, 0), (1, 1)], _Scale()),
        "square": _axes(_Scale()),
        "risk": [{"name": name, "path": _line(points, scale)} for name, points in curves.items()],
        "bound": _line([(0, MOST_ERROR), (1, MOST_ERROR)], scale),
        "axes": _axes(scale),
        "alone": {name: decided_alone(rows) if name == "calibrated" else _alone(rows, probs) for name, probs in stages},
    }


def _bin(one: Bin) -> dict[str, Any]:
    scale, right = _Scale(), one.right
    value = right.value or 0.0
    ends = (right.low, right.high) if right.low is not None and right.high is not None else (value, value)
    return {
        "x": scale.x(one.confidence),
        "y": scale.y(value),
        "low": scale.y(ends[0]),
        "high": scale.y(ends[1]),
        "words": f"{many(one.rows, 'row')} at {100 * one.confidence:.0f} %: {100 * value:.0f} % right",
    }


def _alone(rows: Corrected, probs: Floats) -> Alone:
    q = normalised(probs)
    return alone(q.max(axis=1), q.argmax(axis=1) == rows.gold, rows.groups)


def _line(points: list[tuple[float, float]], scale: _Scale) -> str:
    return " ".join(f"{scale.x(x)},{scale.y(y)}" for x, y in points)


def _axes(scale: _Scale) -> dict[str, Any]:
    """Where the numbers of both axes stand."""
    return {
        "x": [(scale.x(share), f"{100 * share:.0f}") for share in (0, 0.5, 1)],
        "y": [(scale.y(share), f"{100 * share:g}") for share in (0, scale.top / 2, scale.top)],
        "left": scale.x(0),
        "right": scale.x(1),
        "bottom": scale.y(0),
        "top": scale.y(scale.top),
    }
