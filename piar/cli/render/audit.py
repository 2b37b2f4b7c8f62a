"""What an audit can find, and what it found."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from piar.cli.render.common import facts, forecast_view, gain_short, percent, receipt_lines, table
from store.figures import bracketed, many, span

if TYPE_CHECKING:
    from piar.judging.forecast import Forecast, Receipt
    from piar.measure.audit import Audit, Control, Probed
    from piar.measure.audit_plan import Plan
    from store.stats import Gain


def plan_view(planned: "Plan", forecast: "Forecast") -> RenderableType:
    """The power of an audit, and what it would ask."""
    return Group(facts([("would audit", _rows(planned)), ("could find", _power(planned))]), forecast_view(forecast))


def audit_view(found: "Audit", receipt: "Receipt") -> RenderableType:
    """The judge's own noise, a row for each probe, and whether the audit would have seen a bias."""
    read = f" under {found.judge.instruction}" if found.judge.instruction else ""
    tested = [probe for probe in found.probes if probe.expects == "same"]
    told = [probe for probe in found.probes if probe.expects == "any"]
    parts: list[RenderableType] = [Text(f"{found.judge.name}{read}: {_rows(found.plan)}", style="bold"), ""]
    if tested:
        parts += [table(["should not matter", "rows", *_COLUMNS, "p (Holm)", ""], map(_tested, tested)), ""]
    if told:
        parts += [table(["may matter", "rows", *_COLUMNS], map(_cells, told)), ""]
    lines: list[tuple[str, RenderableType]] = [
        ("found", _found(found)),
        ("asked twice", _noise(found)),
        *([("control", _control(found.control))] if found.control else []),
        ("power", _power(found.plan)),
        *(("left out", f"{name}: {why}") for name, why in found.left_out.items()),
    ]
    if found.unpaid:
        lines.append(("not asked", f"{many(found.unpaid, 'answer')}: the budget is spent; the same command goes on"))
    if (words := _one_grade(found)) is not None:
        lines.append(("one grade", words))
    if found.unanswered:
        lines.append(
            (
                "no grade",
                f"{many(found.unanswered, 'row has', 'rows have')} none without any change; no probe counts them",
            )
        )
    lines += [
        ("no grade", f"{many(p.unanswered, 'row has', 'rows have')} none under {p.name}; it does not count them")
        for p in found.probes
        if p.unanswered
    ]
    return Group(*parts, facts([*lines, *receipt_lines(receipt)]))


_NEARLY_ALL = 0.9
_COLUMNS = ("changes, points", "shift, grades")


def _cells(probe: "Probed") -> list[str]:
    shift = probe.effect.shift
    return [
        f"{probe.name}: {probe.words}",
        f"{probe.rows:,}",
        gain_short(probe.effect.flips),
        "–" if shift is None else _grades(shift),
    ]


def _tested(probe: "Probed") -> list[str]:
    return [*_cells(probe), "" if probe.p_value is None else f"{probe.p_value:.3f}", "found" if probe.found else ""]


def _grades(shift: "Gain") -> str:
    return f"{shift.mean:+.2f}{bracketed(span(shift.low, shift.high, '{:+.2f}'))}"


def _rows(planned: "Plan") -> str:
    return f"{many(planned.rows, 'row')} of {many(planned.groups, 'group')}"


def _found(found: "Audit") -> str:
    names = ", ".join(probe.name for probe in found.found)
    return names or "nothing that should not matter is shown to change a grade"


def _noise(found: "Audit") -> str:
    if found.noise.value is None:
        return "no row was answered both times"
    return f"{percent(found.noise)} % of the grades change; the columns above are beyond that"


def _power(planned: "Plan") -> str:
    given = f"if {100 * planned.noise:.1f} % of the grades change when asked twice"
    if planned.detectable is None:
        return f"nothing is sure to be found in so few rows, {given}"
    words = f"{100 * planned.detectable:.1f} points or more, with a chance of {100 * planned.power:.0f} %, {given}"
    more = planned.detectable > planned.wanted
    return f"{words}; take more rows or groups for {100 * planned.wanted:g} points" if more else words


def _one_grade(found: "Audit") -> str | None:
    """That the judge gives one grade to nearly all rows, where it does."""
    most, all_rows = max(found.said, key=found.said.__getitem__), sum(found.said.values())
    if not all_rows or found.said[most] < _NEARLY_ALL * all_rows:
        return None
    return f"it gives {most} to {100 * found.said[most] / all_rows:.0f} % of the rows, so that hardly anything can move"


def _control(control: "Control") -> str:
    clean = "nothing is found without it" if control.clean else "but something is found without it, too"
    if not control.planted:
        return f"too few rows were answered three times to plant a bias in; {clean}"
    size = f"{100 * control.planted:.0f} points, planted evenly in a third answer"
    weak = "; more rows would find it more often" if control.found < 0.9 * control.plantings else ""
    return f"a bias of {size}, is found in {control.found} of {control.plantings} plantings{weak}; {clean}"
