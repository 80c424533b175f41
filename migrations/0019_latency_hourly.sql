-- How long observations took, by the hour that their trace begins in: percentiles over long ranges are
-- of these values, as sums are of `usage_hourly`, and both are right unless `usage_dirty` names the
-- hour. See store/src/usage.rs.
create table latency_hourly (
    project_id  text collate "C" not null,
    hour        timestamptz not null,
    environment text not null,      -- of the observations
    date        date not null,
    model       text,
    measure     text not null,      -- latency, timeToFirstToken
    total       float8 not null,    -- microseconds, as are the next three
    least       bigint not null,
    greatest    bigint not null,
    micros      bigint[] not null,  -- distinct and ascending; rounded when there are more than 1,000
    counts      bigint[]            -- none: each is there once
);
create index latency_hourly_key on latency_hourly (project_id, hour);
create index latency_hourly_date on latency_hourly (project_id, measure, date);

-- The middle of the bucket of 1/128 of its power of two: wrong by 0.4 % at most. `round` of
-- store/src/writer/durations.rs is the same rule.
create function rounded_micros(micros bigint) returns bigint language sql immutable parallel safe as $$
    select case when micros < 256 then micros
                else micros - micros % (1::bigint << (floor(log(2, micros))::int - 7))
                     + (1::bigint << (floor(log(2, micros))::int - 8)) end
$$;

-- Traces tell durations beside what they used: `latency` and `first_token` of an entry of `usage` are
-- objects of microseconds and how many observations took them.
update traces t set usage = o.usage
  from (select project_id, trace_id, jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                   'date', date, 'environment', environment, 'model', model,
                   'observations', observations, 'input', input, 'output', output,
                   'total', total, 'cost', cost, 'latency', latency, 'first_token', first_token))) as usage
          from (select project_id, trace_id, date, environment, model, sum(observations) filter (where kind = 0) as observations,
                       sum(input) as input, sum(output) as output, sum(total) as total, sum(cost) as cost,
                       jsonb_object_agg(micros::text, observations) filter (where kind = 1 and micros is not null) as latency,
                       jsonb_object_agg(micros::text, observations) filter (where kind = 2 and micros is not null) as first_token
                  from (select project_id, trace_id, (start_time at time zone 'utc')::date as date, environment, model,
                               kind, case kind when 1 then latency when 2 then first_token end as micros,
                               count(*) as observations,
                               sum(input_usage) filter (where kind = 0) as input,
                               sum(output_usage) filter (where kind = 0) as output,
                               sum(total_usage) filter (where kind = 0) as total,
                               sum(total_cost order by id) filter (where kind = 0) as cost
                          from (select *, (extract(epoch from end_time - start_time) * 1000000)::bigint as latency,
                                       (extract(epoch from completion_start_time - start_time) * 1000000)::bigint as first_token
                                  from observations) durations
                         cross join generate_series(0, 2) kind
                         group by 1, 2, 3, 4, 5, 6, 7) by_duration
                 group by 1, 2, 3, 4, 5) by_model
         group by 1, 2) o
 where o.project_id = t.project_id and o.trace_id = t.id;
