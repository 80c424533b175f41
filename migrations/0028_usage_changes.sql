-- Sums take up what changed instead of being computed from all traces of an hour again: after a backfill
-- over thirty days every hour had changed, and readers had to add up all of them.

-- What a statement changed of the traces that begin in an hour. The hour's sums plus these changes are
-- what its traces say. Without `usages` it isn't known what changed (the previous program's triggers only
-- named hours): the day is summed up from its traces.
alter table usage_dirty
    add column marked_at   timestamptz not null default now(),
    add column environment text,                        -- of the traces
    add column traces      int not null default 0,      -- how many elements the next two have
    add column counts      int[],                       -- 1: a trace has this usage now; -1: it had it before
    add column usages      jsonb[] compression lz4;     -- values of traces.usage
create index usage_dirty_unknown on usage_dirty (project_id, hour) where usages is null;
-- Rows live for a second or two; their number says nothing about how many were there.
alter table usage_dirty set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

create or replace function mark_usage() returns trigger language plpgsql as $$
declare
    direction constant int := case tg_op when 'DELETE' then -1 else 1 end;
begin
    insert into usage_dirty (project_id, hour, environment, traces, counts, usages)
    select project_id, date_trunc('hour', ts, 'UTC'), environment, count(*), array_agg(direction), array_agg(usage)
      from changed group by 1, 2, 3;
    return null;
end $$;

-- Writers switch hash joins off, which suit look-ups by key badly; here both sides are in memory.
create or replace function mark_usage_both() returns trigger language plpgsql set enable_hashjoin = on as $$
begin
    insert into usage_dirty (project_id, hour, environment, traces, counts, usages)
    select v.project_id, date_trunc('hour', v.ts, 'UTC'), v.environment, count(*), array_agg(v.count), array_agg(v.usage)
      from outdated o full join changed c on c.project_id = o.project_id and c.id = o.id
     cross join lateral (values (o.project_id, o.ts, o.environment, o.usage, -1),
                                (c.project_id, c.ts, c.environment, c.usage, 1))
           v(project_id, ts, environment, usage, count)
     where (o.usage, o.ts, o.environment) is distinct from (c.usage, c.ts, c.environment)
       and v.usage is not null
     group by 1, 2, 3;
    return null;
end $$;

-- Sums that changes are added to and taken from must be exact: no integer that overflows, no float
-- whose last digit depends on the order. Readers clamp them.
alter table usage_hourly
    alter column input_usage type numeric,
    alter column output_usage type numeric,
    alter column total_usage type numeric,
    add column cost numeric;  -- none: summed up by the previous program, which reads total_cost
create index usage_hourly_unknown on usage_hourly (project_id, hour) where cost is null;

-- Traces whose observations of one day and model lie in several environments: each of these counts
-- the trace in `usage_hourly`, and here is how often that is once too many.
create table usage_shared (
    project_id   text collate "C" not null,
    hour         timestamptz not null,
    date         date not null,
    model        text,
    environments text[] not null,  -- in order
    traces       bigint not null
);
create index usage_shared_key on usage_shared (project_id, hour);

-- How long observations took, by the day that their trace begins on. It replaces `latency_hourly`, of which
-- thirty days had 24 times as many rows; the previous program reads that one.
create table latency_daily (
    project_id  text collate "C" not null,
    day         date not null,
    environment text not null,      -- of the observations
    date        date not null,      -- of the observations
    model       text,
    measure     text not null,      -- latency, timeToFirstToken
    total       numeric not null,   -- microseconds, as are the next three
    least       bigint not null,
    greatest    bigint not null,
    micros      bigint[] compression lz4 not null,  -- distinct and ascending
    counts      bigint[] compression lz4 not null,
    is_rounded  boolean not null    -- because there were more than 1,000
);
create index latency_daily_day on latency_daily (project_id, day);
create index latency_daily_date on latency_daily (project_id, measure, date);
