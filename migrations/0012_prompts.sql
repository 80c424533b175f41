-- Prompts: every version of every name.
create table prompts (
    project_id     text collate "C" not null,
    name           text collate "C" not null,
    version        int not null,
    id             text collate "C" not null,
    type           text not null,            -- text, chat
    prompt         text not null,            -- JSON text: a string, or a list of messages
    config         text not null,            -- JSON text
    labels         text[] not null,          -- each label is on one version of a name
    tags           text[] not null,          -- the same on all versions of a name
    commit_message text,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    primary key (project_id, name, version)
);
create index prompts_by_id on prompts (project_id, id);
