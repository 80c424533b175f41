-- Scores are written from here on; until now nothing wrote any, so the table is made anew. A score is
-- of one thing: a trace (and maybe an observation of it), a session, or a run over a dataset.
drop table scores;
create table scores (
    project_id     text collate "C" not null,
    id             text collate "C" not null,
    trace_id       text collate "C",
    observation_id text collate "C",
    session_id     text,
    run_id         text collate "C",
    name           text not null,
    source         text not null,
    data_type      text not null,
    value          float8 not null,   -- 0 where the value is a text
    string_value   text compression lz4,
    comment        text compression lz4,
    environment    text not null,
    config_id      text,
    queue_id       text,
    metadata       text compression lz4,  -- JSON text
    ts             timestamptz not null,
    merge_state    text not null,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    primary key (project_id, id)
);

create index scores_ts on scores (project_id, ts desc, id desc);
create index scores_trace on scores (project_id, trace_id) where trace_id is not null;
create index scores_session on scores (project_id, left(session_id, 200)) where session_id is not null;
create index scores_run on scores (project_id, run_id) where run_id is not null;
create index scores_name on scores (project_id, left(name, 200), ts desc);

-- Spans of which log records tell something that has not been added to their observation yet. Such a
-- record may come before its span; see docs/otlp.md.
create table pending_content (
    project_id text collate "C" not null,
    trace_id   text collate "C" not null,
    span_id    text collate "C" not null,
    created_at timestamptz not null,
    primary key (project_id, trace_id, span_id)
);

-- The experiment that an observation is part of, as its span tells; a JSON object.
alter table observations add column experiment jsonb;
create index observations_experiment on observations (project_id, (experiment ->> 'id'), start_time)
    where experiment is not null;
