"""A `LookReport` on one screen: a line for each finding, each saying what it means."""

import re
import shlex
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from piar.look.findings import one_rater
from piar.look.report import Agreement, Detectable, LookReport, Suspects
from store.figures import bracketed, many, span
from store.stats import Interval

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")
_NAMES = {
    "majority": "majority grade",
    "tfidf": "TF-IDF logistic",
    "tfidf_overlap": "with word overlap",
    "cosine": "cosine of the encoder",
    "probe": "encoder probe",
}
_COUNTS = {2: "both raters", 3: "all three", 4: "all four", 5: "all five"}


def render(report: LookReport, said: Sequence[str] = ()) -> RenderableType:
    """The report for a terminal of 80 columns or more. Text from data is never markup.

    Args:
        said: the file and the options about its columns, as they were typed; the next command repeats them.
    """
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(ratio=1)
    for label, line in _LINES:
        text = line(report)
        if text:
            grid.add_row(f"  {label}", Text(text))
    for note in report.notes:
        grid.add_row("  note", Text(_plain(note, 500), style="yellow"))
    return Group(_heading(report), grid, Text(), _next(report, shlex.join(said or [report.file])))


def _heading(report: LookReport) -> RenderableType:
    """What the file is, and that nothing was written."""
    groups = _counted(report.groups, report) if report.groups < report.rows or report.shape else "no groups"
    head = Text(f"{many(report.rows, 'row')} · {groups}", style="bold")
    shares = " · ".join(f"{_plain(g.grade, 14)} {_percent(g.share)}" for g in report.grades)
    if shares:
        head.append(f" · grade {shares}" if len(head) + len(shares) < 56 else f"\ngrade {shares}")
    line = Table.grid(expand=True)
    line.add_column(ratio=1)
    line.add_column(justify="right", style="dim")
    line.add_row(head, "nothing written")
    return line


def _columns(report: LookReport) -> str:
    c = report.columns
    roles = {"group": c.group, "text": ", ".join(c.fields), "gold": c.gold, "raters": ", ".join(c.raters)}
    said = " · ".join(f"{role} {_plain(name, 60)}" for role, name in roles.items() if name)
    guessed = [flag for role, flag in _FLAGS.items() if role in c.guessed]
    return said + (f" (guessed; name them with {' '.join(guessed)})" if guessed and said else "")


_FLAGS = {"group": "--group", "fields": "--fields", "gold": "--gold", "raters": "--raters"}


def _agreement(report: LookReport) -> str:
    found = report.agreement
    if found is None:
        return ""
    if found.alpha.value is None:
        return "cannot be measured: no row has two votes, or all votes are the same"
    ordinal = found.alpha_ordinal.value
    ordered = f" · {ordinal:.2f} when near misses count less" if ordinal and ordinal > found.alpha.value + 0.05 else ""
    return f"alpha {_number(found.alpha, report)}{ordered} · {_all(found)} agree on {_percent(found.all_agree)}"


def _all(found: Agreement) -> str:
    return _COUNTS.get(len(found.raters), f"all {len(found.raters)}")


def _raters(report: LookReport) -> str:
    found = report.agreement
    if found is None:
        return ""
    parts = []
    if found.odd_one:
        share = next(f.against_others for f in found.raters if f.name == found.odd_one)
        rest = max(f.against_others or 0 for f in found.raters if f.name != found.odd_one)
        parts.append(
            f"{_plain(found.odd_one)} is the odd one out: sides with the others, when these agree, on "
            f"{_percent(share)} (best: {_percent(rest)})"
        )
    if found.disputed:
        parts.append(f"split most often on {_listed(found.disputed)}")
    return " · ".join(parts)


def _gold(report: LookReport) -> str:
    found = report.suspects
    if found is None:
        return ""
    if not found.contradicts:
        return f"agrees with the raters' majority on all {found.compared:,} rows that have one"
    text = (
        f"contradicts the raters' majority on {many(found.contradicts, 'row')}, {found.unanimous:,} of them unanimous"
    )
    return f"{text}; {_rule(found, report)}" if found.unwritten_rule else text


def _rule(found: Suspects, report: LookReport) -> str:
    """The pattern that looks like a policy applied after rating."""
    shift, blocks = found.shifts[0], found.blocks
    held = sum(block.n for block in blocks)
    named = _listed([block.group for block in blocks])
    return (
        f"{held} sit in {_counted(len(blocks), report)} ({named}) and {shift.n} go from "
        f"{_plain(shift.majority, 14)} to {_plain(shift.gold, 14)}: an unwritten rule?"
    )


def _repeats(report: LookReport) -> str:
    found = report.repeats
    if not found.rows:
        return ""
    what = ", ".join([report.group_name, *(f for f in report.columns.fields if f != report.group_name)])
    conflict = f"; {found.conflicting} of the {found.pairs:,} repeated pairs carry two grades" if report.grades else ""
    return f"{many(found.rows, 'row repeats', 'rows repeat')} an earlier ({_plain(what, 40)}){conflict}"


