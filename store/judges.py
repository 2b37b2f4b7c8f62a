"""Which judge's verdicts to read, and samples in ranges small enough for memory."""

import uuid
from dataclasses import dataclass
from itertools import pairwise

import duckdb

Range = tuple[str, str]
_LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"


def main_teacher(con: duckdb.DuckDBPyConnection, instruction: str, wanted: str = "") -> str:
    """The judge asked for, else the teacher with most verdicts under the instruction, or "" when there is none."""
    if wanted:
        return wanted
    row = con.execute(
        "select judge from verdicts where starts_with(judge, 'teacher:') and instruction = ? "
        "group by judge order by count(*) desc, judge limit 1",
        [instruction],
    ).fetchone()
    return "" if row is None else str(row[0])


def main_student(con: duckdb.DuckDBPyConnection, wanted: str = "") -> str:
    """The judge asked for, else the student whose verdicts are the latest, or "" when there is none."""
    if wanted:
        return wanted
    row = con.execute(
        "select judge from verdicts where starts_with(judge, 'student:') "
        "group by judge order by max(created_at) desc, judge limit 1"
    ).fetchone()
    return "" if row is None else str(row[0])


def verdict_relation(con: duckdb.DuckDBPyConnection, judge: str, instruction: str) -> str:
    """Where to read a judge's verdicts: the table while no question was answered twice, else the view `verdict`.

    The view says which answer counts, by sorting; the table is several times as fast.
    """
    repeated = con.execute(
        "select 1 from verdicts where judge = ? and instruction = ? "
        "group by sample_id, vote having count(*) > 1 limit 1",
        [judge, instruction],
    ).fetchone()
    return "verdict" if repeated else "verdicts"


def id_ranges(con: duckdb.DuckDBPyConnection, rows: int) -> list[Range]:
    """Ranges [low, high) of sample ids holding about `rows` samples each; ids are hashes, so evenly spread."""
    row = con.execute("select count(*) from samples").fetchone()
    n = max(1, -(-(row[0] if row else 0) // rows))
    edges = [str(uuid.UUID(int=(i << 128) // n)) for i in range(n)] + [_LAST]
    return list(pairwise(edges))


@dataclass(frozen=True, slots=True)
class Judge:
    """Whose verdicts: a judge's name, and the instruction it read ("" for one that reads none)."""

    name: str
    instruction: str = ""
