"""Two rankings, compared by the grades of a project's judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from piar.project.asking import teacher_name
from store.errors import UsageError

if TYPE_CHECKING:
    from piar.judging.outcome import OnProgress
    from piar.project.workspace import Workspace
    from piar.rankings.comparison import Comparison
    from piar.rankings.matching import Matched
    from piar.rankings.plan import Planned
    from piar.rankings.system_order import SystemOrder
    from piar.review.batch import Batch
    from store.judges import Judge
    from store.types import Split

GOLD, CORRECTED = "gold", "corrected"


@dataclass(frozen=True, slots=True)
class Runs:
    """Two rankings, and how their queries and documents are found among the samples.

    Attributes:
        a, b: files; more: further ones, for the order of several systems.
        columns: role -> column of a table, see `piar.rankings.runs.read_ranking`.
        query, document: columns of the samples that hold the runs' names; the best ones when None.
        queries, documents: tables that say what the runs' names stand for. That of the queries may hold weights
            (column `weight` unless named), the chance with which a query was drawn (`inclusion`), and segments.
        weight, segments: columns of `queries`.
        split: only samples of this split.
    """

    a: Path
    b: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    query: str | None = None
    document: str | None = None
    queries: Path | None = None
    documents: Path | None = None
    weight: str | None = None
    segments: tuple[str, ...] = ()
    split: "Split | None" = None
    more: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.queries is None and (named := [*([self.weight] if self.weight else []), *self.segments]):
            raise UsageError(f"{named[0]!r} is a column of no table.", "Name the table: --queries FILE.")


def compare(
    project: "Workspace",
    runs: Runs,
    measures: str | None = None,
    *,
    by: str = GOLD,
    instruction: str | None = None,
    relevant: str | None = None,
    seed: int = 0,
    on_progress: "OnProgress | None" = None,
) -> "Comparison":
    """Compare two rankings: B - A, with intervals over queries; nothing is asked of the teacher.

    Args:
        measures: names as of ir_measures with commas between them; the first is the claim.
        by: `gold` (what is held true), `teacher` (its verdicts so far), `corrected` (the teacher corrected by the
            queries that gold knows whole), or `student:PATH` (judges now).
        instruction: under which the teacher judged; `instruction.md` when None.
        relevant: the lowest grade that counts as relevant for RR, AP and P.

    Raises:
        UsageError: a file, column, measure or judge that is none.
        PiarError: the runs' queries or documents are not among the samples, or nobody has graded them.
    """
    from piar.rankings.comparison import compare
    from piar.rankings.corrected import corrected
    from piar.rankings.judges import judgements
    from piar.rankings.measures import DEFAULT, parsed
    from piar.rankings.plan import corrected_by_plan, planned_batch
    from piar.rankings.queries import query_table, weights_and_segments

    asked = parsed(measures or DEFAULT, project.task, relevant)
    table = query_table(runs.queries)
    matched = _matched(project, runs)
    judge = _grader(project, "teacher" if by == CORRECTED else by, instruction, matched, on_progress)
    weights, segments = weights_and_segments(project.store, matched, table, runs.weight, runs.segments)
    found = judgements(project.store, matched, judge)
    if by == CORRECTED:
        gold = judgements(project.store, matched, None)
        if drawn := planned_batch(project.store, matched.samples["sample_id"]):
            return corrected_by_plan(matched, found, gold, asked, drawn, weights, seed)
        return corrected(matched, found, gold, asked, weights=weights, segments=segments, seed=seed)
    return compare(matched, found, asked, judge=by, weights=weights, segments=segments, seed=seed)


def system_order(
    project: "Workspace",
    runs: Runs,
    judges: Sequence[str] = (GOLD, "teacher"),
    measure: str = "nDCG@10",
    *,
    instruction: str | None = None,
    relevant: str | None = None,
    seed: int = 0,
    on_progress: "OnProgress | None" = None,
) -> "SystemOrder":
    """How far judges agree on the order of systems; see `piar.rankings.system_order`.

    Args:
        judges: `gold`, `teacher`, `student:PATH`.
    """
    from piar.rankings.judges import judgements
    from piar.rankings.measures import parsed
    from piar.rankings.system_order import system_order

    [asked, *_] = parsed(measure, project.task, relevant)
    matched = _matched(project, runs)
    judged = {
        name: judgements(project.store, matched, _grader(project, name, instruction, matched, on_progress))
        for name in judges
    }
    return system_order(matched, judged, asked, seed=seed)


def plan(
    project: "Workspace",
    runs: Runs,
    n: int,
    batch: str,
    measure: str = "nDCG@10",
    *,
    instruction: str | None = None,
    relevant: str | None = None,
    seed: int = 0,
) -> "tuple[Batch, Planned]":
    """Give people the documents that tell two rankings apart soonest, as a review batch; see `piar.rankings.plan`.

    Args:
        n: documents.
        batch: its name; one composed before is returned as it was.
        measure: nDCG@k or P@k.

    Raises:
        UsageError: nobody is named to annotate, or another measure.
        PiarError: the teacher has judged none of them, or nothing is left that could change the difference.
    """
    from piar.rankings.judges import judgements
    from piar.rankings.measures import parsed
    from piar.rankings.plan import plan, spreads, worth
    from piar.rankings.queries import query_table, weights_and_segments
    from piar.review.batch import compose

    [asked, *_] = parsed(measure, project.task, relevant)
    matched = _matched(project, runs)
    judge = _grader(project, "teacher", instruction, matched, None)
    assert judge is not None
    weights, _ = weights_and_segments(project.store, matched, query_table(runs.queries), runs.weight, ())
    pairs = worth(matched, judgements(project.store, matched, judge), asked)
    found = plan(project.store, pairs, spreads(project.store, judge, asked), n, weights, seed)
    with project.run("review-push", {"batch": batch, "plan": n, "measure": measure}) as run_id:
        return compose(project.store, batch, project.config.review, run_id, planned=found.picks), found


def _matched(project: "Workspace", runs: Runs) -> "Matched":
    from piar.rankings.matching import match
    from piar.rankings.queries import query_table
    from piar.rankings.runs import read_ranking

    tables = {"query": query_table(runs.queries), "document": query_table(runs.documents)}
    paths = (runs.a, runs.b, *runs.more)
    rankings = [read_ranking(path, runs.columns) for path in paths]
    named = [ranking.name for ranking in rankings]
    names = named if len(set(named)) == len(named) else [str(path) for path in paths]
    return match(
        project.store,
        [replace(ranking, name=name) for ranking, name in zip(rankings, names, strict=True)],
        runs.query,
        runs.document,
        f"split = '{runs.split}'" if runs.split else "true",
        {role: table for role, table in tables.items() if table is not None},
    )


def _grader(
    project: "Workspace", by: str, instruction: str | None, matched: "Matched", on_progress: "OnProgress | None"
) -> "Judge | None":
    """The judge of this name, with its verdicts in the store; None for what is held true."""
    from piar.judging.students import let_student_judge
    from store.judges import Judge

    kind, _, path = by.partition(":")
    if by == GOLD:
        return None
    if by == "teacher":
        return Judge(teacher_name(project), project.instruction(instruction).id)
    if kind != "student" or not path:
        raise UsageError(f"There is no judge {by!r} here.", "Choose gold, teacher, corrected or student:PATH.")
    texts = project.store.frame("select * from samples order by sample_id")
    asked = texts.join(matched.samples.select("sample_id"), on="sample_id", how="semi", maintain_order="left")
    with project.run("compare", {"judge": by}) as run_id:
        return let_student_judge(project.store, path, asked, run_id, on_progress)
