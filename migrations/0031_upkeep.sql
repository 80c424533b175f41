-- What the upkeep remembers between its rounds, in one row; see store/src/retention/clock.rs.
create table upkeep (
    id              boolean primary key default true check (id),
    trusted_at      timestamptz not null,  -- the latest time at which retention believed the clock
    suspected_since timestamptz,           -- since when the clock has been too far ahead of that
    suspected_at    timestamptz,           -- when it was looked at last
    days_back       int not null           -- days back from today that get a partition
);
-- A new database was made just now. An older one was last known to be right when it was migrated: if that is
-- long ago, retention waits a day before it believes today's clock.
insert into upkeep (trusted_at, days_back)
select coalesce(max(installed_on), now()), 90 from _sqlx_migrations;

-- Rows of days without a partition are found by their time, to be moved or deleted.
create index observations_default_time on observations_default (start_time);
create index logs_default_time on logs_default (ts);
create index metric_chunks_default_time on metric_chunks_default (first_at);
create index metric_exemplars_default_time on metric_exemplars_default (ts);
