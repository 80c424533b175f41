-- Metrics: what came lies in blocks, which are moved into chunks of one series each. See store/src/metrics.

alter table metric_series
    add column kind         smallint not null default 0,  -- native, gauge, sum, histogram, exponential, summary
    add column temporality  smallint not null default 0,  -- none, delta, cumulative
    add column is_monotonic boolean not null default false,
    add column unit         text not null default '',
    add column description  text not null default '',
    add column lookup       jsonb not null default '{}',  -- labels, and attributes of the resource: for filters
    add column details      text not null default '',     -- JSON: what else was sent
    add column seen         date not null default current_date;
update metric_series set lookup = labels;
drop index metric_series_labels;
create index metric_series_lookup on metric_series using gin (lookup jsonb_path_ops);

-- Points of one transaction and shard, sorted by series. Few: they are moved within minutes.
create table metric_blocks (
    project_id text collate "C" not null,
    shard      smallint not null,
    id         bigint generated always as identity,
    first_at   timestamptz not null,
    last_at    timestamptz not null,
    stored_at  timestamptz not null,
    points     integer not null,
    data       bytea not null,
    primary key (project_id, shard, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
alter table metric_blocks alter column data set storage external;

-- Points of one series, in order of time; chunks of a series don't overlap, nor do they span midnight.
create table metric_chunks (
    project_id text collate "C" not null,
    series_id  bigint not null,
    first_at   timestamptz not null,
    last_at    timestamptz not null,
    points     integer not null,
    data       bytea not null,
    primary key (project_id, series_id, first_at)
) partition by range (first_at);
create table metric_chunks_default partition of metric_chunks default;
alter table metric_chunks alter column data set storage external;
alter table metric_chunks_default alter column data set storage external;

create table metric_exemplars (
    project_id text collate "C" not null,
    series_id  bigint not null,
    ts         timestamptz not null,  -- of the point
    id         bigint not null,       -- a hash of all of it
    trace_id   text collate "C",
    data       text not null,         -- JSON: the rest
    primary key (project_id, series_id, ts, id)
) partition by range (ts);
create table metric_exemplars_default partition of metric_exemplars default;
