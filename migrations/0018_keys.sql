-- Keys that are made and revoked, and what each may do.
alter table api_keys
    add column id             text collate "C" not null default gen_random_uuid()::text,
    add column name           text,
    add column display_secret text not null default 'sk-lf-...',
    add column scopes         text[] not null default '{read,write,scores}',  -- also admin
    add column expires_at     timestamptz;
create unique index api_keys_id on api_keys (id);
create index api_keys_of_project on api_keys (project_id, created_at);

alter table projects
    add column metadata   jsonb not null default '{}',
    add column updated_at timestamptz not null default now();
create unique index projects_name on projects (name);
