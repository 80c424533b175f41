-- Datasets, every version of their items, and runs over them.
create table datasets (
    project_id             text collate "C" not null,
    id                     text collate "C" not null,
    name                   text collate "C" not null,
    description            text,
    metadata               text,                    -- JSON text, as all that follow
    input_schema           text,
    expected_output_schema text,
    created_at             timestamptz not null,
    updated_at             timestamptz not null,
    primary key (project_id, id),
    unique (project_id, name)
);

create table dataset_items (
    project_id            text collate "C" not null,
    id                    text collate "C" not null,
    dataset_id            text collate "C" not null,
    status                text not null,            -- ACTIVE, ARCHIVED
    input                 text,
    expected_output       text,
    metadata              text,
    source_trace_id       text collate "C",
    source_observation_id text collate "C",
    created_at            timestamptz not null,     -- of its first version
    valid_from            timestamptz not null,
    valid_to              timestamptz,              -- null while it is the newest; set without a next, it was deleted
    primary key (project_id, id, valid_from)
);
create unique index dataset_items_now on dataset_items (project_id, id) where valid_to is null;
create index dataset_items_of_dataset on dataset_items (project_id, dataset_id, created_at desc, id);

create table dataset_runs (
    project_id  text collate "C" not null,
    id          text collate "C" not null,          -- of its project, dataset and name
    dataset_id  text collate "C" not null,
    name        text not null,
    description text,
    metadata    text,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    primary key (project_id, id)
);
create index dataset_runs_of_dataset on dataset_runs (project_id, dataset_id, created_at desc, id);

create table dataset_run_items (
    project_id     text collate "C" not null,
    id             text collate "C" not null,
    run_id         text collate "C" not null,
    item_id        text collate "C" not null,
    trace_id       text collate "C" not null,
    observation_id text collate "C",
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    primary key (project_id, id)
);
create index dataset_run_items_of_run on dataset_run_items (project_id, run_id, created_at desc, id);
