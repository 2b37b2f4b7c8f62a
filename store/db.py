"""The sample store: one DuckDB file, held only as long as one read or one write takes.

DuckDB locks the file for one process. `read()` and `write()` open it, wait their turn when
another process holds it, and close it again; nested uses share one connection.
"""

import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import duckdb
import polars as pl
import pyarrow as pa

from store.errors import PiarError, UsageError
from store.ids import short_hash
from store.migrations import create_tables, latest, migrate
from store.rows import LABELS, VERDICTS, label_row, table, verdict_row
from store.samples import Samples
from store.task import Task
from store.types import Example, Instruction, Label, Part, Rule, Sample, Split, Verdict
from store.version import version

WAIT_SECONDS = 30.0
_HOLDER = re.compile(r"PID (\d+)")
# Nothing is fetched from the network; no progress bar enters what a script reads from stdout.
_SETTINGS = """set autoinstall_known_extensions = false;
set autoload_known_extensions = false;
set enable_progress_bar = false"""
# What a full disk, a damaged file or too little memory look like.
_DAMAGE = ("Corrupt database", "not a valid DuckDB database", "enough bytes", "checksum", "Failed to deserialize")
_BUSY = ("could not set lock", "different configuration", "unique file handle conflict")
# All connections of a process to one file share a database, in which two writers do not see each other: the Store
# objects of a file take turns, as those of two processes do by the file's own lock.
_TURNS: WeakValueDictionary[str, "threading.RLock"] = WeakValueDictionary()
_NAMING_A_TURN = threading.Lock()
_WRAPPED = re.compile(r'"exception_message":("(?:[^"\\]|\\.)*")')
_FAILURES = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.FatalException, duckdb.SerializationException)


def now() -> datetime:
    """UTC without a zone, as the store's timestamps are."""
    return datetime.now(UTC).replace(tzinfo=None)


