-- What a trace's observations sum up to, written with every change of one of them.
alter table traces
    add column latency       float8,  -- seconds; none without observations
    add column debug_count   int not null default 0,
    add column default_count int not null default 0,
    add column warning_count int not null default 0,
    add column error_count   int not null default 0,
    add column input_usage   bigint not null default 0,
    add column output_usage  bigint not null default 0,
    add column total_usage   bigint not null default 0,
    add column input_cost    float8 not null default 0,
    add column output_cost   float8 not null default 0,
    add column total_cost    float8;  -- none when no observation has a cost

update traces t set
    latency = extract(epoch from coalesce(o.last_end, o.last_start) - o.first_start),
    debug_count = o.debug_count, default_count = o.default_count,
    warning_count = o.warning_count, error_count = o.error_count,
    input_usage = o.input_usage, output_usage = o.output_usage, total_usage = o.total_usage,
    input_cost = o.input_cost, output_cost = o.output_cost, total_cost = o.total_cost
  from (select project_id, trace_id, min(start_time) as first_start, max(start_time) as last_start,
               max(end_time) as last_end,
               count(*) filter (where level = 'DEBUG') as debug_count,
               count(*) filter (where level = 'DEFAULT') as default_count,
               count(*) filter (where level = 'WARNING') as warning_count,
               count(*) filter (where level = 'ERROR') as error_count,
               coalesce(sum(input_usage), 0) as input_usage,
               coalesce(sum(output_usage), 0) as output_usage,
               coalesce(sum(total_usage), 0) as total_usage,
               coalesce(sum(input_cost order by id), 0) as input_cost,
               coalesce(sum(output_cost order by id), 0) as output_cost,
               sum(total_cost order by id) as total_cost
          from observations group by project_id, trace_id) o
 where o.project_id = t.project_id and o.trace_id = t.id;

-- Usage by the hour that a trace begins in, and by the day of the observation: sums of hours are right
-- for any range of traces, and a trace is counted in one hour only. Rows of an hour are right unless
-- `usage_dirty` names it; see store/src/usage.rs.
create table usage_hourly (
    project_id   text collate "C" not null,
    hour         timestamptz not null,
    environment  text not null,  -- of the observations
    date         date not null,
    model        text,           -- none for observations without one
    traces       bigint not null,
    observations bigint not null,
    input_usage  bigint not null,
    output_usage bigint not null,
    total_usage  bigint not null,
    total_cost   float8 not null
);
create index usage_hourly_key on usage_hourly (project_id, hour);

-- Traces by the hour that they begin in.
create table traces_hourly (
    project_id  text collate "C" not null,
    hour        timestamptz not null,
    environment text not null,
    traces      bigint not null
);
create index traces_hourly_key on traces_hourly (project_id, hour);

-- Hours to be summed up again: every transaction names those that it changed, and whoever sums up
-- removes the names that it saw.
create table usage_dirty (
    project_id text collate "C" not null,
    hour       timestamptz not null
);
create index usage_dirty_key on usage_dirty (project_id, hour);
insert into usage_dirty select distinct project_id, date_trunc('hour', ts, 'UTC') from traces;

-- Sums come from usage_hourly: the index need not hold what they add up.
drop index observations_ts;
create index observations_ts on observations (project_id, start_time);

-- What lists of traces are filtered by, cut to what an index entry holds: counts read the index alone.
-- Shorter values are whole, so a condition on them needs no second look. Written by the program: made
-- by Postgres they cost every COPY a sixth of a millisecond.
drop index traces_user, traces_session, traces_name;
alter table traces
    add column user_key text,
    add column session_key text,
    add column name_key text,
    add column version_key text,
    add column release_key text,
    add column environment_key text;
update traces set user_key = left(user_id, 200), session_key = left(session_id, 200),
    name_key = left(name, 200), version_key = left(version, 200),
    release_key = left(release, 200), environment_key = left(environment, 200);
create index traces_user on traces (project_id, user_key, ts desc) where user_key is not null;
create index traces_session on traces (project_id, session_key, ts desc) where session_key is not null;
create index traces_name on traces (project_id, name_key, ts desc);
create index traces_version on traces (project_id, version_key, ts desc) where version_key is not null;
create index traces_release on traces (project_id, release_key, ts desc) where release_key is not null;
create index traces_environment on traces (project_id, environment_key, ts desc);
create index traces_metadata on traces using gin (metadata jsonb_path_ops);
create index traces_cost on traces (project_id, (coalesce(sent_total_cost, total_cost, 0)) desc, id desc);

-- Rows of up to 8 kB stay whole in their page, and only their largest values are compressed. With
-- the default Postgres moves small values out of rows beyond 2 kB: nearly twice the work.
do $$
declare name text;
begin
    for name in select attname from pg_attribute
                 where attrelid = 'observations'::regclass and attnum > 0 and attstorage = 'x'
    loop
        execute format('alter table observations alter column %I set storage main', name);
    end loop;
end $$;

-- Half the size of a tree over ids, and a sixth less work a row.
drop index observations_id;
create index observations_id on observations using hash (id);
