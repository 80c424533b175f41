-- Days that a project keeps what it has; none: as long as the service says.
alter table projects
    add column traces_retention_days  integer,
    add column metrics_retention_days integer;
