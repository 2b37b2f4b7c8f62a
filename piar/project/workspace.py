"""A project's folder, opened: its task, configuration, store and instruction. `piar.project.facade` adds the verbs."""

import getpass
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from piar.project.folder import (
    INSTRUCTION,
    JOURNAL,
    PROMPTS,
    SHOP,
    STORE,
    TASK,
    adopt,
    begin,
    making,
    put,
    refit,
    simulate_shop,
)
from store.errors import UsageError
from store.files import read_text

if TYPE_CHECKING:
    from piar.judging.session import Respondent
    from piar.llm.base import Client
    from piar.measure.embeddings import Embedder
    from piar.offline import GuidelineImport
    from piar.project.config import Config
    from store.db import Store
    from store.importers import ImportMapping, ImportReport
    from store.journal import Journal
    from store.propose import Doubt, Guess
    from store.readers import Reading
    from store.task import Task
    from store.types import Instruction


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


class Workspace:
    """A folder with `piar.toml`, `task.toml`, `instruction.md` and the store.

    Args:
        folder: the project folder.
        config: its resolved configuration.

    Attributes:
        imported: what `init` imported, if anything.
        guideline: how `init` read a guideline, if there was one.
    """

    def __init__(self, folder: Path, config: "Config") -> None:
        self.folder = folder
        self.config = config
        self.imported: Imported | None = None
        self.guideline: GuidelineImport | None = None

    # -- making and opening -----------------------------------------------------------------

    @classmethod
    def open(cls, folder: str | Path = ".", overrides: Sequence[str] = ()) -> "Self":
        """Open a project folder.

        Args:
            folder: where `piar init` made it.
            overrides: `section.key=value`, stronger than `piar.toml`.

        Raises:
            UsageError: no project there, or a configuration that does not hold.
        """
        from piar.project.config import load

        return cls(Path(folder), load(Path(folder), overrides))

    @classmethod
    def init(
        cls,
        folder: str | Path,
        *,
        from_: str | Path | None = None,
        example: Literal["shop"] | None = None,
        pairs: int = 3000,
        guideline: str | Path | None = None,
        label_config: str | Path | None = None,
        mapping: "ImportMapping | None" = None,
        reading: "Reading | None" = None,
        seed: int = 0,
        force: bool = False,
        ask: Ask | None = None,
    ) -> "Self":
        """Make a project folder.

        Args:
            folder: where; it must be empty or not there.
            from_: a file of samples and labels: proposes the task from it and imports it.
            example: `shop` simulates a product-search world of `pairs` pairs and imports it.
            guideline: a Markdown text in any layout; becomes `instruction.md`.
            label_config: that file is a Label Studio export, and this the label configuration of its project, which
                becomes the task.
            mapping: which column of that file holds what; the rest is guessed.
            reading: its encoding, sheet or control, where they cannot be told.
            seed: of the simulation and of the splits.
            force: write into a folder that holds other files. A file that would change is kept as `NAME.bak`,
                and a store is never replaced: what is imported is added to it.
            ask: a person to ask where a guess is doubtful; None: the guess stands, and is in the answer.

        Raises:
            UsageError: the folder is not empty, or the file cannot be understood.
        """
        with making(Path(folder), force=force):
            project = cls.open(folder)
            if example is not None:
                columns = simulate_shop(project.folder, pairs, seed)
                project.imported = project.import_([project.folder / SHOP], columns, seed=seed)
            if from_ is not None:
                project.imported = project.import_(
                    [from_], mapping, reading=reading, seed=seed, label_config=label_config, ask=ask
                )
            if guideline is not None:
                project.guideline = project.adopt_guideline(guideline)
            elif project.imported and project.imported.guideline.strip():
                project.guideline = project.adopt_text(project.imported.guideline)
        return project

    def adopt_guideline(self, path: str | Path) -> "GuidelineImport":
        """Make a guideline the instruction; an older `instruction.md` is kept as `instruction.md.bak`.

        Raises:
            UsageError: no such file, an empty one, or a project that has no task yet.
        """
        if not (self.folder / TASK).exists():
            raise UsageError("A guideline needs a task to belong to.", "Add --from FILE with graded rows.")
        try:
            text = read_text(Path(path))
        except FileNotFoundError:
            raise UsageError(f"{path} does not exist.", "Give a text file in UTF-8.") from None
        return self.adopt_text(text)

    def adopt_text(self, text: str) -> "GuidelineImport":
        """As `adopt_guideline`, from the text itself."""
        from piar.instructions.markdown import write
        from piar.offline import import_guideline

        found = import_guideline(text, self.task)
        put(self.folder / INSTRUCTION, write(found.instruction, self.task))
        return found

    def import_(
        self,
        paths: Sequence[str | Path],
        mapping: "ImportMapping | None" = None,
        *,
        reading: "Reading | None" = None,
        seed: int = 0,
        label_config: str | Path | None = None,
        ask: Ask | None = None,
    ) -> Imported:
        """Bring files into the store; without a `task.toml`, propose one from the first file.

        Args:
            paths: CSV, TSV, JSON, Parquet, Excel, a dataset folder or a Label Studio export; `-` is standard input.
            mapping: which column holds what; the rest is guessed, and the guess is in the answer.
            reading: the files' encoding, sheet or control, where they cannot be told.
            seed: of the splits; groups that have a split keep it, worn holdout groups apart (`piar.evolve.ledger`).
            label_config: of the Label Studio project that the files were exported from; names the fields and the
                control of the grade, and is the task where there is none yet.
            ask: as for `init`.

        Raises:
            UsageError: a named column is missing, or no task can be recognised.
        """
        from piar.evolve.ledger import retire
        from store.importers import ImportMapping, ImportReport, import_table, read
        from store.label_config import load_label_config, task_of
        from store.prepare import as_the_file_says, require
        from store.propose import complete, guess, propose_task, settle
        from store.readers import Reading, source_name

        sources, said = [Path(path) for path in paths], mapping or ImportMapping()
        guessed: Guess | None = None
        reading = reading or Reading()
        config = load_label_config(Path(label_config), reading.control) if label_config else None
        reading = replace(reading, control=config.control) if config else reading
        first, proposed = read(sources[0], reading), not (self.folder / TASK).exists()
        asked, said = said, as_the_file_says(said, first)
        if config:
            task, said = task_of(config, first.frame, said, source_name(sources[0]))
            if proposed:
                adopt(self.folder, task)
        elif proposed:
            said = settle(first.frame, said, ask) if ask else said
            guessed = guess(first.frame, said)
            adopt(self.folder, propose_task(first.frame, said, name=source_name(sources[0]), found=guessed))
        found = complete(first.frame, self.task, said)
        require(first.frame, [found.mapping.fields.get(name, name) for name in self.task.fields])
        renewal = refit(self.folder, self.task)
        if not (self.folder / STORE).exists():
            begin(self.folder, self.task)  # a person wrote task.toml
        report, notes = ImportReport(), list[str]()
        with self.run("import", {"paths": [str(path) for path in sources]}, seed) as run_id:
            for path in sources:
                table = first if path is sources[0] else read(path, reading)
                if path is not sources[0]:
                    found = complete(table.frame, self.task, as_the_file_says(asked, table))
                columns = found.mapping
                if table.votes is not None and said.gold is None and not said.annotator:
                    # Who annotated is on record: a column beside the texts is not taken for gold unless it is named.
                    columns = columns.model_copy(update={"gold": None})
                import_table(self.store, table, columns, source_name(path), run_id, seed, self.config.split, report)
                found = replace(found, mapping=columns)
                notes += [f"{path.name}: {note}" for note in table.notes]
            retired = retire(self.store)
        reasons = {role: why for role, why in found.reasons.items() if getattr(found.mapping, role, None)}
        if config and proposed and not config.ordered:
            reasons["grades"] = "where the first choice is the best one, take `ordered = false` out of task.toml"
        [groups] = self.store.frame("select count(distinct group_key) from samples where split <> 'pool'").row(0)
        return Imported(
            report,
            found.mapping,
            reasons,
            (guessed.unused if guessed else {}) | found.unused,
            proposed=self.task.symbols if proposed else (),
            retired=retired,
            ordered=self.task.ordered,
            groups=groups,
            notes=tuple(notes),
            fields=tuple(found.mapping.fields.get(name, name) for name in self.task.fields),
            left_out=guessed.left_out if guessed else found.left_out,
            doubts=guessed.doubts if guessed and not ask else (),
            renewed=renewal.kept.name if renewal else "",
            guideline=first.guideline,
            again=tuple(set(renewal.files) - set(map(str, sources))) if renewal else (),
        )

    # -- what it holds ----------------------------------------------------------------------

    @cached_property
    def task(self) -> "Task":
        """What is judged, from `task.toml`."""
        from store.task import load_task

        return load_task(self.folder / TASK)

    @cached_property
    def store(self) -> "Store":
        """The project's DuckDB store."""
        from store.db import Store

        return Store.open(self.folder / STORE, self.task)

    @cached_property
    def encoder(self) -> "Embedder | None":
        """The frozen encoder of `[baselines]`, None where none is named."""
        from piar.measure.embeddings import embedder

        return embedder(self.config.baselines, self.folder)

    def instruction(self, id: str | None = None) -> "Instruction":
        """What `instruction.md` says now, or a known version by the beginning of its id. Nothing is written.

        The author of a text that the store does not know is the person at work, except for the first one, the seed.

        Raises:
            UsageError: no such file.
            PiarError: no such version.
        """
        from piar.instructions.markdown import parse

        if id:
            return self.store.instruction(id)
        path = self.folder / INSTRUCTION
        try:
            written = parse(read_text(path), self.task)
        except FileNotFoundError:
            raise UsageError(f"{path} is missing.", "`piar show instruction` lists older versions.") from None
        if self.store.knows(written.id):
            return self.store.instruction(written.id)
        before = self.store.frame("select instruction from in_force order by since desc limit 1")
        if not before.height:
            return replace(written, author="seed")
        return replace(written, author=whoami(self.folder), parent=before.item())

    def adopt_instruction(self, id: str | None = None) -> "Instruction":
        """The same for who asks or decides under it: a text that the store does not know is kept, and in force from
        now on."""
        found = self.instruction(id)
        if not self.store.knows(found.id):
            with self.run("edit", {"author": found.author}) as run_id:
                self.store.put_instruction(found, run_id)
        return found

    def client(self, role: Literal["teacher", "reviser"]) -> "Client":
        """The model of a role, as `piar.toml` names it.

        Raises:
            UsageError: `[privacy]` does not let it see the samples.
            PiarError: a package or a key is missing.
        """
        from piar.connect import connect
        from piar.llm.privacy import disclosure

        settings = getattr(self.config, role)
        disclosure(self.task, settings, self.config.privacy)
        return connect(settings)

    def respondent(self, role: Literal["teacher", "reviser"], client: "Client | None" = None) -> "Respondent":
        """The model of a role, and how this project asks it; raises as `client`.

        Args:
            client: stands in for the model.
        """
        from piar.judging.session import Respondent

        return Respondent(
            client or self.client(role), getattr(self.config, role), self.config.label, self.folder / PROMPTS
        )

    @contextmanager
    def run(
        self, verb: str, config: dict[str, Any], seed: int = 0, detail: dict[str, Any] | None = None
    ) -> Iterator[str]:
        """One command's life in the store: begun, then done, failed or interrupted, with what it cost.

        Args:
            detail: what the command found, filled in while it lives and kept with its end.
        """
        from piar.judging.forecast import receipt

        run_id, status = self.store.start_run(verb, config, seed), "failed"
        try:
            yield run_id
            status = "done"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            self.store.finish_run(run_id, status, receipt(self.store, run_id).cost_usd, detail)

    @contextmanager
    def journal(self, *, looking: bool = False) -> "Iterator[Journal]":
        """The journal, open for appending and folded into the store when it closes; or, to look, left as it is."""
        from store.journal import Journal

        journal = Journal(self.folder / JOURNAL, looking=looking)
        try:
            yield journal
        finally:
            journal.fold(self.store)
            journal.close()


def whoami(folder: Path) -> str:
    """The person at work: git's user name, else the login name."""
    with suppress(OSError):
        git = subprocess.run(["git", "config", "user.name"], cwd=folder, capture_output=True, text=True)
        if name := git.stdout.strip():
            return name
    return getpass.getuser()
