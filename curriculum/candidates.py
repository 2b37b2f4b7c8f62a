"""Which samples are learned from, under which grade, and which anchor the mode balance: narrow tables in SQL.

Every function works on the caller's connection and leaves a temporary table behind; nothing here
touches wide text columns, so ten million samples fit in a gigabyte.
"""

from collections.abc import Mapping

import duckdb

from curriculum.settings import CurriculumSettings
from store.calibrated import calibrated_relation
from store.db import Store
from store.fragments import literal, valid_probs
from store.judges import Judge, id_ranges, main_teacher, verdict_relation
from store.task import Task

# Filled range by range: latest versions and winners of ten million labels at once do not fit in a gigabyte.
_HELD = "create or replace temp table held (sample_id uuid, grade varchar, basis varchar, rule varchar)"
_TRUTH = """
insert into held
select t.sample_id, t.grade, if(t.basis = 'settled', 'gold', t.basis) as basis, l.rule
from truth t left join (
    select l.sample_id, l.grade, min(l.rule) as rule from label l
    where l.rule is not null and l.source in ('gold', 'human')
        and l.sample_id >= $low::uuid and l.sample_id < $high::uuid
    group by l.sample_id, l.grade
) l on l.sample_id = t.sample_id and l.grade = t.grade
where t.sample_id >= $low::uuid and t.sample_id < $high::uuid
"""
ROWS = 2_000_000  # samples whose truth is looked up at once

# A suspect counts as checked when a review confirmed its grade.
_CHECKED = """
create or replace temp table checked as
select distinct r.sample_id from reviewed r join held h using (sample_id) where r.grade = h.grade
"""

_CANDIDATES = """
create or replace temp table candidate as
with one as (
    select s.sample_id, s.split, s.origin, coalesce(h.grade, o.grade) as grade,
           case when h.grade is not null then h.basis
                when o.confidence >= $confidence then 'teacher' end as basis,
           coalesce(h.rule, o.rule) as rule, h.rule as label_rule, o.confidence, d.p, d.bucket,
           c.sample_id is not null as checked, k.sample_id is not null as leaks
    from samples s
    left join held h using (sample_id) left join opinion o using (sample_id)
    left join (select * from difficulty where run_id = (select max(run_id) from difficulty)) d using (sample_id)
    left join checked c using (sample_id) left join leak k using (sample_id)
)
select *, case
    when split not in ('train', 'pool') then
        case when basis in ('gold', 'majority') and list_contains($eval_splits, split) then split else 'closed' end
    when leaks then 'near a closed sample'
    when basis is null then 'no trusted grade'
    when bucket = 'suspect' and not ($suspects = 'all' or ($suspects = 'checked' and checked))
        then 'unchecked suspect'
    else 'train' end as fate
from one
"""


def opinion_sql(task: Task, verdicts: str) -> str:
    """One row for each sample that the teacher judged: majority grade (ties: the lowest), confidence, cited rule.

    The confidence is the mean probability of that grade over the votes, else its share of two or more votes.
    The rule is the first vote's that agrees with what is held true and cites exactly one.
    """
    counts = ", ".join(f"count(*) filter (where v.grade = {literal(s)})" for s in task.symbols)
    means = ", ".join(
        f"avg(if({valid_probs('v.probs', len(task.symbols))}, v.probs[{i}], null))"
        for i in range(1, len(task.symbols) + 1)
    )
    symbols = ", ".join(map(literal, task.symbols))
    return f"""
create or replace temp table opinion as
with tally as (
    select v.sample_id, [{counts}] as counts, [{means}] as means, count(v.grade) as votes,
           arg_min(v.rules[1], v.vote)
               filter (where len(v.rules) = 1 and v.grade = coalesce(h.grade, v.grade)) as rule
    from {verdicts} v left join held h using (sample_id)
    where v.judge = $judge and v.instruction = $instruction group by v.sample_id
), best as (select *, list_position(counts, list_max(counts)) as place from tally where votes > 0)
select sample_id, ([{symbols}])[place] as grade, rule,
       coalesce(means[place], if(votes > 1, counts[place] / votes, null)) as confidence
from best
"""


def choose(con: duckdb.DuckDBPyConnection, store: Store, settings: CurriculumSettings, instruction: str) -> str:
    """Fill the temporary tables `held`, `checked`, `opinion` and `candidate`; `leak` must exist.

    Returns:
        The teacher judge whose verdicts are used, "" when there is none.
    """
    judge = main_teacher(con, instruction, settings.teacher)
    con.execute(_HELD)
    for low, high in id_ranges(con, ROWS):
        con.execute(_TRUTH, {"low": low, "high": high})
    con.execute(_CHECKED)
    verdicts = teacher_verdicts(con, store, judge, instruction)
    con.execute(opinion_sql(store.task, verdicts), {"judge": judge, "instruction": instruction})
    con.execute(
        _CANDIDATES,
        {
            "confidence": settings.teacher_confidence,
            "suspects": settings.suspects,
            "eval_splits": list(settings.eval_splits),
        },
    )
    return judge


def teacher_verdicts(con: duckdb.DuckDBPyConnection, store: Store, judge: str, instruction: str) -> str:
    """Where to read a teacher's verdicts, calibrated where it is; a name or a query in brackets."""
    return calibrated_relation(con, store, verdict_relation(con, judge, instruction), [Judge(judge, instruction)])


def set_anchor_rates(con: duckdb.DuckDBPyConnection, share: float) -> None:
    """Fill the temporary table `anchor_rate`: rule -> share of its eligible rows that anchor."""
    rules = con.execute(
        "select rule, count(*) from candidate where fate = 'train' and basis in ('gold', 'majority') "
        "and origin <> 'synthetic' and rule is not null and bucket is distinct from 'suspect' group by rule"
    ).fetchall()
    total = con.execute("select count(*) from candidate where fate = 'train'").fetchone()
    rates = equal_quota(dict(rules), share * (total[0] if total else 0))
    con.execute("create or replace temp table anchor_rate (rule varchar, rate double)")
    if rates:
        con.executemany("insert into anchor_rate values (?, ?)", sorted(rates.items()))


def equal_quota(counts: Mapping[str, int], budget: float) -> dict[str, float]:
    """Sampling rate of each stratum when all get the same quota and small ones are taken whole.

    With rates min(1, q / n_r), rows are drawn by inverse frequency; q is chosen so that
    Σ min(n_r, q) equals the budget (or everything, when there is less).
    """
    quota, left, strata = 0.0, budget, sorted(counts.values())
    for i, size in enumerate(strata):
        quota = left / (len(strata) - i)
        if size >= quota:
            break
        left -= size
        quota = float(size)
    return {rule: min(1.0, quota / size) for rule, size in counts.items() if size > 0}
