-- What people query. Made when a store is made, and made again by every migration.

-- Latest opinion of each judge; an answered vote wins over a failed one. The table is only appended to, so its row
-- numbers are the order in which answers came; a clock may go back between two of them.
create or replace view verdict as
    select * from verdicts
    qualify row_number() over (
        partition by sample_id, judge, instruction, vote
        order by (grade is not null) desc, verdicts.rowid desc) = 1;

-- Latest version of each label. Rows of one instant are told apart by their content.
create or replace view label as
    select * from labels
    qualify row_number() over (
        partition by sample_id, source, annotator, ordinal, batch
        order by created_at desc, label_id) = 1;

-- What came back from people to whom a review batch was given, as against votes that were imported.
create or replace view reviewed as
    select l.* from label l
    where l.source = 'human' and l.batch in (select batch from review_batches);

-- Labels of people that a later answer to the same row has taken the place of: where the grade that they give or the
-- rule that they name said something else, any answer given since (`stale`); else, where any of the instruction has
-- changed, one of the same person. Without a later answer they stand.
create or replace view superseded as
    with old as (
        select sample_id from labels where source = 'human' and created_at < (select max(until) from overtaken)
    ), latest as (  -- as in `label`, of the few rows that can matter
        select * from labels where source = 'human' and sample_id in (from old)
        qualify row_number() over (
            partition by sample_id, annotator, ordinal, batch order by created_at desc, label_id) = 1
    ), said as (
        select * from latest where grade is not null and not list_has_any(flags, ['draft', 'skipped'])
    ), early as (
        select *, unnest(['grade ' || grade, 'rule ' || rule]) as what
        from said where created_at < (select max(until) from overtaken)
    ), given as (
        select label_id, sample_id, null as annotator, o.until as due
        from early join overtaken o on o.what = early.what and created_at >= o.since and created_at < o.until
        union all
        select distinct label_id, sample_id, annotator, due
        from early asof join (select distinct until as due from overtaken) on created_at < due
    )
    select g.label_id, bool_or(g.annotator is null) as stale
    from given g join said on said.sample_id = g.sample_id and said.created_at >= g.due
        and (g.annotator is null or g.annotator = said.annotator)
    group by g.label_id;

-- Labels that count as votes: with a grade, neither draft nor skipped nor superseded.
create or replace view vote as
    select l.*, g.position
    from label l join grades g on g.symbol = l.grade anti join superseded using (label_id)
    where not list_has_any(l.flags, ['draft', 'skipped']);

-- The winning grade of each sample and source: most votes. A tie goes to the tied grade nearest the median
-- of all its votes (0, 1, 3 give 1), and if two are equally near to the lower one (0, 3 give 0).
create or replace view winner as
    with given as materialized (
        select sample_id, source, grade, position from vote
    ), counted as (
        select sample_id, source, grade, position, count(*) as n from given group by all
    ), middle as (
        select sample_id, source, count(*) as votes, median(position) as median from given group by all
    )
    select sample_id, source, grade, n, votes
    from counted join middle using (sample_id, source)
    qualify row_number() over (
        partition by sample_id, source
        order by n desc, abs(position - median), position) = 1;

-- What people say: the winning grade of the human votes, with its count and all votes.
create or replace view majority as
    select sample_id, grade, n, votes from winner where source = 'human';

-- Grades that people settled against what stood before: given with all opinions in sight (blind is false, an
-- adjudication), or with the words that the gold label is wrong. A blind grade alone settles nothing, however it
-- differs. The latest settlement counts; to take one back, settle the sample again. A stale one settles nothing once
-- somebody has judged the row under the words in force.
create or replace view settlement as
    select l.sample_id, l.grade, l.annotator, l.batch, l.blind, coalesce(s.stale, false) as stale
    from label l left join superseded s using (label_id)
    where l.source = 'human' and l.grade is not null and not list_has_any(l.flags, ['draft', 'skipped'])
        and (l.blind = false or list_contains(l.flags, 'gold_is_wrong'))
    qualify row_number() over (partition by l.sample_id order by coalesce(s.stale, false), l.created_at desc, l.label_id) = 1;

create or replace view settled as
    select sample_id, grade, annotator, batch from settlement where not stale;

