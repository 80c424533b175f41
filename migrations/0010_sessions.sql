-- Sessions: the first trace of each makes its row, which outlives the trace. Triggers write it, for the
-- same reason as usage_dirty: no way of writing traces can forget it.
create table sessions (
    project_id  text collate "C" not null,
    id          text collate "C" not null,
    environment text not null,
    created_at  timestamptz not null,
    primary key (project_id, id)
);
create index sessions_created on sessions (project_id, created_at desc, id);

insert into sessions
select distinct on (project_id, session_id) project_id, session_id, environment, created_at
  from traces where session_id is not null
 order by project_id, session_id, created_at
on conflict do nothing;

create function add_sessions() returns trigger language plpgsql as $$
begin
    -- In the order of their keys, as all rows are written.
    insert into sessions
    select distinct on (project_id, session_id) project_id, session_id, environment, created_at
      from changed where session_id is not null and octet_length(session_id) < 2000
     order by project_id, session_id, created_at
    on conflict do nothing;
    return null;
end $$;

create trigger add_sessions_new after insert on traces
    referencing new table as changed for each statement execute function add_sessions();
create trigger add_sessions_changed after update on traces
    referencing new table as changed for each statement execute function add_sessions();
