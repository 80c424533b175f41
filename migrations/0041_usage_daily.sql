-- Sums of `usage_hourly` and `usage_shared` over the hours of a day: thirty days are 24 times as many rows to add
-- up by the hour. The statements that change those change these too, and days whose hours are in doubt are in doubt
-- here as well; see store/src/usage/mod.rs.
create table usage_daily (
    project_id   text collate "C" not null,
    day          date not null,  -- that traces begin on, in UTC
    environment  text not null,  -- of the observations, as are the next two
    date         date not null,
    model        text,
    traces       bigint not null,
    observations bigint not null,
    input_usage  numeric not null,
    output_usage numeric not null,
    total_usage  numeric not null,
    cost         numeric not null
);
create index usage_daily_day on usage_daily (project_id, day);
create index usage_daily_date on usage_daily (project_id, date);

create table usage_shared_daily (
    project_id   text collate "C" not null,
    day          date not null,
    date         date not null,
    model        text,
    environments text[] not null,  -- in order
    traces       bigint not null
);
create index usage_shared_daily_day on usage_shared_daily (project_id, day);

-- Hours without a cost were summed up by the previous program; their days are read from traces.
insert into usage_daily (project_id, day, environment, date, model, traces, observations,
       input_usage, output_usage, total_usage, cost)
select project_id, (hour at time zone 'utc')::date, environment, date, model, sum(traces), sum(observations),
       sum(input_usage), sum(output_usage), sum(total_usage), sum(cost)
  from usage_hourly
 where cost is not null
 group by 1, 2, 3, 4, 5;

insert into usage_shared_daily (project_id, day, date, model, environments, traces)
select project_id, (hour at time zone 'utc')::date, date, model, environments, sum(traces)
  from usage_shared
 group by 1, 2, 3, 4, 5;
