"""One row for each sample with all that judges and people said of it, as numbers: what signals are computed from.

The temporary table `judged` has, for grade positions k = 0 … K-1 in ascending order of value:

    sample_id, split, truth (position or null), basis
    t0 … tk   mean probabilities of the main teacher under the instruction, null without probabilities
    v0 … vk   votes of all teachers under the instruction
    s0 … sk   mean probabilities of the student (its grade counts as 1 where it gave none)
    h0 … hk   people's votes
    g0 … gk   first votes of the main teacher under any instruction
    seen, mean_true, spread_true   first opinions of all checkpoints (else of all instructions): how many, and
              mean and standard deviation of the probability of the truth
    rule      what the main teacher cited, when it was exactly one
    doubts    people's flags: gold_is_wrong, rule_unclear, ambiguous
"""

from dataclasses import dataclass

import duckdb

from store.db import Store
from store.fragments import literal, valid_probs
from store.judges import Range


@dataclass(frozen=True, slots=True)
class Judges:
    """Whose verdicts are read: judge names and the instruction's id."""

    teacher: str
    student: str
    instruction: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that come once for each grade."""

    grades: int

    def __call__(self, prefix: str) -> list[str]:
        """`t` -> t0, t1, …"""
        return [f"{prefix}{k}" for k in range(self.grades)]


def make_judged(con: duckdb.DuckDBPyConnection, store: Store, judges: Judges, ranges: list[Range]) -> None:
    """Fill the temporary table `judged`, one range of samples after the other."""
    con.execute(_HELD)
    con.execute(_people_sql(store.task.symbols))
    sql = _range_sql(store.task.symbols)
    values = {"teacher": judges.teacher, "student": judges.student, "instruction": judges.instruction}
    for number, (low, high) in enumerate(ranges):
        bounds = {**values, "low": low, "high": high}
        con.execute(f"create or replace temp table part as {sql.format(verdicts='verdicts')}", bounds)
        if con.execute("select count(*) from part where rows > kinds").fetchall()[0][0]:
            # Someone was asked again: the view `verdict` knows which answer counts, at four times the cost.
            con.execute(f"create or replace temp table part as {sql.format(verdicts='verdict')}", bounds)
        start = "insert into judged" if number else "create or replace temp table judged as"
        con.execute(f"{start} select * exclude (rows, kinds) from part")
    con.execute("drop table part")


_HELD = """
create or replace temp table held as
select t.sample_id, g.position::tinyint as truth, t.grade as symbol, t.basis
from truth t join grades g on g.symbol = t.grade
"""


def _people_sql(symbols: tuple[str, ...]) -> str:
    counts = ", ".join(
        f"count(*) filter (where grade = {literal(s)} and counts)::utinyint as h{k}" for k, s in enumerate(symbols)
    )
    return f"""
create or replace temp table people as
select sample_id, {counts},
       count(*) filter (where list_has_any(flags, ['gold_is_wrong', 'rule_unclear', 'ambiguous']))::utinyint as doubts
from (select *, not list_has_any(flags, ['draft', 'skipped']) as counts from label where source = 'human')
group by sample_id"""


def _range_sql(symbols: tuple[str, ...]) -> str:
    """The aggregation of one range; every aggregate is free of order, so that it can run in parallel and spill.

    `rows` counts a sample's verdicts and `kinds` the bits that their (judge, instruction, vote) set among 63: fewer
    bits than rows means that some question may have been answered twice.
    """
    aggregates = []
    for k, symbol in enumerate(symbols):
        said = f"grade = {literal(symbol)}"
        aggregates += [
            f"avg(probs[{k + 1}]) filter (where main)::float as t{k}",
            f"count(*) filter (where taught and {said})::utinyint as v{k}",
            f"avg(coalesce(probs[{k + 1}], ({said})::int)) filter (where student and grade is not null)::float as s{k}",
            f"count(*) filter (where version and {said})::utinyint as g{k}",
        ]
    people = ", ".join(f"p.h{k}" for k in range(len(symbols)))
    return f"""
with spoken as (
    select sample_id, grade, rules, truth, starts_with(judge, 'teacher:') and instruction = $instruction as taught,
           judge = $teacher and instruction = $instruction as main,
           judge = $teacher and vote = 0 as version, judge = $student as student,
           starts_with(judge, 'student:') and vote = 0 as checkpoint,
           if({valid_probs("probs", len(symbols))}, probs, null) as probs,
           coalesce(probs[truth + 1], if(grade is null, null, (grade = symbol)::int)) as p_true,
           1::bigint << (hash(judge, instruction, vote) % 63)::integer as kind
    from {{verdicts}} left join held using (sample_id)
    where sample_id >= $low::uuid and sample_id < $high::uuid
), counted as (
    select sample_id, {", ".join(aggregates)}, count(*) as rows, bit_count(bit_or(kind)) as kinds,
           any_value(rules[1]) filter (where main and len(rules) = 1) as rule,
           count(p_true) filter (where checkpoint) as checkpoints, count(p_true) filter (where version) as versions,
           avg(p_true) filter (where checkpoint) as mean_checkpoint, avg(p_true) filter (where version) as mean_version,
           stddev_pop(p_true) filter (where checkpoint) as spread_checkpoint,
           stddev_pop(p_true) filter (where version) as spread_version
    from spoken group by sample_id
), sample as (
    select sample_id, split from samples where sample_id >= $low::uuid and sample_id < $high::uuid
)
select s.sample_id, s.split, h.truth, h.basis, {people}, p.doubts,
       c.* exclude (sample_id, checkpoints, versions, mean_checkpoint, mean_version, spread_checkpoint, spread_version),
       if(checkpoints > 1, checkpoints, versions) as seen,
       if(checkpoints > 1, mean_checkpoint, mean_version) as mean_true,
       if(checkpoints > 1, spread_checkpoint, spread_version) as spread_true
from sample s left join counted c using (sample_id) left join held h using (sample_id)
left join people p using (sample_id)"""


def rater_accuracy(con: duckdb.DuckDBPyConnection, columns: Columns) -> float:
    """Share of people's votes that agree with gold, within [.55, .95]; .8 where nothing can be compared."""
    agree = " + ".join(f"if(truth = {k}, h{k}, 0)" for k in range(columns.grades))
    total = " + ".join(columns("h"))
    row = con.execute(
        f"select sum({agree}), sum({total}) from judged where basis = 'gold' and h0 is not null"
    ).fetchone()
    agreed, votes = row if row else (None, None)
    return min(0.95, max(0.55, float(agreed) / float(votes))) if votes else 0.8
