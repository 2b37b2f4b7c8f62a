"""`piar check`: a gate for CI. Is the committed instruction worse than the one a person last put in force?

Both are measured on the same gold rows of one split, dev by default: cached verdicts cost nothing, and looking at dev
again and again wears nothing out that promotion needs. Chosen by us: overall, the estimate alone must not fall by more
than the margin; for a grade's recall or a slice, which are small, the fall must also be shown by its interval.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from piar.measure.score import rows
from store.figures import span
from store.judges import Judge
from store.stats import paired_gain

if TYPE_CHECKING:
    import polars as pl

    from store.db import Store
    from store.types import Split

REGRESSED = 3  # exit code


@dataclass(frozen=True, slots=True)
class Drop:
    """What one part of the rows lost, in points (positive: worse); `low` and `high` are its 95 % interval by group."""

    part: str
    rows: int
    before: float
    after: float
    drop: float
    low: float | None
    high: float | None
    failed: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """The gate's answer, with every part that was looked at."""

    passed: bool
    split: str
    reference: str
    instruction: str
    max_drop: float
    drops: tuple[Drop, ...]

    def markdown(self) -> str:
        """A summary for a pull request."""
        verdict = "passed" if self.passed else "**regressed**"
        lines = [
            f"### piar check: {verdict}",
            "",
            f"`{self.instruction}` against `{self.reference}` on {self.split}; "
            f"at most {self.max_drop:g} points may be lost.",
            "",
            "| part | rows | before | after | lost (points) | 95 % interval by group | |",
            "|---|--:|--:|--:|--:|--:|---|",
        ]
        for d in self.drops:
            ends = span(d.low, d.high, "{:+.1f}")
            part = "".join(f"\\{c}" if c in "\\`*_[]<>|" else c for c in d.part)
            mark = "✗" if d.failed else ""
            lines.append(f"| {part} | {d.rows} | {d.before:.1f} | {d.after:.1f} | {d.drop:+.1f} | {ends} | {mark} |")
        return "\n".join(lines) + "\n"


def check(store: "Store", current: Judge, reference: Judge, split: "Split", max_drop: float) -> Checked:
    """Compare two judges, whose verdicts are in the store, on the labelled rows of a split.

    Args:
        max_drop: points of accuracy (of recall, for a grade) that may be lost.

    Raises:
        PiarError: nothing is labelled there, or a judge said nothing there.
    """
    after, before = rows(store, current, split), rows(store, reference, split)
    parts = {"all rows": [True] * len(after)}
    parts |= {f"grade {s}": (after["gold"] == s).to_list() for s in store.task.symbols}
    parts |= {f"slice {name}": after[name].fill_null(False).to_list() for name in store.task.slices}
    drops = [_drop(name, before, after, mask, max_drop) for name, mask in parts.items() if any(mask)]
    passed = not any(d.failed for d in drops)
    return Checked(passed, split, reference.instruction, current.instruction, max_drop, tuple(drops))


def _drop(part: str, before: "pl.DataFrame", after: "pl.DataFrame", mask: list[bool], max_drop: float) -> Drop:
    a, b = before.filter(mask), after.filter(mask)
    right_a = (a["predicted"] == a["gold"]).fill_null(False).to_numpy()
    right_b = (b["predicted"] == b["gold"]).fill_null(False).to_numpy()
    lost = paired_gain(right_b, right_a, a["group"].to_numpy())
    low, high = (None if end is None else 100 * end for end in (lost.low, lost.high))
    drop = 100 * lost.mean
    shown = part == "all rows" or (low is not None and low > 0)
    return Drop(part, len(a), 100 * right_a.mean(), 100 * right_b.mean(), drop, low, high, drop > max_drop and shown)


def reference_id(store: "Store") -> str | None:
    """The instruction that a person last accepted, else the first one that was used; None when there is none."""
    found = store.frame("select instruction from in_force order by accepted desc nulls last, since limit 1")
    return str(found.item()) if found.height else None
