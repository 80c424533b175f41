-- Who owns rows, and the key pairs that open a project.
create table projects (
    id          text collate "C" primary key,
    name        text not null,
    created_at  timestamptz not null
);

create table api_keys (
    public_key  text collate "C" primary key,
    project_id  text collate "C" not null references projects (id),
    secret_hash bytea not null,  -- SHA-256 over public key, ":" and secret key
    created_at  timestamptz not null
);
