"""The verb that compares rankings."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piar.cli.render.progress import meter
from piar.cli.verb import Answer, Panel, located, open_project, verb, with_commands
from store.errors import UsageError
from store.figures import many
from store.types import Split

if TYPE_CHECKING:
    from piar.project import documents
    from piar.project.comparing import Runs
    from piar.project.facade import Project
    from piar.rankings.comparison import Comparison
    from piar.rankings.plan import Planned
    from piar.review.batch import Batch


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    verb(app, "compare", Panel.LOOK)(compare)


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A TREC run, or a table of queries and documents.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The other ranking; the difference is B - A.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]…", help="More of them: how far judges agree on their order.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="JUDGE",
            help="gold, teacher, corrected (by gold) or student:PATH; several of more runs.",
            show_default="gold; gold,teacher of more runs",
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            "--measure", metavar="A,B", help="As ir_measures names them.", show_default="nDCG@10,RR,AP,P@10,ERR@10"
        ),
    ] = None,
    relevant: Annotated[
        str | None,
        typer.Option(
            "--relevant", metavar="GRADE", help="Relevant from here on, for RR, AP, P.", show_default="second lowest"
        ),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            "--query", metavar="COLUMN", help="What of the samples the runs call a query.", show_default="found out"
        ),
    ] = None,
    doc: Annotated[
        str | None,
        typer.Option(
            "--doc", metavar="COLUMN", help="What of the samples they call a document.", show_default="found out"
        ),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="ROLE=COLUMN", help="Of the runs: query, document, score, rank; repeat it."),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option("--queries", metavar="FILE", help="A table of the queries: texts, weights, segments.")
    ] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", metavar="FILE", help="A table of the documents: their ids and texts.")
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option("--weight", metavar="COLUMN", help="Of --queries: traffic.", show_default="weight, if there"),
    ] = None,
    segment: Annotated[
        list[str] | None, typer.Option("--segment", metavar="COLUMN", help="Of --queries: parts to show; repeat it.")
    ] = None,
    split: Annotated[Split | None, typer.Option("--split", help="Only samples of a split.", show_default="all")] = None,
    instruction: Annotated[
        str | None, typer.Option("--instruction", metavar="ID", help="Of the teacher.", show_default="instruction.md")
    ] = None,
    plan: Annotated[
        int | None,
        typer.Option("--plan", min=1, metavar="N", help="Give people N documents that decide it."),
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", metavar="NAME", help="With --plan: the review batch that they become.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write a page (.html), or each query's values (.csv).")
    ] = None,
) -> Answer:
    """Compare two rankings by what the project's judges say: which is better, by how much, and how sure that is.

    A run is a TREC run, or CSV, JSON or Parquet with a query, a document and a score or a rank. Its names are looked
    for among the samples: the query in the group, the document in your own ids (`piar import --id`) or in a field.
    Equal scores stay in the file's order. nDCG has the linear gain of trec_eval; documents that nobody graded count as
    not relevant, and their share is told. The difference has a 95 % interval over queries; the first measure is the
    claim.

    With --plan N nothing is compared: N documents are drawn, those that can change the difference most the likelier,
    and become a review batch; once people have graded them, --by corrected corrects the teacher by them without bias.

    With three runs or more, or two judges, it says how far judges agree on the order of systems: their means by each
    judge, and Kendall's tau between the orders with its interval over queries.

    Example: `piar compare today.run new.run`

    Example: `piar compare a.run b.run c.run d.run --by gold,teacher`

    Example: `piar compare today.run new.run --plan 200 --batch ranks1`

    Example: `piar compare today.csv new.csv --by teacher --queries queries.csv --weight visits --out compare.html`
    """
    from piar.cli.render.compare import comparison_view

    project, runs = open_project(), _runs(run_a, run_b, query, doc, map_, queries, documents, weight, segment, split)
    if plan is not None or batch is not None:
        return _planned(project.plan(runs, *_plan_of(plan, batch), measure or "nDCG@10", relevant=relevant))
    judges = tuple(name.strip() for name in (by or ("gold,teacher" if more else "gold")).split(",") if name.strip())
    if more or len(judges) > 1:
        return _ordered(project, replace(runs, more=tuple(map(located, more or ()))), judges, measure, relevant)
    with meter("judging") as show:
        found = project.compare(
            runs, measure, by="".join(judges), instruction=instruction, relevant=relevant, on_progress=show
        )
    if out is not None:
        _write(found, out)
    return Answer(document(found), comparison_view(found, out))


def _ordered(
    project: "Project", runs: "Runs", judges: tuple[str, ...], measure: str | None, relevant: str | None
) -> Answer:
    from piar.cli.render.compare import order_view

    with meter("judging") as show:
        found = project.system_order(runs, judges, measure or "nDCG@10", relevant=relevant, on_progress=show)
    told: documents.Ordered = {
        "measure": found.measure,
        "queries": found.queries,
        "means": found.means,
        "agreement": [{"judges": pair, "tau": interval} for pair, interval in found.agreement.items()],
        "notes": found.notes,
    }
    return Answer(told, order_view(found))


def _plan_of(n: int | None, batch: str | None) -> tuple[int, str]:
    if n is None or batch is None:
        raise UsageError("A plan needs its size and a name.", "Write --plan 200 --batch ranks1.")
    return n, batch


def _planned(made: "tuple[Batch, Planned]") -> Answer:
    composed, found = made
    told: documents.Planned = {
        "batch": composed.name,
        "fresh": composed.fresh,
        "documents": len(composed.assignments),
        "open": found.open,
        "known": found.known,
    }
    words = (
        f"batch {composed.name}: {many(len(composed.assignments), 'document')} of {found.open:,} that could change "
        f"the difference ({found.known:,} more have gold)"
    )
    send = f"piar review export {composed.name}.csv --batch {composed.name}"
    return Answer(
        told, with_commands(f"{words}\nnext: `{send}`, or piar review push; then piar compare … --by corrected")
    )


def _runs(
    a: Path,
    b: Path,
    query: str | None,
    document: str | None,
    columns: list[str] | None,
    queries: Path | None,
    documents: Path | None,
    weight: str | None,
    segments: list[str] | None,
    split: Split | None,
) -> "Runs":
    from piar.project.comparing import Runs

    pairs = [pair.partition("=") for pair in columns or ()]
    bad = next(("".join(pair) for pair in pairs if not all(pair)), None)
    if bad is not None:
        raise UsageError(f"--map {bad!r} names no column.", "Write --map document=COLUMN.")
    return Runs(
        located(a),
        located(b),
        {role: column for role, _, column in pairs},
        query,
        document,
        located(queries) if queries else None,
        located(documents) if documents else None,
        weight,
        tuple(segments or ()),
        split,
    )


def document(found: "Comparison") -> dict[str, Any]:
    """What `--json` prints of a comparison."""
    return {
        "a": found.names[0],
        "b": found.names[1],
        "judge": found.judge,
        "measures": [asdict(d) | {"decided": d.decided} for d in found.differences],
        "segments": {name: asdict(d) | {"decided": d.decided} for name, d in found.segments.items()},
        "unjudged": dict(zip(("a", "b"), found.unjudged, strict=True)),
        "unanswered": dict(zip(("a", "b"), found.unanswered, strict=True)),
        "depth": found.depth,
        "deciding": [{"query": query, "a": a, "b": b} for query, a, b in found.deciding()],
        "notes": found.notes,
    }


def _write(found: "Comparison", out: Path) -> None:
    from piar.rankings.page import page
    from store.files import replacing, write_text

    if out.suffix == ".html":
        write_text(out, page(found))
    elif out.suffix == ".csv":
        with replacing(out) as draft:
            found.values.write_csv(draft)
    else:
        raise UsageError(f"{out.name} is neither a page nor a table.", "End its name in .html or .csv.")
