"""Verbs of the first minute: look, init, import."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from piar.cli.options import (
    AnnotatorColumn,
    BucketGrades,
    Control,
    Counts,
    Cuts,
    DateColumn,
    Documents,
    Encoding,
    FieldColumns,
    Fields,
    Gold,
    Grades,
    GroupColumn,
    Header,
    IdColumn,
    LabelConfig,
    On,
    Plain,
    Queries,
    Raters,
    Seed,
    Sheet,
    Source,
    SplitColumn,
    mapping,
    reading,
)
from piar.cli.render.progress import steps
from piar.cli.verb import Answer, Panel, asked, located, open_project, verb

if TYPE_CHECKING:
    from piar.project.documents import Importing, Init
    from piar.project.importing import Imported


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    verb(app, "look", Panel.START)(look)
    verb(app, "init", Panel.START)(init)
    verb(app, "import", Panel.START)(import_)


def look(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSON, Parquet or Excel, also packed; - reads stdin.")
    ],
    gold: Gold = None,
    raters: Raters = None,
    annotator: AnnotatorColumn = None,
    date: DateColumn = None,
    group: GroupColumn = None,
    columns: FieldColumns = None,
    fields: Fields = None,
    counts: Counts = None,
    bucket_grades: BucketGrades = False,
    cuts: Cuts = None,
    split: SplitColumn = None,
    id: IdColumn = None,
    source: Source = None,
    grades: Grades = None,
    label_config: LabelConfig = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
    control: Control = None,
    plain: Plain = False,
    documents: Documents = None,
    queries: Queries = None,
    on: On = None,
    header: Header = None,
    sample: Annotated[int, typer.Option("--sample", min=100, help="Rows that the baselines see at most.")] = 4000,
    seed: Seed = 0,
) -> Answer:
    """What is true of a file of labels, in ten seconds: no project needed, nothing written.

    Its columns are named by the options of `init` and `import`; the last line repeats them for `init`.

    Example: piar look judgements.csv --gold grade --raters 'rater_*' --group query
    """
    from piar.look import look as look_at
    from piar.look import render
    from piar.measure.embeddings import embedder
    from piar.project.config import load

    said = mapping(
        gold, raters, group, fields, split, id, source, annotator, date, grades, columns, counts, bucket_grades, cuts
    )
    if label_config and control is None:
        from store.label_config import load_label_config

        control = load_label_config(label_config, None).control
    how = reading(encoding, sheet, control, plain, documents, queries, on, header)
    settings = load(asked().folder, asked().overrides, optional=True).baselines
    if settings.encoder:
        settings = settings.model_copy(update={"encoder": str(located(Path(settings.encoder)))})
    with steps() as told:
        report = look_at(
            file,
            gold=gold,
            raters=said.raters,
            group=group,
            reading=how,
            mapping=said,
            sample=sample,
            seed=seed,
            embed=embedder(settings),
            on_step=told,
        )
    return Answer(report.model_dump(mode="json"), render(report, (str(file), *asked().columns)))


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Propose the task from a file and import it.")
    ] = None,
    guideline: Annotated[
        Path | None, typer.Option("--guideline", metavar="FILE.md", help="Your guideline; becomes instruction.md.")
    ] = None,
    example: Annotated[
        Literal["shop"] | None, typer.Option("--example", help="Simulate a product-search world and import it.")
    ] = None,
    pairs: Annotated[int, typer.Option("--pairs", min=100, help="Size of the simulated world.")] = 3000,
    gold: Gold = None,
    raters: Raters = None,
    annotator: AnnotatorColumn = None,
    date: DateColumn = None,
    group: GroupColumn = None,
    columns: FieldColumns = None,
    fields: Fields = None,
    counts: Counts = None,
    bucket_grades: BucketGrades = False,
    cuts: Cuts = None,
    split: SplitColumn = None,
    id: IdColumn = None,
    source: Source = None,
    grades: Grades = None,
    label_config: LabelConfig = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
    control: Control = None,
    plain: Plain = False,
    documents: Documents = None,
    queries: Queries = None,
    on: On = None,
    header: Header = None,
    seed: Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that is not empty; what differs is kept as NAME.bak.")
    ] = False,
) -> Answer:
    """Make a project folder: piar.toml, task.toml, instruction.md and the store.

    Columns that you do not name are guessed, and the guess is shown; at a terminal you are asked where it is doubtful.
    Columns that were written while grading, such as a comment, are left out. Words of a known scale (bad to perfect,
    never to always) come in their order; others have none until --grades gives one. A file without any grade needs
    --grades; `piar status` then says how to begin.

    A Label Studio project comes in with its annotators, dates and seconds: `piar review fetch` writes its export and
    its label configuration. Its labels are people's opinions, never gold.

    Example: `piar init shoes --from ratings.csv --gold grade --group query`
    """
    from piar.cli.asking import terminal
    from piar.cli.render.imported import imported
    from piar.project.facade import Project

    said = mapping(
        gold, raters, group, fields, split, id, source, annotator, date, grades, columns, counts, bucket_grades, cuts
    )
    project = Project.init(
        folder,
        from_=from_,
        example=example,
        pairs=pairs,
        guideline=guideline,
        label_config=label_config,
        mapping=said,
        reading=reading(encoding, sheet, control, plain, documents, queries, on, header),
        seed=seed,
        force=force,
        ask=terminal(),
        overrides=asked().overrides,
    )
    files = sorted(path.name for path in folder.iterdir())
    document: Init = {"project": str(folder), "files": files}
    if project.imported is None:
        return Answer(document, f"{folder}: {', '.join(files)}\nnext: piar import FILE -C {shlex.quote(str(folder))}")
    document["import"] = _document(project.imported)
    if project.guideline:
        document["guideline"] = project.guideline
    return Answer(document, imported(project.imported, folder, project.guideline))


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="CSV, TSV, JSONL, Parquet, a Hugging Face folder, a Label Studio export."),
    ],
    gold: Gold = None,
    raters: Raters = None,
    annotator: AnnotatorColumn = None,
    date: DateColumn = None,
    group: GroupColumn = None,
    columns: FieldColumns = None,
    fields: Fields = None,
    counts: Counts = None,
    bucket_grades: BucketGrades = False,
    cuts: Cuts = None,
    split: SplitColumn = None,
    id: IdColumn = None,
    source: Source = None,
    grades: Grades = None,
    label_config: LabelConfig = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
    control: Control = None,
    plain: Plain = False,
    documents: Documents = None,
    queries: Queries = None,
    on: On = None,
    header: Header = None,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=0, help="Draw N rows at random.", show_default="all rows")
    ] = 0,
    sample_queries: Annotated[
        int,
        typer.Option(
            "--sample-queries", metavar="N", min=0, help="Draw N queries with all rows.", show_default="all queries"
        ),
    ] = 0,
    weight: Annotated[
        str | None, typer.Option("--weight", metavar="COLUMN", help="With either: how often a row came.")
    ] = None,
    seed: Seed = 0,
) -> Answer:
    """Bring samples and labels into the store. Importing the same rows again adds nothing.

    A row that repeats an earlier (group, fields) is one sample with more votes. A grade that differs from what the
    same annotator said of a sample in an earlier file corrects it. A bad row is left out and
    counted with its line and reason. Without a task.toml, one is proposed from the first file. New groups are dealt to
    splits; holdout groups that have decided three promotions leave for train once as many fresh ones are there.

    Of a large log, --sample takes some rows, with --weight the more frequent ones likelier: then every sample
    stands for as much traffic.

    --sample-queries draws whole queries from head, torso and tail alike, and writes what each stands for into the
    project, as queries-NAME.csv: `piar compare --queries` weighs by it, and `piar score --live` by the chances.

    Example: `piar import log.parquet --group query --source week2 --sample 2000 --weight impressions`

    Example: `piar import week2.parquet --gold grade --map title=product_name`
    """
    from piar.cli.asking import terminal
    from piar.cli.render.imported import imported

    project = open_project()
    said = mapping(
        gold, raters, group, fields, split, id, source, annotator, date, grades, columns, counts, bucket_grades, cuts
    )
    said = said.model_copy(update={"sample": sample, "sample_queries": sample_queries, "weight": weight})
    how = reading(encoding, sheet, control, plain, documents, queries, on, header)
    found = project.import_(files, said, reading=how, seed=seed, label_config=label_config, ask=terminal())
    return Answer(_document(found), imported(found, project.folder))


def _document(found: "Imported") -> "Importing":
    report = found.report
    return {
        "read": report.read,
        "added": report.added,
        "known": report.known,
        "repeats": report.repeats,
        "labels": report.labels,
        "changed": report.changed,
        "changes": [{"from": before, "to": after, "n": n} for (before, after), n in report.changes.items()],
        "conflicts": report.conflicts,
        "rejected": report.rejected,
        "splits": report.splits,
        "given": report.given,
        "retired": found.retired,
        "columns": found.mapping,
        "guessed": found.reasons,
        "notes": found.notes,
        "fields": found.fields,
        "ordered": found.ordered,
        "left_out": found.left_out | found.unused,
        "doubts": found.doubts,
        "renewed": found.renewed,
    }
