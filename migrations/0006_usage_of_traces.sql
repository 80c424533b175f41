-- What a trace used, as an array of {date, environment, model, observations, input, output, total, cost}:
-- the day (UTC) its observations start on, their environment and model, and their sums; zeros and nulls
-- are left out. An hour's usage is read from rows of traces: observations are ten times as large.
alter table traces add column usage jsonb not null default '[]';

update traces t set usage = o.usage
  from (select project_id, trace_id, jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                   'date', date, 'environment', environment, 'model', model,
                   'observations', observations, 'input', input, 'output', output,
                   'total', total, 'cost', cost))) as usage
          from (select project_id, trace_id, (start_time at time zone 'utc')::date as date,
                       environment, model, count(*) as observations, sum(input_usage) as input,
                       sum(output_usage) as output, sum(total_usage) as total,
                       sum(total_cost order by id) as cost
                  from observations group by 1, 2, 3, 4, 5) by_model
         group by 1, 2) o
 where o.project_id = t.project_id and o.trace_id = t.id;

-- Postgres itself names the hours that a statement changes: no way of writing traces can forget it,
-- and no writer waits for one more statement. Every change of an observation writes its trace.
create function mark_usage() returns trigger language plpgsql as $$
begin
    insert into usage_dirty select distinct project_id, date_trunc('hour', ts, 'UTC') from changed;
    return null;
end $$;

create trigger mark_usage_new after insert on traces
    referencing new table as changed for each statement execute function mark_usage();
create trigger mark_usage_gone after delete on traces
    referencing old table as changed for each statement execute function mark_usage();

create function mark_usage_both() returns trigger language plpgsql as $$
begin
    insert into usage_dirty
    select project_id, date_trunc('hour', ts, 'UTC') from outdated
    union
    select project_id, date_trunc('hour', ts, 'UTC') from changed;
    return null;
end $$;

create trigger mark_usage_changed after update on traces
    referencing old table as outdated new table as changed
    for each statement execute function mark_usage_both();
