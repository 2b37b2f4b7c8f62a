"""A project's folder, opened: what every verb is given. `piar.project.facade` names the verbs."""

import getpass
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from piar.project.folder import INSTRUCTION, JOURNAL, STORE, TASK
from store.errors import UsageError
from store.files import read_text

if TYPE_CHECKING:
    from piar.llm.base import Client
    from piar.measure.embeddings import Embedder
    from piar.project.config import Config
    from store.db import Store
    from store.journal import Journal
    from store.task import Task
    from store.types import Instruction


class Workspace:
    """A folder with `piar.toml`, `task.toml`, `instruction.md` and the store.

    Args:
        folder: the project folder.
        config: its resolved configuration.
    """

    def __init__(self, folder: Path, config: "Config") -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def open(cls, folder: str | Path = ".", overrides: Sequence[str] = ()) -> "Self":
        """Open a project folder; it stays open when the process goes to another one, as notebooks do.

        Args:
            folder: where `piar init` made it.
            overrides: `section.key=value`, stronger than `piar.toml`.

        Raises:
            UsageError: no project there, or a configuration that does not hold.
        """
        from piar.project.config import load

        return cls(Path(folder).absolute(), load(Path(folder), overrides))

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
        now on; so is an older one that somebody put back into `instruction.md`."""
        from store.wording import mark_overtaken

        found = self.instruction(id)
        if not self.store.knows(found.id):
            with self.run("edit", {"author": found.author}) as run_id, self.store.write():
                self.store.put_instruction(found, run_id)
                mark_overtaken(self.store)
        elif id is None:
            self._return_to(found)
        return found

    def _return_to(self, found: "Instruction") -> None:
        from piar.evolve.ledger import record
        from store.wording import mark_overtaken

        last = self.store.frame("select instruction from in_force order by since desc limit 1")
        if last.height and last.item() != found.id:
            by = whoami(self.folder)
            with self.run("edit", {"author": by}) as run_id, self.store.write():
                record(self.store, "return", found.id, last.item(), "in force", "put back by hand", {}, by, run_id)
                mark_overtaken(self.store)

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
    def journal(self) -> "Iterator[Journal]":
        """The journal, open for appending and folded into the store when it closes."""
        from store.journal import Journal

        journal = Journal(self.folder / JOURNAL)
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
