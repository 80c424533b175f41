-- Traces and observations. Columns hold what readers see; `merge_state` holds what merging further
-- parts needs (the stamps of the fields, and metadata trees of more than one version).
create table traces (
    project_id       text collate "C" not null,
    id               text collate "C" not null,
    ts               timestamptz not null,  -- when it begins
    sent_timestamp   timestamptz,
    first_start      timestamptz,           -- extent of its observations
    last_start       timestamptz,
    last_end         timestamptz,
    name             text,
    user_id          text,
    session_id       text,
    release          text,
    version          text,
    environment      text not null,
    external_id      text,
    public           boolean,
    bookmarked       boolean,
    tags             text[] not null,
    metadata         jsonb compression lz4,
    metadata_decoded boolean not null,
    input            text compression lz4,
    output           text compression lz4,
    sent_latency     float8,
    sent_total_cost  float8,
    merge_state      text compression lz4 not null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    primary key (project_id, id)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

create index traces_ts on traces (project_id, ts desc, id desc);
create index traces_user on traces (project_id, left(user_id, 200), ts desc) where user_id is not null;
create index traces_session on traces (project_id, left(session_id, 200), ts desc) where session_id is not null;
create index traces_name on traces (project_id, left(name, 200), ts desc);
create index traces_tags on traces using gin (tags);

create table observations (
    project_id            text collate "C" not null,
    trace_id              text collate "C" not null,
    id                    text collate "C" not null,
    start_time            timestamptz not null,
    end_time              timestamptz,
    completion_start_time timestamptz,
    parent_id             text collate "C",
    type                  text not null,
    name                  text,
    level                 text not null,
    status_message        text,
    version               text,
    environment           text not null,
    model                 text,
    model_parameters      text compression lz4,  -- JSON text
    prompt_name           text,
    prompt_version        int,
    usage_details         jsonb,
    input_usage           bigint,                -- sums over the kinds named like it
    output_usage          bigint,
    total_usage           bigint,
    sent_costs            jsonb,
    cost_details          jsonb,                 -- sent, else computed
    input_cost            float8,
    output_cost           float8,
    total_cost            float8,
    model_id              text,
    tier_id               text,
    tier_name             text,
    input                 text compression lz4,
    output                text compression lz4,
    metadata              jsonb compression lz4,
    metadata_decoded      boolean not null,
    tool_definitions      text compression lz4,  -- JSON text
    otel                  text compression lz4,  -- JSON text: the rest of the span
    sent                  text,                  -- JSON text: values that beat computed ones
    merge_state           text compression lz4 not null,
    created_at            timestamptz not null,
    updated_at            timestamptz not null,
    primary key (project_id, trace_id, id, start_time)
) partition by range (start_time);

create index observations_ts on observations (project_id, start_time)
    include (model, environment, input_usage, output_usage, total_usage, total_cost);
create index observations_id on observations (project_id, id);

create table observations_default partition of observations default;
