-- What programs must know of the schema before they use it. A migration that takes away what an older
-- program needs raises `oldest_program`; programs before it refuse to start and say which one they need.
create table schema_meta (
    is_only        boolean primary key default true check (is_only),
    oldest_program text not null  -- major.minor.patch
);
insert into schema_meta (oldest_program) values ('0.2.0');
