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

from store.calibrated import calibrated_relation
from store.db import Store
from store.fragments import literal, valid_probs
from store.judges import Judge, Range


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
    """Fill the temporary table `judged`.

    One pass over the verdicts keeps what counts as a few bytes a row; these are then summed for one range of
    samples after the other, which bounds the memory and reads the wide table once however many ranges there are.
    """
    symbols = store.task.symbols
    values = {"teacher": judges.teacher, "student": judges.student, "instruction": judges.instruction}
    con.execute(_HELD)
    con.execute(_people_sql(symbols))
    con.execute(_RULES, {name: values[name] for name in ("teacher", "instruction")})
    told = [Judge(judges.teacher, judges.instruction), Judge(judges.student)]
    verdicts = calibrated_relation(con, store, "verdicts", told)
    con.execute(f"create or replace temp table spoken as {_spoken_sql(symbols, verdicts)}", values)
    summed = _range_sql(symbols, "spoken", student=bool(judges.student))
    for number, (low, high) in enumerate(ranges):
        start = "insert into judged" if number else "create or replace temp table judged as"
        con.execute(f"{start} {summed}", {"low": low, "high": high})
        inside = "sample_id >= $low::uuid and sample_id < $high::uuid"
        again = f"select count(*) from judged where again and {inside}"
        if con.execute(again, {"low": low, "high": high}).fetchall()[0][0]:
            # Someone was asked again: the view `verdict` knows which answer counts, at several times the cost.
            con.execute(f"delete from judged where {inside}", {"low": low, "high": high})
            verdicts = calibrated_relation(con, store, "verdict", told)
            once = _range_sql(symbols, f"({_spoken_sql(symbols, verdicts, inside)})", student=bool(judges.student))
            con.execute(f"insert into judged {once}", {**values, "low": low, "high": high})
    con.execute("drop table spoken; alter table judged drop column again")


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
from (select *, not list_has_any(flags, ['draft', 'skipped']) as counts
      from label anti join superseded using (label_id) where source = 'human')
group by sample_id"""


# Rules by number, so that a row needs four bytes for one.
_RULES = """
create or replace temp table rule_name as
select rule, (row_number() over (order by rule))::integer as number from (
    select distinct rules[1] as rule from verdicts
    where judge = $teacher and instruction = $instruction and len(rules) = 1 and rules[1] is not null)
"""


def _spoken_sql(symbols: tuple[str, ...], source: str, where: str = "true") -> str:
    """Verdicts as a few bytes each: in which roles someone spoke, grade, probabilities, the one rule, and `kind`.

    `kind` is one of 63 bits for (judge, instruction, vote): a sample with more verdicts than bits may have been asked
    the same twice.
    """
    places = " ".join(f"when {literal(s)} then {k}" for k, s in enumerate(symbols))
    probs = ", ".join(f"if(valid, probs[{k + 1}], null) as p{k}" for k in range(len(symbols)))
    return f"""
select sample_id, taught, main, version, student, checkpoint, case grade {places} end::tinyint as place, kind, {probs},
       if(main and len(rules) = 1, number, null) as rule
from (
    select sample_id, grade, rules, probs, rules[1] as rule,
           starts_with(judge, 'teacher:') and instruction = $instruction as taught,
           judge = $teacher and instruction = $instruction as main,
           judge = $teacher and vote = 0 as version, judge = $student as student,
           starts_with(judge, 'student:') and vote = 0 as checkpoint,
           {valid_probs("probs", len(symbols))} as valid, (hash(judge, instruction, vote) % 63)::tinyint as kind
    from {source} where {where}
) left join rule_name using (rule)"""


def _range_sql(symbols: tuple[str, ...], spoken: str, *, student: bool) -> str:
    """The sums of one range; every aggregate is free of order, so that it can run in parallel and spill."""
    aggregates = []
    for k in range(len(symbols)):
        p_student = f"avg(coalesce(p{k}, (place = {k})::int)) filter (where student and place is not null)"
        aggregates += [
            f"avg(p{k}) filter (where main) as t{k}",
            f"count(*) filter (where taught and place = {k})::utinyint as v{k}",
            f"{p_student if student else 'null::double'} as s{k}",
            f"count(*) filter (where version and place = {k})::utinyint as g{k}",
        ]
    people = ", ".join(f"p.h{k}" for k in range(len(symbols)))
    at_truth = f"case truth {' '.join(f'when {k} then p{k}' for k in range(len(symbols)))} end"
    return f"""
with heard as not materialized (
    select * from {spoken} where sample_id >= $low::uuid and sample_id < $high::uuid
), counted as (
    select sample_id, {", ".join(aggregates)}, count(*) > bit_count(bit_or(1::bigint << kind)) as again,
           any_value(rule) as rule_number
    from heard group by sample_id
), course as (
    select sample_id, {_course("version")}, {_course("checkpoint") if student else _NO_COURSE}
    from (select x.*, coalesce({at_truth}, (place = truth)::int) as p_true from heard x join held using (sample_id))
    group by sample_id
), sample as (
    select sample_id, split from samples where sample_id >= $low::uuid and sample_id < $high::uuid
)
select s.sample_id, s.split, h.truth, h.basis, {people}, p.doubts,
       c.* exclude (sample_id, again, rule_number), n.rule, coalesce(again, false) as again,
       if(n_checkpoint > 1, n_checkpoint, n_version) as seen,
       if(n_checkpoint > 1, mean_checkpoint, mean_version) as mean_true,
       if(n_checkpoint > 1, spread_checkpoint, spread_version) as spread_true
from sample s left join counted c using (sample_id) left join course using (sample_id)
left join held h using (sample_id) left join people p using (sample_id)
left join rule_name n on n.number = c.rule_number"""


def _course(role: str) -> str:
    """How many first opinions of a role there are, mean and spread of their probability of the truth."""
    where = f"filter (where {role})"
    return (
        f"count(p_true) {where} as n_{role}, avg(p_true) {where} as mean_{role}, "
        f"stddev_pop(p_true) {where} as spread_{role}"
    )


_NO_COURSE = "0 as n_checkpoint, null as mean_checkpoint, null as spread_checkpoint"


def rater_accuracy(con: duckdb.DuckDBPyConnection, columns: Columns) -> float:
    """Share of people's votes that agree with gold, within [.55, .95]; .8 where nothing can be compared."""
    agree = " + ".join(f"if(truth = {k}, h{k}, 0)" for k in range(columns.grades))
    total = " + ".join(columns("h"))
    row = con.execute(
        f"select sum({agree}), sum({total}) from judged where basis = 'gold' and h0 is not null"
    ).fetchone()
    agreed, votes = row if row else (None, None)
    return min(0.95, max(0.55, float(agreed) / float(votes))) if votes else 0.8
