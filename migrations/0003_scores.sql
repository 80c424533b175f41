-- Scores of traces, observations and sessions. `trace_id` is '' for scores of sessions.
create table scores (
    project_id     text collate "C" not null,
    trace_id       text collate "C" not null,
    id             text collate "C" not null,
    observation_id text collate "C",
    session_id     text,
    name           text not null,
    source         text not null,
    data_type      text not null,
    value          float8,
    string_value   text,
    comment        text,
    environment    text not null,
    config_id      text,
    metadata       jsonb,
    ts             timestamptz not null,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    primary key (project_id, trace_id, id)
);

create index scores_name on scores (project_id, left(name, 200), ts desc);
create index scores_id on scores (project_id, id);
