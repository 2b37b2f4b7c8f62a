"""What comes into a project: files of samples and labels, and a guideline."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from piar.project.folder import INSTRUCTION, STORE, TASK, adopt, begin, put, refit
from store.errors import UsageError
from store.files import read_text

if TYPE_CHECKING:
    import polars as pl

    from piar.offline import GuidelineImport
    from piar.project.workspace import Workspace
    from store.importers import ImportMapping, ImportReport
    from store.propose import Doubt, Guess
    from store.readers import Reading
    from store.tables import Table
    from store.task import Task


@dataclass(frozen=True, slots=True)
class Imported:
    """What `import` did.

    Attributes:
        report: counts, rejected rows with their line and reason, splits.
        mapping: which column was taken for what, of the last file.
        reasons: why, for the columns that were guessed.
        unused: role -> a column that is named as if it had it, and why it was passed over.
        proposed: the grades of the task, when it was proposed from the file; else none.
        retired: worn holdout groups that left for train, since fresh ones came.
        notes: how the files were read where that is not plain: encoding, sheet, what stood above the header.
        fields: columns of the file that a judge reads.
        ordered: the grades have an order.
        left_out: column -> why it is no field.
        doubts: guesses that a person should look at.
        groups: groups of the store that have a split.
        guideline: the text that the file's judges were given, where it has one.
        renewed: where the old store is, when it was made anew; `again` are the files that it held besides.
    """

    report: "ImportReport"
    mapping: "ImportMapping"
    reasons: dict[str, str]
    unused: dict[str, str]
    proposed: tuple[str, ...]
    retired: int = 0
    notes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    ordered: bool = True
    left_out: dict[str, str] = field(default_factory=dict)
    doubts: "tuple[Doubt, ...]" = ()
    groups: int = 0
    guideline: str = ""
    renewed: str = ""
    again: tuple[str, ...] = ()


# What a person says to a doubt: the column to take; for grades, all of them, lowest first; None: as guessed.
Ask = Callable[["Doubt"], "tuple[str, ...] | None"]


def adopt_guideline(project: "Workspace", path: str | Path) -> "GuidelineImport":
    """Make a guideline the instruction; an older `instruction.md` is kept as `instruction.md.bak`.

    Raises:
        UsageError: no such file, an empty one, or a project that has no task yet.
    """
    if not (project.folder / TASK).exists():
        raise UsageError("A guideline needs a task to belong to.", "Add --from FILE with graded rows.")
    try:
        text = read_text(Path(path))
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist.", "Give a text file in UTF-8.") from None
    return adopt_text(project, text)


def adopt_text(project: "Workspace", text: str) -> "GuidelineImport":
    """As `adopt_guideline`, from the text itself."""
    from piar.instructions.markdown import write
    from piar.offline import import_guideline

    found = import_guideline(text, project.task)
    put(project.folder / INSTRUCTION, write(found.instruction, project.task))
    return found


def import_(
    project: "Workspace",
    paths: Sequence[str | Path] | str | Path,
    mapping: "ImportMapping | None" = None,
    *,
    reading: "Reading | None" = None,
    seed: int = 0,
    label_config: str | Path | None = None,
    ask: Ask | None = None,
) -> Imported:
    """Bring files into the store; without a `task.toml`, propose one from the first file.

    Args:
        paths: one file or several: CSV, TSV, JSON, Parquet, Excel, a dataset folder or a Label Studio export; `-` is
            standard input.
        mapping: which column holds what; the rest is guessed, and the guess is in the answer.
        reading: the files' encoding, sheet or control, where they cannot be told.
        seed: of the splits; groups that have a split keep it, worn holdout groups apart (`piar.evolve.ledger`).
        label_config: of the Label Studio project that the files were exported from; names the fields and the
            control of the grade, and is the task where there is none yet.
        ask: as for `Project.init`.

    Raises:
        UsageError: a named column is missing, or no task can be recognised.
    """
    from piar.evolve.ledger import retire
    from store.importers import ImportMapping, ImportReport, import_table, read
    from store.label_config import load_label_config, task_of
    from store.prepare import as_the_file_says, require
    from store.propose import complete, guess, propose_task, settle
    from store.readers import Reading, source_name

    several = [paths] if isinstance(paths, str | Path) else paths
    sources, said = [Path(path) for path in several], mapping or ImportMapping()
    guessed: Guess | None = None
    reading = reading or Reading()
    config = load_label_config(Path(label_config), reading.control) if label_config else None
    reading = replace(reading, control=config.control) if config else reading
    first, proposed = read(sources[0], reading), not (project.folder / TASK).exists()
    asked, said = said, as_the_file_says(said, first)
    if config:
        task, said = task_of(config, first.frame, said, source_name(sources[0]))
        if proposed:
            adopt(project.folder, task)
    elif proposed:
        said = settle(first.frame, said, ask) if ask else said
        guessed = guess(first.frame, said)
        adopt(project.folder, propose_task(first.frame, said, name=source_name(sources[0]), found=guessed))
    found = complete(first.frame, project.task, said)
    require(first.frame, [found.mapping.fields.get(name, name) for name in project.task.fields])
    renewal = refit(project.folder, project.task)
    if not (project.folder / STORE).exists():
        begin(project.folder, project.task)  # a person wrote task.toml
    report, notes = ImportReport(), list[str]()
    with project.run("import", {"paths": [str(path) for path in sources]}, seed) as run_id:
        for path in sources:
            table = first if path is sources[0] else read(path, reading)
            if path is not sources[0]:
                found = complete(table.frame, project.task, as_the_file_says(asked, table))
            columns = found.mapping
            if table.votes is not None and said.gold is None and not said.annotator:
                # Who annotated is on record: a column beside the texts is not taken for gold unless it is named.
                columns = columns.model_copy(update={"gold": None})
            drawn = None
            if columns.sample_queries:
                table, drawn, note = _drawn(project, table, columns, source_name(path), seed)
                notes.append(note)
            name, splits = source_name(path), project.config.split
            import_table(project.store, table, columns, name, run_id, seed, splits, report, drawn)
            found = replace(found, mapping=columns)
            notes += [f"{path.name}: {note}" for note in table.notes]
            notes += [] if columns.split else _called_after_a_split(path)
        retired = retire(project.store)
    reasons = {role: why for role, why in found.reasons.items() if getattr(found.mapping, role, None)}
    if proposed and (doubt := _of_order(project.task, found.mapping.gold, by_config=config is not None)):
        reasons["grades"] = doubt
    [groups] = project.store.frame("select count(distinct group_key) from samples where split <> 'pool'").row(0)
    return Imported(
        report,
        found.mapping,
        reasons,
        (guessed.unused if guessed else {}) | found.unused,
        proposed=project.task.symbols if proposed else (),
        retired=retired,
        ordered=project.task.ordered,
        groups=groups,
        notes=tuple(notes),
        fields=tuple(found.mapping.fields.get(name, name) for name in project.task.fields),
        left_out=guessed.left_out if guessed else found.left_out,
        doubts=guessed.doubts if guessed and not ask else (),
        renewed=renewal.kept.name if renewal else "",
        guideline=first.guideline,
        again=tuple(set(renewal.files) - set(map(str, sources))) if renewal else (),
    )


def _of_order(task: "Task", gold: str | None, *, by_config: bool) -> str:
    """What to say where nobody but a person can tell whether proposed grades have an order; else ""."""
    from store.propose import classes

    if by_config and not task.ordered:
        return "where the first choice is the best one, take `ordered = false` out of task.toml"
    if not by_config and task.ordered and classes(task, gold):
        return "numbers that are classes have no order: then put `ordered = false` into task.toml"
    return ""


def _called_after_a_split(path: Path) -> list[str]:
    """What to say of `train.csv` beside `test.csv`, whose rows have been dealt to all splits."""
    from store.dataset_folders import splits_beside

    beside = splits_beside(path)
    folder = quote(str(path.parent))
    words = f"{path.name} is called after a split, and its rows were dealt to all; the folder keeps the splits of "
    return [f"{words}{', '.join(beside)}: piar init DIR --from {folder}"] if beside else []


def _drawn(
    project: "Workspace", table: "Table", columns: "ImportMapping", name: str, seed: int
) -> "tuple[Table, pl.DataFrame, str]":
    """The rows of the queries that are drawn, what is known of these, and where that is written."""
    from store.draw import draw_queries
    from store.files import replacing

    group = columns.group or columns.fields.get(project.task.group_by, project.task.group_by)
    found, queries = draw_queries(table, columns.sample_queries, group, columns.weight, seed)
    path = project.folder / f"queries-{re.sub(r'[^A-Za-z0-9_.-]+', '-', columns.source or name)}.csv"
    with replacing(path) as draft:
        queries.write_csv(draft)
    return found, queries, f"{len(queries):,} queries drawn; their weight, inclusion and stratum are in {path.name}"