def quote(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _meta(con: duckdb.DuckDBPyConnection, key: str) -> str | None:
    # Asked of the catalog first: a failed query would abort the transaction around it.
    if not con.execute("select 1 from information_schema.tables where table_name = 'meta'").fetchall():
        return None
    rows = con.execute("select value from meta where key = ?", [key]).fetchall()
    return str(rows[0][0]) if rows else None


def _is_busy(error: duckdb.Error) -> bool:
    """Another process holds the file's lock, or another Store of this process has it open in the other mode, or opens
    or closes it this moment."""
    return any(words in str(error).lower() for words in _BUSY)


def _is_damage(error: duckdb.Error) -> bool:
    return any(words in str(error) for words in _DAMAGE)


def first_line(error: BaseException) -> str:
    """The first line of an error; of one that DuckDB wraps in another's JSON, the words within."""
    line = str(error).split("\n", 1)[0]
    wrapped = _WRAPPED.search(line)
    return str(json.loads(wrapped[1], strict=False)) if wrapped else line


class Store:
    """The samples, labels, verdicts and history of one project.

    Args:
        path: the DuckDB file.
        task: what is judged; its fields are columns of `samples`.
        wait: seconds to wait for another process that holds the file.
    """

    def __init__(self, path: Path, task: Task, *, wait: float = WAIT_SECONDS) -> None:
        self.path = path
        self.task = task
        self.wait = wait
        with _NAMING_A_TURN:
            self._lock = _TURNS.setdefault(os.path.realpath(path), threading.RLock())
        self._holder: int | None = None
        self._con: duckdb.DuckDBPyConnection | None = None
        self._depth = 0
        self._writable = False

    @classmethod
    def create(cls, path: Path, task: Task) -> "Store":
        """Make the file with its schema; opening an existing one is not an error."""
        whole = str(path.absolute())
        if "?" in whole or (os.sep == "/" and "\\" in whole):  # DuckDB takes both for something else
            raise UsageError(f"A store cannot lie in a folder with ? or \\ in its name: {whole}", "Rename the folder.")
        store = cls(path, task)
        with store.write() as con:
            if _meta(con, "schema") is None:
                create_tables(con)
                for field in task.fields:
                    con.execute(f"alter table samples add column {quote(field)} varchar")
                con.executemany("insert into grades values (?, ?)", [(g, i) for i, g in enumerate(task.symbols)])
                con.executemany(
                    "insert into meta values (?, ?)",
                    [("schema", "1"), ("task", task.model_dump_json()), ("task_hash", task.hash)],
                )
                migrate(con, 1)
        store._bring_up_to_date()
        return store

    @classmethod
    def open(cls, path: Path, task: Task) -> "Store":
        """Open an existing store, migrating it when it was made by an older version.

        Raises:
            PiarError: no such file, not a store, made by a newer version, or fields changed.
        """
        if not path.exists():
            raise PiarError(f"There is no store at {path.name}.", "Make a project with `piar init DIR`.")
        store = cls(path, task)
        store._bring_up_to_date()
        return store

    def _bring_up_to_date(self) -> None:
        from store.wording import mark_overtaken

        with self.read() as con:
            version = int(_meta(con, "schema") or 0)
            if version == latest():
                self._check_task(con)
                return
        if not version:
            raise PiarError(
                f"{self.path.name} is not a piar store.", "Point -C at a project folder made by `piar init`."
            )
        if version > latest():
            raise PiarError(
                f"{self.path.name} was made by a newer piar (schema {version}, this one knows {latest()}).",
                "Upgrade piar.",
            )
        with self.write() as con:
            self._check_task(con)
            migrate(con, int(_meta(con, "schema") or 0))
            mark_overtaken(self)

    # -- connections ------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for queries; inside `write()` it is the same connection."""
        with self._lock, self._connection(writable=False) as con:
            try:
                yield con
            except duckdb.Error as error:
                if _is_damage(error) or (isinstance(error, _FAILURES) and str(self.path) in str(error)):
                    raise self._unusable(error) from error
                if isinstance(error, _FAILURES):
                    raise PiarError(
                        first_line(error), "Free some space or memory, then run the same command again."
                    ) from error
                raise

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection inside one transaction: commits on leaving, rolls back on an exception."""
        with self._lock:
            if self._depth and not self._writable:
                raise RuntimeError("write() inside read(): open write() first")
            outermost = self._depth == 0
            with self._connection(writable=True) as con:
                if not outermost:
                    yield con
                    return
                con.execute("begin")
                try:
                    yield con
                    con.execute("commit")
                except BaseException as error:
                    with suppress(duckdb.Error):  # after some failures nothing is left to roll back
                        con.execute("rollback")
                    if isinstance(error, duckdb.Error) and _is_damage(error):
                        raise self._unusable(error) from error
                    if isinstance(error, _FAILURES) or "Failed to commit" in str(error):
                        raise PiarError(
                            f"{self.path.name} could not be written: {first_line(error)}",
                            "Free some space or memory, then run the same command again: nothing was changed.",
                        ) from error
                    raise

    @property
    def held(self) -> bool:
        """Whether a `read()` or `write()` of this object is open in this thread."""
        return self._holder == threading.get_ident()

    def insert(self, name: str, rows: pa.Table) -> None:
        """Append rows to a table of the schema, matching columns by name; texts are cast to UUID."""
        if not rows.num_rows:
            return
        with self.write() as con:
            con.register("incoming", rows)
            con.execute(f"insert into {quote(name)} by name select * from incoming")
            con.unregister("incoming")

    @contextmanager
    def _connection(self, *, writable: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        if self._con is None:
            self._con, self._writable = self._open(writable), writable
        self._depth += 1
        self._holder = threading.get_ident()
        try:
            yield self._con
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._con.close()
                self._con = self._holder = None

    def _open(self, writable: bool) -> duckdb.DuckDBPyConnection:
        if self.path.exists() and not self.path.is_file():  # a pipe would wait for ever
            raise PiarError(f"{self.path} is no file.", "Move it away, and put a copy of the store in its place.")
        path = str(self.path.absolute())  # a relative one such as `md:x` would name another kind of database
        deadline = time.monotonic() + self.wait
        delay = 0.01
        while True:
            try:
                con = duckdb.connect(path, read_only=not writable)
                con.execute(_SETTINGS)
                return con
            except duckdb.Error as error:
                if not _is_busy(error):
                    raise self._unusable(error) from None
                if time.monotonic() > deadline:
                    found = _HOLDER.search(str(error))
                    holder = f"process {found[1]}" if found else "another part of this process"
                    raise PiarError(
                        f"{self.path.name} is held by {holder}; waited {self.wait:.0f} s.",
                        "Let it finish or stop it, then run the same command again.",
                    ) from None
            time.sleep(delay)
            delay = min(delay * 1.5, 0.25)

    def _unusable(self, error: duckdb.Error) -> PiarError:
        if _is_damage(error) or not isinstance(error, duckdb.IOException):
            return PiarError(
                f"{self.path.name} is damaged, or no DuckDB file.",
                "Put a copy back in its place; or move it away, run `piar init --force` and import again: "
                "answers still in `journal/` are folded into the new store.",
            )
        return PiarError(
            f"{self.path.name} cannot be opened: {first_line(error)}",
            "Check that the folder exists, that you may write to it, and that the disk has space.",
        )

    # -- identity ---------------------------------------------------------------------------

    def _check_task(self, con: duckdb.DuckDBPyConnection) -> None:
        known = Task.model_validate_json(_meta(con, "task") or "{}")
        if known.fields != self.task.fields or known.symbols != self.task.symbols:
            raise PiarError(
                "task.toml names other fields or grades than the store was made with "
                f"({', '.join(known.fields)}; {', '.join(known.symbols)}).",
                "Undo the edit. As long as nothing was judged, `piar import FILE` makes the store anew from the file.",
            )

    # -- runs -------------------------------------------------------------------------------

    def start_run(self, verb: str, config: dict[str, Any], seed: int = 0) -> str:
        """Record that a command began, with its resolved configuration; returns the run's id."""
        started = now()
        run_id = f"{verb}-{started:%Y%m%d-%H%M%S}-{short_hash([verb, config, seed, str(started)], 4)}"
        with self.write() as con:
            con.execute(
                "insert into runs values (?, ?, ?, ?, ?, ?)",
                [run_id, verb, json.dumps(config), version(), seed, started],
            )
        return run_id

    def finish_run(self, run_id: str, status: str, cost_usd: float = 0.0, detail: dict[str, Any] | None = None) -> None:
        """Record how a run ended: `done`, `failed` or `interrupted`."""
        with self.write() as con:
            con.execute(
                "insert into run_events values (?, ?, ?, ?, ?)",
                [run_id, status, cost_usd, json.dumps(detail or {}), now()],
            )

    # -- instructions -----------------------------------------------------------------------

    def put_instruction(self, instruction: Instruction, run_id: str) -> str:
        """Keep an instruction; a known one is left as it is. Returns its id."""
        with self.write() as con:
            con.execute(
                "insert into instructions select ?, ?, ?, ?, ?, ?, ? "
                "where not exists (select 1 from instructions where instruction_id = ?)",
                [
                    instruction.id,
                    instruction.parent,
                    instruction.author,
                    instruction.note,
                    json.dumps(instruction_to_json(instruction), ensure_ascii=False),
                    run_id,
                    now(),
                    instruction.id,
                ],
            )
        return instruction.id

    def knows(self, instruction: str) -> bool:
        """Whether an instruction of this id is kept."""
        return self.frame("select 1 from instructions where instruction_id = ?", [instruction]).height > 0

    def instruction(self, prefix: str) -> Instruction:
        """The instruction whose id starts with `prefix`.

        Raises:
            PiarError: none or several match.
        """
        with self.read() as con:
            rows = con.execute(
                "select parent, author, note, body from instructions where starts_with(instruction_id, ?)", [prefix]
            ).fetchall()
        if len(rows) != 1:
            raise PiarError(
                f"{len(rows) or 'No'} instructions match {prefix!r}.", "`piar show instruction` lists them."
            )
        parent, author, note, body = rows[0]
        return instruction_from_json(json.loads(body), parent=parent, author=author, note=note)

    # -- verdicts ---------------------------------------------------------------------------

    def record_verdicts(self, verdicts: Iterable[Verdict], run_id: str) -> int:
        """Keep verdicts of judges that have no completions (baselines, students). Returns how many."""
        steps, at = [step.name for step in self.task.steps], now()
        rows = table((verdict_row(v, steps, run_id, at) for v in verdicts), VERDICTS)
        self.insert("verdicts", rows)
        return int(rows.num_rows)

    # -- labels -----------------------------------------------------------------------------

    def moment(self) -> datetime:
        """Now; but where the clock has gone back, just after the latest label: a correction is never the older one."""
        with self.read() as con:
            [(latest,)] = con.execute("select max(created_at) from labels").fetchall()
        return now() if latest is None else max(now(), latest + timedelta(microseconds=1))

    def add_labels(self, labels: Iterable[Label], run_id: str) -> int:
        """Keep labels; one that says what its annotator's current label says, or is known by its date, is left out.

        Nothing is overwritten: a changed label is a new row, and the view `label` shows the latest. A label is dated
        by its own `at`, else by `moment`. Returns how many are new.
        """
        with self.write() as con:
            at = self.moment()
            rows = table((label_row(label, run_id, at) for label in dict.fromkeys(labels)), LABELS)
            con.register("incoming", rows)
            added = con.execute(
                """insert into labels by name select * from incoming i
                where label_id::uuid not in (select label_id from label) and not exists (
                    select 1 from labels l where l.label_id = i.label_id::uuid and l.created_at = i.created_at)"""
            ).fetchall()[0][0]
            con.unregister("incoming")
        return int(added)

    # -- samples ----------------------------------------------------------------------------

    def frame(self, query: str, params: Sequence[object] = ()) -> pl.DataFrame:
        """The result of a query as a Polars frame; UUIDs as text."""
        with self.read() as con:
            relation = con.sql(query, params=list(params)) if params else con.sql(query)
            columns = ", ".join(
                f"{quote(n)}::varchar as {quote(n)}" if str(t) == "UUID" else quote(n)
                for n, t in zip(relation.columns, relation.types, strict=True)
            )
            frame: pl.DataFrame = relation.project(columns).pl()
            return frame

    def tables(self) -> frozenset[str]:
        """Names of the store's tables and views."""
        with self.read() as con:
            rows = con.execute(
                "select table_name from information_schema.tables where table_schema = 'main'"
            ).fetchall()
        return frozenset(name for (name,) in rows)

    def samples(
        self, split: Split | None = None, where: str = "true", *, ids: Collection[str] | None = None
    ) -> list[Sample]:
        """Samples in a stable order (by id).

        Args:
            where: trusted SQL over the columns of `samples`.
            ids: only these samples.
        """
        return list(self.sample_table(f"({where}) and split = '{split}'" if split else where, ids=ids))

    def sample_table(self, where: str = "true", *, ids: Collection[str] | None = None) -> Samples:
        """The same, made one by one as they are used: for millions."""
        among = "" if ids is None else "and sample_id in (select unnest(?::uuid[]))"
        query = f"select * from samples where ({where}) {among} order by sample_id"
        return Samples(self.frame(query, [] if ids is None else [list(ids)]), self.task.fields)


def instruction_to_json(instruction: Instruction) -> dict[str, Any]:
    """The part of an instruction that a judge reads, as JSON."""
    return {
        "preamble": instruction.preamble,
        "meanings": dict(instruction.meanings),
        "rules": [
            {"id": r.id, "text": r.text, "grade": r.grade, **({"parts": r.parts} if r.parts else {})}
            for r in instruction.rules
        ],
        "examples": [{"fields": dict(e.fields), "grade": e.grade, "rule": e.rule} for e in instruction.examples],
    }


def instruction_from_json(
    body: dict[str, Any], *, parent: str | None = None, author: str = "seed", note: str = ""
) -> Instruction:
    """Inverse of `instruction_to_json`, with lineage."""
    return Instruction(
        preamble=body["preamble"],
        meanings=body["meanings"],
        parent=parent,
        author=author,
        note=note,
        rules=tuple(Rule(**rule | {"parts": tuple(Part(*p) for p in rule.get("parts", ()))}) for rule in body["rules"]),
        examples=tuple(Example(**example) for example in body["examples"]),
    )
