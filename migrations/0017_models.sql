-- Models of a project, which go before those of the built-in price list.
create table models (
    project_id       text collate "C" not null,
    id               text collate "C" not null,
    model_name       text collate "C" not null,
    match_pattern    text not null,
    start_date       timestamptz,
    unit             text not null,
    tokenizer_id     text,
    tokenizer_config text,                     -- JSON text
    pricing_tiers    text not null,            -- JSON text, as in the built-in list
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    primary key (project_id, id),
    unique (project_id, model_name)
);
