//! The private Postgres belongs to its superuser only until there is a role that owns one database.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::connect::{self, Purpose};
use crate::unusable::Unusable;

/// Sessions of a killed xtrace end when Postgres notices; renaming a database waits for them.
const RENAME_ATTEMPTS: u32 = 100;
const RENAME_PAUSE: Duration = Duration::from_millis(50);

/// Makes a role that is no superuser and a database of the same name that it owns. A cluster of an older
/// program has its tables in the database of the superuser: it is renamed, and they change hands.
/// `url` is that of the superuser in a database.
pub async fn give_to(role: &str, url: impl Fn(&str) -> String) -> Result<(), Unusable> {
    let connect = async |database: &str| {
        let options = connect::options(&url(database))?;
        connect::connection(&options, Purpose::Schema).await
    };
    let mut server = connect("template1").await?;
    if !exists(&mut server, "pg_roles where rolname", role).await? {
        run(&mut server, &format!("create role {role} login")).await?;
    }
    if !exists(&mut server, "pg_database where datname", role).await? {
        let mut old = connect("postgres").await?;
        let is_used: bool =
            sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
                .fetch_one(&mut old)
                .await?;
        old.close().await?;
        if is_used {
            rename(&mut server, role).await?;
        } else {
            let create = format!("create database {role} owner {role} template template0");
            run(&mut server, &create).await?;
        }
    }
    if !exists(&mut server, "pg_database where datname", "postgres").await? {
        run(&mut server, "create database postgres template template0").await?;
    }
    run(
        &mut server,
        &format!("alter database {role} owner to {role}"),
    )
    .await?;
    server.close().await?;
    let mut own = connect(role).await?;
    hand_over(&mut own, role).await?;
    own.close().await?;
    Ok(())
}

async fn exists(
    connection: &mut PgConnection,
    what: &str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    let sql = format!("select exists (select from {what} = $1)");
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(name)
        .fetch_one(connection)
        .await
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    statement.execute(connection).await.map(|_| ())
}

/// Gives the superuser's database another name, once nobody is in it.
async fn rename(server: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let mut attempt = 1;
    loop {
        run(
            server,
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres'",
        )
        .await?;
        match run(server, &format!("alter database postgres rename to {name}")).await {
            Err(error)
                if attempt < RENAME_ATTEMPTS && crate::error::is_sqlstate(&error, &["55006"]) =>
            {
                attempt += 1;
                tokio::time::sleep(RENAME_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Everything in the schema changes hands at once; nothing is left to do at later starts. Sequences of
/// columns, indexes and types of rows follow their tables.
async fn hand_over(connection: &mut PgConnection, role: &str) -> Result<(), sqlx::Error> {
    let statement = format!(
        "do $$
         declare statement text;
         begin
            for statement in
                select format('alter table %s owner to {role}', oid::regclass) from pg_class
                 where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')
                   and relowner <> '{role}'::regrole
                union all
                select format('alter function %s owner to {role}', oid::regprocedure) from pg_proc
                 where pronamespace = 'public'::regnamespace and proowner <> '{role}'::regrole
            loop
                execute statement;
            end loop;
         end $$;
         alter schema public owner to {role}"
    );
    run(connection, &statement).await
}
