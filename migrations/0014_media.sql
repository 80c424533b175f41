-- Media: files that inputs, outputs and metadata refer to, kept in pieces.
create table media (
    project_id         text collate "C" not null,
    id                 text collate "C" not null,   -- of the hash, as clients compute it
    sha256             bytea not null,
    content_type       text not null,
    content_length     bigint not null,
    upload_id          text collate "C",            -- whose pieces are its bytes; null until there are any
    uploaded_at        timestamptz,
    upload_http_status int,                         -- what the client, or the upload itself, reported
    upload_http_error  text,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    primary key (project_id, id)
);

-- An upload writes its pieces one by one, and becomes the bytes of its media at once, at its end.
create table media_chunks (
    project_id text collate "C" not null,
    upload_id  text collate "C" not null,
    number     int not null,
    created_at timestamptz not null,
    bytes      bytea not null,
    primary key (project_id, upload_id, number)
);
-- Most media are compressed already.
alter table media_chunks alter column bytes set storage external;
create index media_chunks_created on media_chunks (created_at) where number = 0;

-- Where media are referred to: in a trace or an observation, or in an item of a dataset.
create table media_links (
    project_id text collate "C" not null,
    media_id   text collate "C" not null,
    owner_kind text not null,                       -- trace, observation, item
    owner_id   text collate "C" not null,           -- of the trace, or of the item's dataset
    part_id    text collate "C" not null,           -- of the observation or the item, else empty
    field      text not null,                       -- input, output, metadata, expectedOutput
    created_at timestamptz not null,
    primary key (project_id, media_id, owner_kind, owner_id, part_id, field)
);
create index media_links_of_owner on media_links (project_id, owner_kind, owner_id);

-- Keys that all processes of this database sign with.
create table signing_keys (
    name  text primary key,
    value bytea not null
);
