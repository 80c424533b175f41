-- What ids of series are hashed with, so that nobody can make up labels whose series has the id of another one. A
-- database that has series already goes on without (0): their ids stay the same.
create table series_key (
    is_only boolean primary key default true check (is_only),
    key     bigint not null
);
insert into series_key (key)
select case when exists (select from metric_series) then 0
            else ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint end;
