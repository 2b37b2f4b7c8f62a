-- The sample store, version 1. One project judges one task, so no table carries a task id.
-- The task's fields are added to `samples` as VARCHAR columns when the store is made.
-- No primary key or index on the append-only tables (a UUID key costs 0.7 s a batch at 30 M rows);
-- the views (views.sql) resolve duplicates.

create table meta (key varchar not null, value varchar not null);

-- The task's grades in ascending order of value, position 0 first. Neither can change in the life of a store.
create table grades (symbol varchar not null, position integer not null);

create table samples (
    sample_id   uuid not null,
    group_key   varchar not null,
    split       varchar not null,                -- train, dev, holdout, test, pool
    source      varchar not null,                -- the file or system it came from
    origin      varchar not null default 'import', -- import or synthetic
    parent_id   uuid,                            -- synthetic rows: what it was made from
    external_id varchar,                         -- the owner's own id, when the file has one
    inclusion   double,                          -- probability with which it was chosen, or its group drawn; null: taken whole
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
    kind        varchar not null,                -- promotion, acceptance, rejection, return, minor
    instruction varchar not null,
    against     varchar,
    outcome     varchar not null,                -- proposed, refused, accepted, rejected, in force, minor, revoked
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

create table run_events (
    run_id     varchar not null,
    status     varchar not null,                 -- done, failed, interrupted
    cost_usd   double not null,
    detail     json not null,
    created_at timestamp not null
);

-- One row for each sample, one column for each signal; `piar mine` replaces the whole table.
create table signals (sample_id uuid not null);

create table difficulty (
    sample_id uuid not null,
    p         double,                            -- pi(y*|x)
    bucket    varchar not null,                  -- easy, mid, hard, suspect
    judge     varchar not null,
    run_id    varchar not null
);

create table queue (
    sample_id uuid not null,
    reason    varchar not null,
    score     double not null,
    inclusion double,
    rank      integer not null,
    run_id    varchar not null
);

-- Review batches: what was given to whom, frozen when composed. Answers come back as rows of `labels`.
create table review_batches (
    batch      varchar not null,
    config     json not null,
    run_id     varchar not null,
    created_at timestamp not null
);

create table review_tasks (
    batch     varchar not null,
    sample_id uuid not null,
    annotator varchar not null,
    role      varchar not null,                  -- queue, random, check, relabel
    reason    varchar not null,                  -- why the queue chose it; '' otherwise
    inclusion double,                            -- probability with which it was chosen
    position  integer not null                   -- order in the annotator's project
);

create table review_projects (
    batch      varchar not null,
    annotator  varchar not null,
    url        varchar not null,
    project_id bigint not null,
    created_at timestamp not null
);

-- What synthesis tried: kept rows are in `samples` too; dropped and borderline ones are here alone.
create table synthesis (
    sample_id  uuid not null,
    parent_id  uuid,
    method     varchar not null,                 -- structured, contrast, paraphrase, boundary
    rule       varchar not null,                 -- the cell it was made for
    grade      varchar not null,
    bucket     varchar not null,
    status     varchar not null,                 -- kept, dropped, borderline
    reason     varchar not null,                 -- why it was not kept
    fields     varchar[] not null,               -- in the task's order
    run_id     varchar not null,
    created_at timestamp not null
);

-- How far each journal segment is folded; written in the transaction that holds its rows.
create table journal_offsets (segment varchar not null, bytes bigint not null);
