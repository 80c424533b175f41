-- What rows of points carry beside their bytes: the version of their format, so that a program leaves alone what a
-- later one wrote, and a checksum, so that a flipped bit is noticed. Rows without a checksum were written by a
-- program that knew of none; it can read what this one writes.

alter table metric_blocks
    add column format   smallint not null default 0,
    add column checksum bigint;
alter table metric_chunks
    add column format   smallint not null default 0,
    add column checksum bigint;

-- Blocks and chunks that can't be read, byte by byte as they were, until their retention ends.
create table metric_set_aside (
    project_id   text collate "C" not null,
    shard        smallint not null,
    id           bigint generated always as identity,
    series_id    bigint,  -- of a chunk
    first_at     timestamptz not null,
    last_at      timestamptz not null,
    points       integer not null,
    format       smallint not null,
    checksum     bigint,
    data         bytea not null,
    set_aside_at timestamptz not null,
    primary key (project_id, shard, id)
);
alter table metric_set_aside alter column data set storage external;
