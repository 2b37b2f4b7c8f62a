"""Which cells are thin, and the samples that drafts start from; both by SQL over the store."""

from dataclasses import replace

import duckdb

from store.db import Store, quote
from store.errors import UsageError
from store.types import Instruction
from store.user_sql import subquery
from synth.drafts import Parent, Target
from synth.settings import SynthSettings

_CITED = """
create or replace temp table cited as
select v.sample_id, v.grade, v.rules[1] as rule, v.evidence, coalesce(d.bucket, 'mid') as bucket
from verdict v join samples s using (sample_id) left join difficulty d using (sample_id)
left join truth t using (sample_id)
where v.judge = $judge and v.instruction = $instruction and v.vote = 0 and s.split in ('train', 'pool')
    and v.grade is not null and len(v.rules) = 1 and coalesce(t.grade = v.grade, true)
"""
_BY_GRADE = """
create or replace temp table cited as
select s.sample_id, coalesce(t.grade, v.grade) as grade, '' as rule, v.evidence, coalesce(d.bucket, 'mid') as bucket
from samples s left join truth t using (sample_id) left join difficulty d using (sample_id)
left join (from verdict where judge = $judge and instruction = $instruction and vote = 0) v using (sample_id)
where s.split in ('train', 'pool') and coalesce(t.grade, v.grade) is not null and coalesce(t.grade = v.grade, true)
"""
_THIN = """
select r.rule, r.grade, b.bucket, count(c.sample_id) as have from
    (select unnest($rules) as rule, unnest($grades) as grade) r cross join (select unnest($buckets) as bucket) b
    left join cited c on c.rule = r.rule and c.grade = r.grade and c.bucket = b.bucket
group by r.rule, r.grade, b.bucket
"""


def make_cited(con: duckdb.DuckDBPyConnection, judge: str, instruction: str, *, simulated: bool = True) -> bool:
    """Fill the temporary table `cited`: open samples whose one cited rule decided, and not against the truth.

    A model may cite no rule: one of this process that writes no traces, a decision model, any under an instruction
    without rules. Then all open samples whose grade is known are in it, with "" as their rule.

    Args:
        simulated: the judge is the offline teacher, which always cites.

    Returns:
        whether cells are of grades alone.
    """
    values = {"judge": judge, "instruction": instruction}
    cites = "select 1 from verdicts where judge = $judge and instruction = $instruction and len(rules) > 0 limit 1"
    by_grade = not simulated and con.execute(cites, values).fetchone() is None
    con.execute(_BY_GRADE if by_grade else _CITED, values)
    return by_grade


def find_targets(
    con: duckdb.DuckDBPyConnection,
    instruction: Instruction,
    settings: SynthSettings,
    sql: str | None = None,
    *,
    by_grade: bool = False,
) -> list[Target]:
    """Thin cells, those of the rarest rules first.

    Args:
        by_grade: as `make_cited` says.
        sql: your own query with the columns rule ('' for any), grade, wanted (and bucket, where it matters); may read
            `cited`.

    Raises:
        UsageError: the query fails, lacks a column, or names a rule or grade that the instruction does not know.
    """
    cells = _own(con, instruction, sql) if sql else _thin(con, instruction, settings, by_grade)
    return [replace(cell, wanted=min(cell.wanted, settings.n)) for cell in cells if cell.wanted > 0]


def _thin(
    con: duckdb.DuckDBPyConnection, instruction: Instruction, settings: SynthSettings, by_grade: bool
) -> list[Target]:
    decide = [(rule.id, rule.grade) for rule in instruction.rules if rule.grade is not None]
    if by_grade:
        decide = [("", symbol) for (symbol,) in con.execute("select symbol from grades order by position").fetchall()]
    rows = con.execute(
        f"select *, sum(have) over (partition by rule) as total from ({_THIN}) order by total, rule, have, bucket",
        {
            "rules": [rule for rule, _ in decide],
            "grades": [grade for _, grade in decide],
            "buckets": list(settings.buckets),
        },
    ).fetchall()
    return [Target(rule, grade, bucket, have, settings.thin - have) for rule, grade, bucket, have, _ in rows]


def _own(con: duckdb.DuckDBPyConnection, instruction: Instruction, sql: str) -> list[Target]:
    fix = "Write one `select rule, grade, wanted from …` over the store's tables and `cited`."
    tables = [name for (name,) in con.execute("select table_name from information_schema.tables").fetchall()]
    query = subquery(sql, "--targets", fix, tables)
    try:
        cursor = con.execute(f"select * from {query}")
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except duckdb.Error as error:
        raise UsageError(f"--targets: {str(error).splitlines()[0]}", "Mend the query.") from None
    missing = [name for name in ("rule", "grade", "wanted") if name not in names]
    if missing:
        raise UsageError(f"--targets has no column {missing[0]!r}.", "Select rule, grade and wanted.")
    symbols = {symbol for (symbol,) in con.execute("select symbol from grades").fetchall()}
    for row in rows:
        rule, grade = instruction.rule(str(row["rule"])), str(row["grade"])
        if grade not in symbols or not (rule.admits(grade) if rule else row["rule"] == ""):
            raise UsageError(
                f"--targets: no rule {row['rule']!r} decides for grade {row['grade']!r}.",
                "Take rules and grades from instruction.md; '' is no rule.",
            )
    try:
        return [
            Target(
                str(r["rule"]),
                str(r["grade"]),
                str(r.get("bucket") or "mid"),
                int(r.get("have") or 0),
                int(r["wanted"]),
            )
            for r in rows
        ]
    except (TypeError, ValueError):
        raise UsageError("--targets: wanted and have are not whole numbers everywhere.", "Mend the query.") from None


def find_parents(con: duckdb.DuckDBPyConnection, store: Store, limit: int = 5000) -> list[Parent]:
    """Training samples to start from: all of rare rules, at most `limit` together, in a stable order."""
    fields = ", ".join(f"coalesce(s.{quote(name)}, '')" for name in store.task.fields)
    rows = con.execute(
        f"select s.sample_id::varchar, s.group_key, [{fields}], c.grade, c.rule, c.evidence "
        "from cited c join samples s using (sample_id) where s.split = 'train' and s.origin = 'import' "
        "order by row_number() over (partition by c.rule order by s.sample_id), s.sample_id limit ?",
        [limit],
    ).fetchall()
    return [
        Parent(i, group, dict(zip(store.task.fields, values, strict=True)), grade, rule, tuple(evidence or ()))
        for i, group, values, grade, rule, evidence in rows
    ]
