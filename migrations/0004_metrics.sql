-- Metrics: a dictionary of series and narrow points.
create table metric_series (
    project_id  text collate "C" not null,
    series_id   bigint not null,
    name        text collate "C" not null,
    environment text not null,
    labels      jsonb not null,
    created_at  timestamptz not null,
    primary key (project_id, series_id)
);

create index metric_series_name on metric_series (project_id, name);
create index metric_series_labels on metric_series using gin (labels jsonb_path_ops);

create table metric_points (
    project_id text collate "C" not null,
    series_id  bigint not null,
    ts         timestamptz not null,
    value      float8 not null,
    primary key (project_id, series_id, ts)
) partition by range (ts);

create table metric_points_default partition of metric_points default;
