"""The Python front door: one project is one folder, and its verbs are methods."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from piar.config import Config
    from piar.doctor import Check
    from piar.export import What
    from store.db import Store
    from store.task import Task

CONFIG = "piar.toml"
TASK = "task.toml"
INSTRUCTION = "instruction.md"
PROPOSAL = "instruction.proposed.md"
STORE = "piar.duckdb"
JOURNAL = "journal"
PROMPTS = "prompts"

_GITIGNORE = f"""# What people edit ({CONFIG}, {TASK}, {INSTRUCTION}) belongs in git; the rest is made from it.
{STORE}*
{JOURNAL}/
report.html
*.bak
"""


class Project:
    """A folder with `piar.toml`, `task.toml`, `instruction.md` and the store.

    Args:
        folder: the project folder.
        config: its resolved configuration.
    """

    def __init__(self, folder: Path, config: "Config") -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def open(cls, folder: str | Path = ".", overrides: Sequence[str] = ()) -> "Project":
        """Open a project folder.

        Args:
            folder: where `piar init` made it.
            overrides: `section.key=value`, stronger than `piar.toml`.

        Raises:
            UsageError: no project there, or a configuration that does not hold.
        """
        from piar.config import load

        return cls(Path(folder), load(Path(folder), overrides))

    @classmethod
    def init(cls, folder: str | Path, *, force: bool = False) -> "Project":
        """Make a project folder.

        Args:
            folder: where; it must be empty or not there.
            force: write into a folder that holds other files; a file that differs is kept as `NAME.bak`.

        Raises:
            UsageError: the folder is not empty.
        """
        from importlib.resources import files

        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not force:
            raise UsageError(
                f"{folder} is not an empty folder.", "Choose another name, or add --force to write into it."
            )
        template = files("piar").joinpath("templates", CONFIG).read_text(encoding="utf-8")
        _put(folder / CONFIG, template)
        _put(folder / ".gitignore", _GITIGNORE)
        return cls.open(folder)

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

    def export(self, what: "What", path: str | Path, *, force: bool = False) -> int:
        """Write labels, verdicts, samples or instructions to a file; see `piar.export.export`."""
        from piar.export import export

        return export(self.store, what, Path(path), force=force)

    def sql(self, statement: str) -> "pl.DataFrame":
        """The result of a read-only SQL statement; see `piar.sql.query`."""
        from piar.sql import query

        return query(self.store, statement)

    def doctor(self) -> "list[Check]":
        """What works here and what does not; see `piar.doctor.diagnose`."""
        from piar.doctor import diagnose

        return diagnose(self.folder)


def _put(path: Path, text: str) -> None:
    """Write a file, keeping a different older one as `NAME.bak`."""
    from store.files import write_text

    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
        path.replace(path.with_name(path.name + ".bak"))
    write_text(path, text)
