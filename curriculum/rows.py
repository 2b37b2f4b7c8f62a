"""The shard row in SQL: what `store.manifest.COLUMNS` names, for one slice of samples at a time."""

from curriculum.settings import Weights
from store.db import quote
from store.fragments import literal, normal_text, sample_json, sample_words, valid_probs
from store.manifest import COLUMNS
from store.task import Task
from store.trace import trace_sql

_VERIFIED = f"""
coalesce(t.grade = t.trace_verdict
    and case when $rule_pairs = [] then len(t.rules) = 0
             else len(t.rules) = 1 and list_contains($rule_pairs, t.rules[1] || chr(31) || t.grade) end
    and (c.label_rule is null or t.rules[1] = c.label_rule)
    and len(list_filter(t.evidence, lambda span: contains(trim(span), ' '))) > 0
    and len(list_filter(t.evidence, lambda span: not contains(s.words, {normal_text("span")}))) = 0, false)
"""


def slice_sql(task: Task, weights: Weights, prompt: str, verdicts: str = "verdict") -> str:
    """Statement that renders the rows of samples in [$low, $high) into the temporary table `slice`.

    Parameters: $low, $high (uuid bounds), $judge, $instruction, $seed, $eval_splits, $rule_pairs (rule id,
    unit separator and a grade that it admits), and $rubric when the prompt is `rulebook`. `verdicts` is the relation
    to read, see `store.judges.verdict_relation`.

    A reference trace is the teacher's first vote that gives the row's grade. It is verified when its closing
    verdict agrees, it cites one rule that admits the grade, and every span is part of the sample, one of
    them two words or longer (the strict rewards of our trainers, as far as data can say).
    """
    fields = ", ".join(f"coalesce({quote(name)}, '')" for name in task.fields)
    means = ", ".join(f"avg(probs[{i}])" for i in range(1, len(task.symbols) + 1))
    text = trace_sql(task, grade="grade", evidence="evidence", steps="steps", rules="rules")
    system = "{'role': 'system', 'content': $rubric::varchar}, " if prompt == "rulebook" else ""
    weight = " ".join(f"when {literal(b)} then {w}" for b, w in _basis_weights(weights).items())
    return f"""
create or replace temp table slice as
with vote as (
    select sample_id, vote, grade, evidence, steps, rules, trace_verdict,
           if({valid_probs("probs", len(task.symbols))}, probs, null) as probs
    from {verdicts} where judge = $judge and instruction = $instruction
        and sample_id >= $low::uuid and sample_id < $high::uuid
), chosen as (
    select * from candidate where sample_id >= $low::uuid and sample_id < $high::uuid
        and (fate = 'train' or list_contains($eval_splits, fate))
), heard as (
    select sample_id, if(count(probs) > 0, [{means}]::float[], null) as grade_probs,
           min(vote) filter (v.grade = c.grade and v.evidence is not null and v.rules is not null) as telling
    from vote v join chosen c using (sample_id) group by sample_id
), trace as (
    select v.* exclude (probs) from vote v join heard h on h.sample_id = v.sample_id and h.telling = v.vote
), sample as (
    select sample_id, group_key, source, [{fields}] as fields, {sample_json(task.fields)} as content,
           {sample_words(task)} as words
    from samples where sample_id >= $low::uuid and sample_id < $high::uuid
), row as (
    select s.*, c.* exclude (sample_id), h.grade_probs, t.evidence, t.steps,
           if(c.label_rule is null, t.rules, [c.label_rule]) as rules,
           t.sample_id is not null as traced, {_VERIFIED} as verified
    from chosen c join sample s using (sample_id)
    left join heard h using (sample_id) left join trace t using (sample_id)
), told as (
    select r.* exclude (rules),
           if(traced, rules, null) as rules,
           fate = 'train' and verified and basis in ('gold', 'majority') and origin <> 'synthetic'
               and bucket is distinct from 'suspect'
               and md5_number_lower(r.sample_id::varchar || $seed::varchar) / 18446744073709551616 < a.rate as anchored
    from row r left join anchor_rate a on a.rule = r.rules[1]
)
select fate,
    sample_id::varchar as sample_id,
    group_key as "group",
    fields,
    [{system}{{'role': 'user', 'content': content}}] as prompt,
    [{{'role': 'assistant', 'content': if(traced, {text}, grade)}}] as completion,
    grade, grade_probs, evidence, steps, rules,
    verified as trace_verified,
    p as difficulty,
    coalesce(bucket, 'mid') as bucket,
    coalesce(anchored, false) as anchor,
    origin, source,
    (case if(origin = 'synthetic', 'synthetic', basis) {weight} end
        * if(basis = 'teacher', coalesce(confidence, 1), 1))::double as weight
from told
"""


def _basis_weights(weights: Weights) -> dict[str, float]:
    return {name: float(weight) for name, weight in weights.model_dump().items()}


def file_sql(fate: str, bucket: str | None, path: str, form: str) -> str:
    """Statement that writes the rows of `slice` with this fate (and bucket) to a file, in order of sample id."""
    columns = ", ".join(quote(column) for column in COLUMNS)
    options = "format parquet, compression zstd, row_group_size 60000" if form == "parquet" else "format json"
    where = f"fate = {literal(fate)}" + (f" and bucket = {literal(bucket)}" if bucket else "")
    return f"copy (select {columns} from slice where {where} order by sample_id) to {literal(path)} ({options})"
