-- What people say about what they see: comments, and queues of things to look at.
create table comments (
    project_id  text collate "C" not null,
    id          text collate "C" not null,
    object_type text not null,       -- TRACE, OBSERVATION, SESSION, PROMPT
    object_id   text collate "C" not null,
    content     text not null,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    primary key (project_id, id)
);
create index comments_of_object on comments (project_id, object_type, object_id, created_at);
create index comments_in_order on comments (project_id, created_at, id);

create table annotation_queues (
    project_id       text collate "C" not null,
    id               text collate "C" not null,
    name             text not null,
    description      text,
    score_config_ids text[] not null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    primary key (project_id, id),
    unique (project_id, name)
);

create table annotation_queue_items (
    project_id   text collate "C" not null,
    id           text collate "C" not null,
    queue_id     text collate "C" not null,
    object_type  text not null,      -- TRACE, OBSERVATION, SESSION
    object_id    text collate "C" not null,
    status       text not null,      -- PENDING, COMPLETED
    completed_at timestamptz,
    created_at   timestamptz not null,
    updated_at   timestamptz not null,
    primary key (project_id, id)
);
create index annotation_queue_items_in_order
    on annotation_queue_items (project_id, queue_id, created_at desc, id);
