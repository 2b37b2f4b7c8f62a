"""The sample store: one DuckDB file, held only as long as one read or one write takes.

DuckDB locks the file for one process. `read()` and `write()` open it, wait their turn when
another process holds it, and close it again; nested uses share one connection.
"""

import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from store.errors import PiarError
from store.ids import short_hash
from store.migrations import LATEST, migrate
from store.rows import VERDICTS, table, verdict_row
from store.task import Task
from store.types import Example, Instruction, Rule, Sample, Split, Verdict
from store.version import version

WAIT_SECONDS = 30.0
_HOLDER = re.compile(r"PID (\d+)")


def now() -> datetime:
    """UTC without a zone, as the store's timestamps are."""
    return datetime.now(UTC).replace(tzinfo=None)


def quote(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


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
        self._lock = threading.RLock()
        self._con: duckdb.DuckDBPyConnection | None = None
        self._depth = 0
        self._writable = False

    @classmethod
    def create(cls, path: Path, task: Task) -> "Store":
        """Make the file with its schema; opening an existing one is not an error."""
        store = cls(path, task)
        with store.write() as con:
            if store._meta(con, "schema") is not None:
                store._check_task(con)
                return store
            con.execute(files("store").joinpath("schema.sql").read_text(encoding="utf-8"))
            for field in task.fields:
                con.execute(f"alter table samples add column {quote(field)} varchar")
            con.executemany(
                "insert into meta values (?, ?)",
                [("schema", str(LATEST)), ("task", task.model_dump_json()), ("task_hash", task.hash)],
            )
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
        with store.read() as con:
            version = store._meta(con, "schema")
        if version is None:
            raise PiarError(f"{path.name} is not a piar store.", "Point -C at a project folder made by `piar init`.")
        if int(version) < LATEST:
            with store.write() as con:
                migrate(con, int(version))
        elif int(version) > LATEST:
            raise PiarError(
                f"{path.name} was made by a newer piar (schema {version}, this one knows {LATEST}).", "Upgrade piar."
            )
        with store.read() as con:
            store._check_task(con)
        return store

    # -- connections ------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for queries; inside `write()` it is the same connection."""
        with self._lock, self._connection(writable=False) as con:
            yield con

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
                except BaseException:
                    con.execute("rollback")
                    raise
                con.execute("commit")

    @property
    def held(self) -> bool:
        """Whether a `read()` or `write()` of this object is open."""
        return self._depth > 0

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
        try:
            yield self._con
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._con.close()
                self._con = None

    def _open(self, writable: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self.wait
        delay = 0.01
        while True:
            try:
                con = duckdb.connect(str(self.path), read_only=not writable)
                con.execute("set autoinstall_known_extensions = false; set autoload_known_extensions = false")
                return con
            except duckdb.IOException as error:
                if "lock" not in str(error).lower():
                    raise PiarError(
                        f"{self.path.name} cannot be opened: {error}",
                        "Check the disk and the file's permissions; restore it from a copy if it is damaged.",
                    ) from None
                if time.monotonic() > deadline:
                    found = _HOLDER.search(str(error))
                    holder = f"process {found[1]}" if found else "another process"
                    raise PiarError(
                        f"{self.path.name} is held by {holder}; waited {self.wait:.0f} s.",
                        "Let it finish or stop it, then run the same command again.",
                    ) from None
                time.sleep(delay)
                delay = min(delay * 1.5, 0.25)

    # -- identity ---------------------------------------------------------------------------

    @staticmethod
    def _meta(con: duckdb.DuckDBPyConnection, key: str) -> str | None:
        # Asked of the catalog first: a failed query would abort the transaction around it.
        if con.execute("select 1 from information_schema.tables where table_name = 'meta'").fetchone() is None:
            return None
        row = con.execute("select value from meta where key = ?", [key]).fetchone()
        return None if row is None else str(row[0])

    def _check_task(self, con: duckdb.DuckDBPyConnection) -> None:
        known = Task.model_validate_json(self._meta(con, "task") or "{}")
        if known.fields != self.task.fields or known.symbols != self.task.symbols:
            raise PiarError(
                "task.toml names other fields or grades than the store was made with "
                f"({', '.join(known.fields)}; {', '.join(known.symbols)}).",
                "Undo the edit, or make a new project with `piar init` and import again.",
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

    def record_verdict_table(self, verdicts: pa.Table | pl.DataFrame, run_id: str) -> int:
        """Keep verdicts that come as a frame: columns of `verdicts` by name, of which `sample_id`, `judge` and
        `grade` must be there; `key`, `instruction`, `vote` default to "", "" and 0. Returns how many."""
        rows = verdicts.to_arrow() if isinstance(verdicts, pl.DataFrame) else verdicts
        defaults = {"key": "", "instruction": "", "vote": 0}
        missing = {name: value for name, value in defaults.items() if name not in rows.column_names}
        for name, value in {**missing, "run_id": run_id, "created_at": now()}.items():
            rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
        self.insert("verdicts", rows)
        return int(rows.num_rows)

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

    def samples(self, split: Split | None = None, where: str = "true") -> list[Sample]:
        """Samples in a stable order (by id); `where` is trusted SQL over the columns of `samples`."""
        condition = f"({where})" + (" and split = ?" if split else "")
        rows = self.frame(f"select * from samples where {condition} order by sample_id", [split] if split else [])
        return [
            Sample(r["sample_id"], r["group_key"], {f: r[f] or "" for f in self.task.fields}, r["split"])
            for r in rows.iter_rows(named=True)
        ]


def instruction_to_json(instruction: Instruction) -> dict[str, Any]:
    """The part of an instruction that a judge reads, as JSON."""
    return {
        "preamble": instruction.preamble,
        "meanings": dict(instruction.meanings),
        "rules": [{"id": r.id, "text": r.text, "grade": r.grade} for r in instruction.rules],
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
        rules=tuple(Rule(**rule) for rule in body["rules"]),
        examples=tuple(Example(**example) for example in body["examples"]),
    )