-- What is held true: what people settled, else gold, else the people's majority. Never a judge's own answer. Gold that
-- people had settled comes last once their settlement is stale.
create or replace view truth as
    with won as materialized (
        select sample_id, source, grade from winner where source in ('gold', 'human')
    ), settlements as materialized (
        select sample_id, grade, stale from settlement
    )
    select sample_id, arg_min(grade, place) as grade, arg_min(basis, place) as basis
    from (
        select sample_id, grade, 0 as place, 'settled' as basis from settlements where not stale
        union all
        select sample_id, grade, if(sample_id in (select sample_id from settlements where stale), 3, 1), 'gold'
        from won where source = 'gold'
        union all select sample_id, grade, 2, 'majority' from won where source = 'human'
    ) group by sample_id;

-- What all judges together say: a consensus model's label where there is one, else the people's majority.
create or replace view consensus as
    select coalesce(c.sample_id, m.sample_id) as sample_id,
           coalesce(c.grade, m.grade) as grade,
           case when c.sample_id is null then 'majority' else 'consensus' end as basis
    from (from winner where source = 'consensus') c
    full join majority m using (sample_id);

-- First votes beside the truth; a failed answer is wrong.
create or replace view graded as
    select v.sample_id, v.judge, v.instruction, s.split, s.group_key,
           t.grade as truth, v.grade as verdict, v.rules, v.failure,
           coalesce(v.grade = t.grade, false) as correct
    from verdict v join truth t using (sample_id) join samples s using (sample_id)
    where v.vote = 0;

create or replace view errors as
    select s.*, g.truth, g.judge, g.instruction, g.verdict, g.rules, g.failure
    from graded g join samples s using (sample_id)
    where not g.correct;

create or replace view confusion as
    select judge, instruction, split, truth, coalesce(verdict, '(failed)') as verdict, count(*) as n
    from graded group by all;

create or replace view leaderboard as
    select judge, instruction, split, count(*) as n, avg(correct::integer) as accuracy
    from graded group by all;

create or replace view disagreements as
    select sample_id, group_key, split, truth, judge, instruction, verdict
    from graded where verdict <> truth;

-- What people should look at next, best first. Mining and `piar label --target-precision` each queue rows, replacing their
-- own: the two take turns by rank, and a row that both queued stands where it is first.
create or replace view label_queue as
    with first as (
        select * from queue qualify row_number() over (partition by sample_id order by queue.rank, reason) = 1)
    select row_number() over (order by q.rank, q.reason) as rank, q.reason, q.score, q.inclusion, s.* exclude (inclusion)
    from first q join samples s using (sample_id)
    order by q.rank, q.reason;

-- Instructions that a person put in force, by accepting them, by writing them into `instruction.md` or by putting them
-- back there: since when, when last accepted, and what that replaced. The latest one is in force, unless
-- `instruction.md` has been edited since.
create or replace view in_force as
    select i.instruction_id as instruction, greatest(i.created_at, a.accepted, a.returned) as since, a.accepted, a.against
    from instructions i left join (
        select instruction, max(created_at) filter (outcome = 'accepted') as accepted,
               arg_max(against, created_at) filter (outcome = 'accepted') as against,
               max(created_at) filter (outcome = 'in force') as returned
        from decisions where outcome in ('accepted', 'in force') group by instruction
    ) a on a.instruction = i.instruction_id
    where a.instruction is not null or i.run_id in (select run_id from runs where verb = 'edit');

-- Answers that an instruction changed, for the same judge and sample.
create or replace view flips as
    select a.sample_id, a.judge, a.instruction as before, b.instruction as after,
           a.grade as grade_before, b.grade as grade_after
    from verdict a join verdict b using (sample_id, judge)
    where a.vote = 0 and b.vote = 0 and a.instruction <> b.instruction and a.grade <> b.grade;

create or replace view spend as
    select role, model, run_id, sum(greatest(attempts, 1)) as calls,
           sum(tokens_in) as tokens_in, sum(tokens_cached) as tokens_cached, sum(tokens_out) as tokens_out,
           sum(cost_usd) as cost_usd, count(failure) as failures
    from completions group by all;
