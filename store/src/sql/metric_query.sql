-- $1 project, $2 name, $3 labels, $4 environment or null, $5 from, $6 to, $7 label keys to group by
-- or null, $8 step in seconds, $9 series at most, $10 buckets of a series at most.
with matched as (
    select s.series_id,
           case when $7::text[] is null then s.labels
                else (select coalesce(jsonb_object_agg(k, s.labels ->> k), '{}')
                        from unnest($7) k where s.labels ? k)
            end as labels
      from metric_series s
     where s.project_id = $1 and s.name = $2 and s.labels @> $3
       and ($4::text is null or s.environment = $4)
),
fresh as materialized (
    select m.series_id, m.labels, newest.ts as latest
      from matched m
     cross join lateral (
           select p.ts from metric_points p
            where p.project_id = $1 and p.series_id = m.series_id and p.ts between $5 and $6
            order by p.ts desc limit 1) newest
),
groups as (
    select labels, max(latest) as latest,
           row_number() over (order by max(latest) desc, labels) as place,
           count(*) over () > $9 as truncated
      from fresh
     group by labels
),
points as (
    select g.labels, g.latest, g.place, g.truncated, p.series_id, p.ts, p.value,
           p.value - case when p.value >= lag(p.value) over w then lag(p.value) over w
                          when lag(p.value) over w is null then p.value
                          else 0 end as grown
      from groups g
      join fresh f on f.labels = g.labels
     cross join lateral (
           select p.series_id, p.ts, p.value from metric_points p
            where p.project_id = $1 and p.series_id = f.series_id and p.ts between $5 and $6) p
     where g.place <= $9
    window w as (partition by p.series_id order by p.ts)
),
buckets as (
    select labels, latest, place, truncated,
           to_timestamp(floor(extract(epoch from ts) / $8) * $8) as bucket,
           {aggregate} as value
      from points
     group by 1, 2, 3, 4, 5
),
ranked as (
    select labels, latest, place, bucket, value,
           row_number() over (partition by place order by bucket desc) as age,
           truncated or count(*) over (partition by place) > $10 as truncated
      from buckets
)
select labels, bucket, value, latest, truncated
  from ranked
 where age <= $10
 order by place, bucket
