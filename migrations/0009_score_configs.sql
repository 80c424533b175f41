-- What scores of a name may say.
create table score_configs (
    project_id  text collate "C" not null,
    id          text collate "C" not null,
    name        text not null,
    description text,
    data_type   text not null,       -- NUMERIC, CATEGORICAL, BOOLEAN, TEXT
    min_value   float8,
    max_value   float8,
    categories  jsonb,               -- [{label, value}]
    is_archived boolean not null default false,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    primary key (project_id, id)
);
