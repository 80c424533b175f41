-- The end of a project is recorded before anything of it goes, and any process finishes it, however often it is
-- interrupted; see store/src/erasure.
alter table projects add column deleting_at timestamptz;  -- since when nothing is stored for it any more

-- What was erased, one row each time. It outlives its project, so it refers to none.
create table project_erasures (
    id          text collate "C" not null,    -- of the project
    name        text,                         -- none: rows were found whose project had no row
    asked_at    timestamptz not null,
    finished_at timestamptz,
    counts      jsonb not null default '{}',  -- deleted rows by table
    primary key (id, asked_at)
);

-- Ids that own rows without being a project's, and since when that has been so.
create table orphans (
    id      text collate "C" primary key,
    seen_at timestamptz not null
);
