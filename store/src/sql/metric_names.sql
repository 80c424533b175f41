-- The distinct names of one project: each step of the recursion is one look-up in the index.
with recursive names as (
    (select name from metric_series where project_id = $1 order by name limit 1)
    union all
    select (select s.name from metric_series s
             where s.project_id = $1 and s.name > names.name
             order by s.name limit 1)
      from names
     where names.name is not null
)
select name from names where name is not null order by name limit $2