def _groups(report: LookReport) -> str:
    found = report.shape
    if found is None:
        return "every row is a group of its own; where rows belong together, name the column with --group"
    parts = [f"median {found.median_rows:.0f} rows"]
    if found.one_grade:
        have = "has" if found.one_grade == 1 else "have"
        parts.append(f"{found.one_grade:,} {have} a single grade: no use for measuring rank order")
    if found.twins:
        a, b = (_plain(name, 30) for name in found.twins[0])
        pairs = "pair is" if len(found.twins) == 1 else "pairs are"
        parts.append(f"{len(found.twins):,} {pairs} nearly the same ({a} / {b}): keep them on one side of a split")
    return " · ".join(parts)


def _provable(report: LookReport) -> str:
    d = report.detectable
    if d is None:
        return "nothing: a test needs at least seven groups, so that two or more are held out"
    if d.low >= 1:
        return f"nothing on a {d.groups:,}-{_one(report)} holdout (30 %): label more {_many(report)}"
    assumed = " (assuming two judges that differ on 30 % of rows)" if d.basis == "assumed" else ""
    text = f"{_points(d.low, d.high)} on a {d.groups:,}-{_one(report)} holdout (30 %){assumed}"
    if d.layout_high < 0.8 * d.high:
        return f"{text}; {_layout(d, report)}"
    return f"{text}; {_counted(d.half_groups, report)} × {d.layout_rows} would halve that"


def _layout(d: Detectable, report: LookReport) -> str:
    return (
        f"the same {many(d.rows, 'row')} as {_counted(d.layout_groups, report)} × {d.layout_rows} "
        f"would show {_points(d.layout_low, d.layout_high)}"
    )


def _baselines(report: LookReport) -> str:
    parts = [f"{_NAMES[b.name]} {_percent(b.accuracy.value)}" for b in report.baselines]
    if len(parts) > 1:
        parts[-1] += f" (cross-validated by {_one(report)})"
    span = one_rater(report.agreement.raters) if report.agreement else None
    if span:
        low, high = (f"{100 * share:.0f}" for share in span)
        parts.append(f"one rater {low if low == high else f'{low}–{high}'} %")
    if report.sampled:
        parts.append(f"on a sample of {many(report.sampled, 'row')}")
    return " · ".join(parts)


def _leak(report: LookReport) -> str:
    """The figure that a split by rows would have claimed, when it is far from the truth."""
    for b in report.baselines:
        if b.by_row is not None and b.accuracy.value is not None and b.by_row - b.accuracy.value >= 0.05:
            return (
                f"split by rows instead, the same TF-IDF would claim {_percent(b.by_row)}: "
                f"{100 * (b.by_row - b.accuracy.value):.0f} points of leakage between rows of one {_one(report)}"
            )
    return ""


_LINES: tuple[tuple[str, Callable[[LookReport], str]], ...] = (
    ("columns", _columns),
    ("agreement", _agreement),
    ("raters", _raters),
    ("gold", _gold),
    ("repeats", _repeats),
    ("groups", _groups),
    ("provable", _provable),
    ("baselines", _baselines),
    ("leak", _leak),
)


def _next(report: LookReport, said: str) -> Text:
    """What to do now; on one line, however long, so that it can be copied."""
    if report.grades:
        command = f"piar init DIR --from {said}"
    elif report.mend.startswith(("--bucket-grades", "--cuts")):
        command = f"piar look {said} {report.mend}"
    elif report.mend.startswith("--grades"):
        command = f"piar init DIR --from {said} --grades LOWEST,…,HIGHEST"
    else:
        command = f"piar look {said} --gold COLUMN"
    return Text(f"Next: {_plain(command, 2_000)}", style="bold", no_wrap=True, overflow="ignore")


# -- words ----------------------------------------------------------------------------------------


def _one(report: LookReport) -> str:
    name = report.group_name
    return name.lower() if re.fullmatch(r"[A-Za-z]{2,12}", name) else "group"


def _counted(n: int, report: LookReport) -> str:
    return many(n, _one(report), _many(report))


def _many(report: LookReport) -> str:
    one = _one(report)
    return f"{one[:-1]}ies" if one.endswith("y") and one[-2] not in "aeiou" else f"{one}s"


def _listed(names: list[str]) -> str:
    return ", ".join(_plain(name, 24) for name in names)


def _plain(text: str, most: int = 200) -> str:
    """Text from data on one line, cut to length, without control or direction characters."""
    clean = _CONTROL.sub(" ", text).strip()
    return clean if len(clean) <= most else f"{clean[: most - 1]}…"


def _percent(share: float | None) -> str:
    if share is None:
        return "?"
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else "<1 %"


def _points(low: float, high: float) -> str:
    a, b = round(100 * low), round(100 * high)
    return many(b, "point") if a == b else f"{a}–{b} points"


def _number(figure: Interval, report: LookReport) -> str:
    return f"{figure.value:.2f}{bracketed(span(figure.low, figure.high), by=_one(report))}"
