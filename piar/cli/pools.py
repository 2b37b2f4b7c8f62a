"""A student's grades of files that never enter the store, alone or as the first judge of a cascade."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from piar.cli.label import would_ask
from piar.cli.render.common import dollars, facts
from piar.cli.render.progress import meter
from piar.cli.verb import Answer, asked, located, open_project, plain
from store.errors import UsageError
from store.figures import many

if TYPE_CHECKING:
    from piar.judging.parquet_files import PoolReport
    from piar.llm.cost import Budget
    from piar.project.cascading import SecondJudge
    from store.cascade import Cascade


def score_pool(
    judge: str, pool: str, out: Path | None, shard: str, trace: bool, cascade: Path | None, caps: "Budget | None"
) -> Answer:
    """A pool's grades; without caps, what a cascade would ask of the teacher."""
    kind, _, path = judge.partition(":")
    if kind != "student" or not path:
        raise UsageError(
            "Only a student judges a pool here.", "Pass --judge student:PATH; teachers: `piar label POOL`."
        )
    if out is None and caps is not None:
        raise UsageError("A pool needs a folder for its grades.", "Add -o DIR.")
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(parts)):
        raise UsageError(f"--shard {shard!r} is not I/N.", "Pass for example --shard 0/4.")
    root = Path(pool).anchor
    files = list(Path(root).glob(str(Path(pool).relative_to(root))))
    if not files:
        raise UsageError(f"No file matches {pool!r}.", "Quote the pattern, and pass Parquet files.")
    folder = asked().folder / path
    both = None if cascade is None else open_project().open_cascade(located(cascade), folder, budget=caps)
    if out is None or caps is None:
        return _handed_on_forecast(both, files)
    from piar.judging.parquet_files import score_files
    from trainers.checkpoint import fingerprint
    from trainers.students import load_student

    with meter("judging") as show:
        report = score_files(
            load_student(folder),
            files,
            out,
            name=judge,
            fingerprint=fingerprint(folder),
            trace=trace,
            shard=(int(part), int(parts)),
            cascade=both,
            on_progress=show,
        )
    skipped = f"; {report.skipped:,} were there already" if report.skipped else ""
    lines = [("graded", f"{many(report.rows, 'row')} of {many(report.files, 'file')}, in {out}{skipped}")]
    document = plain(report)
    if both is not None:
        second = both[1].report if both[1] else report
        lines += _decided(report, second)
        document["second"] = None if both[1] is None else plain(second)
    return Answer(document, facts(lines))


def _handed_on_forecast(both: "tuple[Cascade, SecondJudge | None] | None", files: list[Path]) -> Answer:
    if both is None:
        raise UsageError("A student asks nobody, so there is nothing to forecast.", "Leave out --dry-run.")
    found, second = both
    if second is None:
        raise UsageError("This cascade asks no teacher, so there is nothing to forecast.", "Leave out --dry-run.")
    return would_ask(open_project().forecast_handed_on(found, second, files))


def _decided(report: "PoolReport", second: "PoolReport") -> list[tuple[str, Any]]:
    """Who decided how many rows, and why others are left for people."""
    total = max(1, sum(report.tiers.values()))
    lines = [("decided by", f"{name}: {many(n, 'row')}, {n / total:.1%}") for name, n in report.tiers.most_common()]
    lines += [("left for people", f"{n:,}: {reason}") for reason, n in report.handed_on.most_common(5)]
    if second is not report:
        cost = dollars(second.cost_usd, second.priced)
        lines.append(("receipt", f"{many(second.asked, 'call')} · {second.cached:,} cached · {cost}"))
    return lines
