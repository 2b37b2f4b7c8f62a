"""How batches, answers and agreement are shown."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from store.figures import bracketed, many, span

if TYPE_CHECKING:
    from rich.console import RenderableType

    from piar.review.agreement import RuleAgreement
    from piar.review.batch import Batch
    from piar.review.codebook import GuidelineDoubt
    from piar.review.push_pull import PullReport, PushReport
    from piar.review.status import BatchStatus, Person
    from store.enough_raters import Enough, Needed
    from store.stats import Interval

BLIND = (
    "blind: suggestions shift people's labels and save no time, so nobody sees what others or a model said; "
    "community Label Studio has no permissions, so this is by courtesy"
)
INFORMED = "not blind: all opinions are shown, and the answer settles the row"


def composed_view(
    batch: "Batch", pushed: "PushReport | None" = None, waiting: Sequence[tuple[str, str, int]] = ()
) -> str:
    """What a batch holds: how long it takes, why its rows were chosen, and whether people are blind.

    Args:
        waiting: calibration rounds that are not finished: batch, person, rows.
    """
    lines = [f"batch {batch.name}: {many(len(batch.assignments), 'answer')}, about {batch.hours:.1f} hours of work"]
    if pushed:
        lines[0] += f"; {many(pushed.pushed, 'task')} pushed, {pushed.known:,} known"
    for person in batch.annotators:
        place = f" in project {pushed.projects[person]}" if pushed else ""
        lines.append(f"  {person}: {many(len(batch.of(person)), 'row')}{place}")
    rows = {(a.sample_id, a.role, a.reason) for a in batch.assignments}
    why = Counter(f"{reason} ({role})" if role == "queue" else role for _, role, reason in rows)
    lines.append("  rows: " + " · ".join(f"{n:,} {name}" for name, n in why.most_common()))
    lines += [f"  {person} has {many(n, 'row')} of the calibration round {name} left" for name, person, n in waiting]
    if batch.pilot:
        lines.append(
            "  a calibration round: when all have answered, `piar review status` tells which rules divide them"
        )
    if pushed:
        lines += [
            f"  {person}: their page has the instruction as it is now; {n:,} of their answers rest on older words"
            for person, n in pushed.announced.items()
        ]
        lines += [
            f"  {person}: their page is not as piar made it; its grades and rules stay as they are on the server"
            for person in pushed.by_hand
        ]
    if batch.unqueued:
        lines.append("  all rows were drawn at random: `piar mine` queues those that are worth people's time")
    return "\n".join([*lines, f"  {BLIND if batch.blind else INFORMED}"])


def pulled_view(report: "PullReport") -> str:
    """New labels, and what gave none."""
    lines = [f"batch {report.batch}: {report.pulled:,} new labels, {report.known:,} known"]
    lines += [f"  {person}: {n:,}" for person, n in sorted(report.annotators.items())]
    return "\n".join(lines + [f"  {n:,} × {reason}" for reason, n in sorted(report.odd.items())])


def status_view(found: "BatchStatus", symbols: Sequence[str]) -> "RenderableType":
    """Progress of each person, agreement, who is mistaken for whom, and what became of gold."""
    from rich.console import Group

    from piar.cli.render.common import facts, table

    head = ["annotator", "done", "skipped", "s/row", "hours left", "last", "checks", "reliability"]
    agreement = found.agreement
    none = "no random row was judged by two people yet"
    told = [
        ("agreement", f"on {agreement.items} random rows seen by two" if agreement.items else none),
        *(
            (name, text)
            for name, i in (("  alpha", agreement.alpha), ("  Fleiss", agreement.fleiss))
            if (text := _told(i))
        ),
        *((f"  {pair}", f"Cohen {kappa:.2f}") for pair, kappa in agreement.cohen.items() if kappa is not None),
        *((f"  {pair}", _apart(counts, symbols)) for pair, counts in agreement.confusion.items()),
        *(
            (f"  {p.annotator}", f"{text} as the others answer")
            for p in found.annotators
            if (text := _told(p.agreement))
        ),
        *((_rule(r), _same(r)) for r in found.rules),
        ("gold", f"{many(found.overturned, 'row')} overturned: {_OVERTURNED}"),
        ("teacher", _teacher(found)),
        *(("guideline", _doubt(doubt)) for doubt in found.doubts),
    ]
    parts = [*((enough_view(found.enough),) if found.enough else ())]
    return Group(table(head, [_row(p) for p in found.annotators], 0), "", facts(told), *parts)


def _doubt(doubt: "GuidelineDoubt") -> str:
    """That something in the guideline may be wrong, and where to look."""
    what = f"{doubt.what} may be wrong" if doubt.what != "row" else "it may be wrong about a row"
    where = f"on {doubt.rows} rows that divide people" if doubt.rows > 1 else "there"
    return (
        f"{what}: {where} the better raters contradict the label (correlation {doubt.correlation:+.2f}, "
        f"q = {doubt.q_value:.3f}), e.g. piar show sample {doubt.sample_ids[0]}"
    )


def enough_view(found: "Enough") -> "RenderableType":
    """How many people a row needs, with what the labels would be worth at each number."""
    from rich.console import Group

    from piar.cli.render.common import facts, table

    if found.majority is None or found.weighed is None or found.unknown:
        lines: list[tuple[str, RenderableType]] = [("people a row", f"cannot be told: {found.unknown}")]
    else:
        ways = (("by majority", found.majority), ("weighed by ability", found.weighed))
        lines = [("people a row", "; ".join(f"{_number(way.number)} {_between(way)} {name}" for name, way in ways))]
        lines.append(("", f"then one more adds less than {100 * found.gain:g} points of right labels"))
    if found.majority is None or found.weighed is None:
        return facts(lines)
    rest = f"simulated from a model fitted to {many(found.rows, 'row')} and {found.raters} people like those asked"
    head = ["right, %", *(str(n + 1) for n in range(len(found.majority.right)))]
    rows = [
        [name, *(f"{100 * share:.0f}" for share in way.right)]
        for name, way in (("majority", found.majority), ("weighed", found.weighed))
    ]
    return Group(facts([*lines, ("", rest)]), "", table(head, rows))


def _number(number: int | None) -> str:
    return "more than are simulated" if number is None else str(number)


def _between(way: "Needed") -> str:
    return f"({_number(way.low)} to {_number(way.high)})"


_OVERTURNED = "contradicted by two blind people of one mind, or settled otherwise"


def _row(p: "Person") -> Sequence[object]:
    return (
        p.annotator + (f" ({p.foreign} in another's project)" if p.foreign else ""),
        f"{p.answered}/{p.assigned}",
        p.skipped,
        "" if p.seconds is None else f"{p.seconds:.0f}",
        f"{p.hours_left:.1f}",
        "" if p.last is None else f"{p.last:%d %b}",
        f"{p.checks_passed}/{p.checks}",
        "" if p.reliability is None else f"{p.reliability:.2f}",
    )


def _rule(found: "RuleAgreement") -> str:
    return f"  {found.rule or 'no rule named'}"


def _same(found: "RuleAgreement") -> str:
    """How often two people agree on rows of a rule."""
    split = f"; {found.split} by different rules" if found.split else ""
    return f"{_told(found.same)} alike, of {many(found.pairs, 'pair')} on {many(found.rows, 'row')}{split}"


def _told(interval: "Interval | None") -> str:
    if interval is None or interval.value is None:
        return ""
    return f"{interval.value:.2f}{bracketed(span(interval.low, interval.high))}"


def _apart(counts: list[list[int]], symbols: Sequence[str]) -> str:
    """The three commonest ways in which two people differ."""
    cells = [(n, a, b) for a, row in zip(symbols, counts, strict=True) for b, n in zip(symbols, row, strict=True)]
    apart = sorted((c for c in cells if c[0] and c[1] != c[2]), key=lambda c: (-c[0], c[1:]))[:3]
    return ", ".join(f"{n} × {a} against {b}" for n, a, b in apart) or "never apart"


def _teacher(found: "BatchStatus") -> str:
    known = "" if found.teacher_reliability is None else f"reliability {found.teacher_reliability:.2f}; "
    return f"{known}{many(found.teacher_right, 'row')} where adjudication sided with it against a blind answer"
