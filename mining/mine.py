"""`mine`: signals, difficulty, buckets and the queue, written to the store in one transaction."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import duckdb

from mining.computed import FROM_TEXTS, FROM_VERDICTS, Work, nothing
from mining.difficulty import bucket_sql, calibrate, difficulty_sql, silence
from mining.judged import Columns, Judges, make_judged, rater_accuracy
from mining.neighbours import Embed
from mining.out_of_fold import Stand, stand_in
from mining.select import fill_queue
from mining.settings import MiningSettings
from mining.signals import SIGNALS, Setting, Signal
from store.db import Store, quote
from store.errors import PiarError, UsageError
from store.judges import id_ranges, main_student, main_teacher
from store.types import BUCKETS
from store.user_sql import expression

_TELLING = 50  # rows
_OFF = 0.1  # between what a judge says and how often it is right
ROWS_PER_RANGE = 1_000_000  # samples judged at a time, which bounds memory
_FIX = "Use the columns of `samples` and of mining's judged row."


@dataclass(frozen=True, slots=True)
class Confidence:
    """Whether a judge's probabilities mean what they say.

    Attributes:
        rows: with truth.
        said: the mean probability that it gives its own grade.
        right: the share of rows on which that grade is the truth.
    """

    rows: int
    said: float
    right: float

    @property
    def off(self) -> bool:
        """Whether buckets, which go by the probabilities, stand on sand."""
        return abs(self.said - self.right) > _OFF


@dataclass(frozen=True, slots=True)
class MineReport:
    """What mining found.

    Attributes:
        samples: samples in the store.
        signals: signal -> samples that it says something of.
        buckets: bucket -> samples; samples whose difficulty cannot be told are in none.
        unjudged: how many nobody has judged or labelled.
        untold: how many have no difficulty: the unjudged, and those with one vote, or gold, and nothing beside it.
        difficulty_by: who says how difficult a sample is -> samples.
        queue: reason -> rows.
        teacher, student: the judges that were read, "" for none.
        confidence: the teacher's on rows of train and dev with truth; None without enough of them.
        seconds: by part.
    """

    samples: int
    signals: dict[str, int]
    buckets: dict[str, int]
    unjudged: int
    untold: int
    queue: dict[str, int]
    teacher: str
    student: str
    seconds: dict[str, float]
    difficulty_by: dict[str, int] = field(default_factory=dict)
    confidence: Confidence | None = None


def mine(
    store: Store,
    settings: MiningSettings,
    run_id: str,
    instruction: str,
    *,
    extra: Mapping[str, Signal] | None = None,
    embed: Embed | None = None,
    student: Stand | None = None,
    on_part: Callable[[str], None] = lambda part: None,
) -> MineReport:
    """Compute signals and difficulty of every sample and queue what deserves a look; replaces what mining wrote before.

    Args:
        instruction: id of the instruction whose verdicts are read.
        extra: your own signals, name -> function that returns an SQL expression over `judged` and the sample's fields.
        embed: texts -> vectors, in place of hashed words; e.g. a sentence-transformers model's `encode`.
        student: says how hard a sample is where votes are missing; see `mining.out_of_fold`.
        on_part: told what begins: a signal's name, or another part's, as in `MineReport.seconds`.

    Raises:
        PiarError: nothing was judged or labelled yet.
        UsageError: a signal's expression is wrong, or a quota names no reason.
    """
    _own(settings)  # before hours of work
    clock = _Clock(on_part)
    with store.write() as con:
        con.execute("set memory_limit = ?", [settings.memory])
        clock.begin("judged")
        judges = Judges(
            main_teacher(con, instruction, settings.teacher), main_student(con, settings.student), instruction
        )
        columns = Columns(len(store.task.symbols))
        make_judged(con, store, judges, id_ranges(con, ROWS_PER_RANGE))
        unjudged = _refuse_empty(con)
        clock.begin("out_of_fold")
        stood = stand_in(con, store, columns, student)
        confidence = _confidence(con, columns)
        work = Work(con, store, settings, columns, embed)
        for function in FROM_VERDICTS + FROM_TEXTS:
            clock.begin(function.__name__)
            if settings.texts or function in FROM_VERDICTS:
                function(work)
            else:
                nothing(con, function.__name__)
        clock.begin("signals")
        names = _make_signals(con, columns, settings, extra or {})
        clock.begin("difficulty")
        untold = _make_difficulty(con, columns, settings, judges, names, stood, run_id)
        clock.begin("queue")
        queue = fill_queue(con, store, settings, run_id)
        clock.end()
        counts = con.execute(
            f"select count(*), {', '.join(f'count({quote(n)})' for n in names)} from signals"
        ).fetchone()
        buckets = dict(con.execute("select bucket, count(*) from difficulty group by bucket").fetchall())
        told = "select judge, count(*) as n from difficulty group by judge order by n desc, judge"
        difficulty_by = dict(con.execute(told).fetchall())
    assert counts is not None
    return MineReport(
        samples=counts[0],
        signals=dict(zip(names, counts[1:], strict=True)),
        buckets={bucket: buckets.get(bucket, 0) for bucket in BUCKETS},
        unjudged=unjudged,
        untold=untold,
        queue=queue,
        teacher=judges.teacher,
        student=judges.student,
        seconds=clock.laps,
        difficulty_by=difficulty_by,
        confidence=confidence,
    )


def _confidence(con: duckdb.DuckDBPyConnection, columns: Columns) -> Confidence | None:
    """Test and holdout are left out: their figures are for reports and for the one test."""
    votes = ", ".join(columns("t"))
    [(rows, said, right)] = con.execute(
        f"select count(*), avg(greatest({votes})), avg((list_position([{votes}], greatest({votes})) - 1 = truth)::int) "
        "from judged where t0 is not null and truth is not null and split in ('train', 'dev')"
    ).fetchall()
    return Confidence(rows, said, right) if rows >= _TELLING else None


class _Clock:
    """Seconds of each part, which is told when it begins."""

    def __init__(self, on_part: Callable[[str], None]) -> None:
        self.laps: dict[str, float] = {}
        self._on_part, self._part, self._began = on_part, "", 0.0

    def begin(self, part: str) -> None:
        self.end()
        self._part = part
        self._on_part(part)

    def end(self) -> None:
        now = time.monotonic()
        if self._part:
            self.laps[self._part] = round(now - self._began, 3)
        self._began = now


def _refuse_empty(con: duckdb.DuckDBPyConnection) -> int:
    """How many samples nobody has judged or labelled."""
    row = con.execute(
        "select count(*), count(*) filter (where truth is not null or v0 is not null or h0 is not null) from judged"
    ).fetchone()
    samples, spoken = row or (0, 0)
    if not samples:
        raise PiarError("The store has no samples.", "Import some with `piar import FILE`.")
    if not spoken:
        raise PiarError(
            f"None of the {samples} samples has a label or a verdict.", "Import gold, or run `piar label` first."
        )
    return int(samples - spoken)


def _own(settings: MiningSettings) -> dict[str, str]:
    """The signals of `piar.toml`, checked."""
    return {name: expression(text, f"mining.signals.{name}", _FIX) for name, text in settings.signals.items()}


def _make_signals(
    con: duckdb.DuckDBPyConnection,
    columns: Columns,
    settings: MiningSettings,
    extra: Mapping[str, Signal],
) -> list[str]:
    """Replace the table `signals`: one row for each sample, one column for each signal; returns the names."""
    row = con.execute("select count(rule) from judged").fetchone()
    setting = Setting(columns, rater_accuracy(con, columns), row[0] if row else 0)
    computed = [function.__name__ for function in FROM_VERDICTS + FROM_TEXTS]
    expressions = {name: function(setting) for name, function in {**SIGNALS, **extra}.items()}
    taken = next((name for name in settings.signals if name in expressions or name in computed), None)
    if taken is not None:
        raise UsageError(f"mining.signals.{taken} has the name of a signal that exists.", "Choose another name.")
    expressions |= _own(settings)
    own = bool(extra or settings.signals)
    sample = "join (select * exclude (split) from samples) s using (sample_id)" if own else ""
    joins = "".join(f" left join {name} c{i} using (sample_id)" for i, name in enumerate(computed))
    selected = [f"({text})::double as {quote(name)}" for name, text in expressions.items()]
    selected += [f"c{i}.value::double as {name}" for i, name in enumerate(computed)]
    con.execute("create or replace temp table cited as select rule, count(*) as rule_count from judged group by rule")
    statement = (
        f"create or replace table signals as select judged.sample_id, {', '.join(selected)} "
        f"from judged left join cited using (rule) {sample} {joins}"
    )
    try:
        con.execute(statement)
    except duckdb.Error as error:
        if not own:
            raise
        raise UsageError(f"[mining.signals]: {str(error).splitlines()[0]}", _FIX) from None
    return [*expressions, *computed]


def _make_difficulty(
    con: duckdb.DuckDBPyConnection,
    columns: Columns,
    settings: MiningSettings,
    judges: Judges,
    signals: list[str],
    stood: str,
    run_id: str,
) -> int:
    """Replace the table `difficulty`; returns how many samples have none.

    Args:
        stood: who stood in where votes are missing.
    """
    calibrate(con, columns, signals)
    judge = settings.difficulty or judges.teacher
    student = judge.startswith("student:")
    if student and judge != judges.student:
        raise UsageError(
            f"mining.difficulty names {judge}, but the student read is {judges.student or 'none'}.",
            "Set mining.student to the same judge.",
        )
    con.execute("delete from difficulty")
    con.execute(
        f"insert into difficulty select sample_id, p, {bucket_sql('p', settings.thresholds)}, judge, ? "
        f"from ({difficulty_sql(columns, judge, student=student, stood=stood)})",
        [run_id],
    )
    silence(con)
    row = con.execute("select (select count(*) from judged) - (select count(*) from difficulty)").fetchone()
    return int(row[0]) if row else 0
