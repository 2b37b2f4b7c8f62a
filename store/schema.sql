-- The sample store, version 1. One project judges one task, so no table carries a task id.
-- The task's fields are added to `samples` as VARCHAR columns when the store is made.
-- No primary key or index on the append-only tables (a UUID key costs 0.7 s a batch at 30 M rows);
-- the views resolve duplicates.

create table meta (key varchar not null, value varchar not null);

create table samples (
    sample_id   uuid not null,
    group_key   varchar not null,
    split       varchar not null,                -- train, dev, holdout, test, pool
    source      varchar not null,                -- the file or system it came from
    origin      varchar not null default 'import', -- import or synthetic
    parent_id   uuid,                            -- synthetic rows: what it was made from
    external_id varchar,                         -- the owner's own id, when the file has one
    inclusion   double,                          -- probability with which it was chosen, null: taken whole or at random
    run_id      varchar not null,
    created_at timestamp not null
);

create table labels (
    label_id   uuid not null,
    sample_id  uuid not null,
    source     varchar not null,                 -- gold, human, consensus, teacher
    annotator  varchar not null,
    grade      varchar,                          -- null: skipped or only flagged
    ordinal    integer not null default 0,       -- repeated votes of one annotator on one sample
    comment    varchar not null default '',
    flags      varchar[] not null default [],    -- gold_is_wrong, rule_unclear, ambiguous, draft, skipped
    rule       varchar,
    seconds    double,
    blind      boolean,                          -- false: a suggestion was shown before answering
    batch      varchar not null default '',
    origin     varchar not null default '',      -- file, project or run it came from
    run_id     varchar not null,
    created_at timestamp not null
);

create table instructions (
    instruction_id varchar not null,
    parent         varchar,
    author         varchar not null,
    note           varchar not null,
    body           json not null,                -- see store.db.instruction_to_json
    run_id         varchar not null,
    created_at timestamp not null
);

create table completions (
    key        varchar not null,
    role       varchar not null,                 -- teacher, reviser, synth, student
    run_id     varchar not null,
    model      varchar not null,
    text       varchar,
    failure    varchar,                          -- class, null when answered
    error      varchar,
    attempts   integer not null,
    tokens_in  bigint not null,
    tokens_cached bigint not null,
    tokens_out bigint not null,
    cost_usd   double not null,
    seconds    double not null,
    created_at timestamp not null
);

create table verdicts (
    key          varchar not null,
    sample_id    uuid not null,
    judge        varchar not null,               -- teacher:MODEL, student:PATH, baseline:NAME
    instruction  varchar not null,
    vote         integer not null,
    grade        varchar,                        -- null: failed
    probs        float[],                        -- in the task's grade order
    evidence     varchar[],
    steps        varchar[],                      -- in the task's step order
    rules        varchar[],
    trace_verdict varchar,
    failure      varchar,
    run_id       varchar not null,
    created_at timestamp not null
);

create table decisions (
    decision_id varchar not null,
    kind        varchar not null,                -- promotion, acceptance, rejection, rollback
    instruction varchar not null,
    against     varchar,
    outcome     varchar not null,                -- proposed, refused, accepted, rejected
    reason      varchar not null,
    detail      json not null,
    decided_by  varchar not null,
    run_id      varchar not null,
    created_at timestamp not null
);

create table runs (
    run_id   varchar not null,
    verb     varchar not null,
    config   json not null,
    version  varchar not null,
    seed     bigint not null,
    started  timestamp not null
);
create table run_events (run_id varchar not null, status varchar not null, cost_usd double not null, detail json not null, created_at timestamp not null);

create table signals (sample_id uuid not null, name varchar not null, value double, run_id varchar not null);
create table difficulty (sample_id uuid not null, p double, bucket varchar not null, judge varchar not null, run_id varchar not null);
create table queue (sample_id uuid not null, reason varchar not null, score double not null, inclusion double, rank integer not null, run_id varchar not null);

create table journal_offsets (segment varchar not null, bytes bigint not null);

-- Latest opinion of each judge; an answered vote wins over a failed one.
create view verdict as
    select * from verdicts
    qualify row_number() over (partition by sample_id, judge, instruction, vote
                               order by (grade is not null) desc, created_at desc) = 1;

-- Latest version of each label.
create view label as
    select * from labels
    qualify row_number() over (partition by sample_id, source, annotator, ordinal, batch order by created_at desc) = 1;

-- What the raters' majority says: most votes, ties by the lower grade position (see store.db for the order), with its share.
create view majority as
    with votes as (select sample_id, grade, count(*) as n from label
                   where source = 'human' and grade is not null group by all)
    select sample_id, grade, n, sum(n) over (partition by sample_id) as votes
    from votes qualify row_number() over (partition by sample_id order by n desc, grade) = 1;

-- Truth: gold where there is gold (most votes), else the people's majority.
create view truth as
    with gold as (select sample_id, grade, count(*) as n from label
                  where source = 'gold' and grade is not null group by sample_id, grade
                  qualify row_number() over (partition by sample_id order by n desc, grade) = 1)
    select coalesce(g.sample_id, m.sample_id) as sample_id, coalesce(g.grade, m.grade) as grade,
           case when g.sample_id is null then 'majority' else 'gold' end as basis
    from gold g full join majority m using (sample_id);

create view errors as
    select s.*, t.grade as truth, v.judge, v.instruction, v.grade as verdict, v.rules, v.failure
    from verdict v join truth t using (sample_id) join samples s using (sample_id)
    where v.vote = 0 and coalesce(v.grade <> t.grade, true);

create view confusion as
    select v.judge, v.instruction, s.split, t.grade as truth, coalesce(v.grade, '(failed)') as verdict, count(*) as n
    from verdict v join truth t using (sample_id) join samples s using (sample_id)
    where v.vote = 0 group by all;

-- A teacher is never scored against its own labels: `truth` holds gold and people's labels only.
create view leaderboard as
    select v.judge, v.instruction, s.split, count(*) as n,
           avg(case when v.grade = t.grade then 1 else 0 end) as accuracy
    from verdict v join truth t using (sample_id) join samples s using (sample_id)
    where v.vote = 0 group by all;

create view disagreements as
    select s.sample_id, s.group_key, s.split, t.grade as truth, v.judge, v.instruction, v.grade as verdict
    from verdict v join truth t using (sample_id) join samples s using (sample_id)
    where v.vote = 0 and v.grade <> t.grade;

-- What people should look at next, best first.
create view label_queue as
    select q.rank, q.reason, q.score, q.inclusion, s.* from queue q join samples s using (sample_id)
    where q.run_id = (select run_id from queue order by run_id desc limit 1) order by q.rank;

create view flips as
    select a.sample_id, a.judge, a.instruction as before, b.instruction as after, a.grade as grade_before, b.grade as grade_after
    from verdict a join verdict b on a.sample_id = b.sample_id and a.judge = b.judge and a.vote = 0 and b.vote = 0
    where a.instruction <> b.instruction and a.grade <> b.grade;

create view spend as
    select role, model, run_id, count(*) as calls, sum(tokens_in) as tokens_in, sum(tokens_cached) as tokens_cached,
           sum(tokens_out) as tokens_out, sum(cost_usd) as cost_usd, count(failure) as failures
    from completions group by all;
